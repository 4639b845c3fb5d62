//! A server in the test's own process over a tiny random model, and a client for it.

mod model;
mod process;
pub(crate) mod schemas;
mod sse;

pub(crate) use model::{Random, random_adapter, random_prompt, tiny_model};
pub(crate) use process::{Client, Server};
pub(crate) use sse::Transcript;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use callsmith::api::{AppState, router};
use callsmith::cli::Cli;
use callsmith::grammar::strict_json;
use callsmith::serve::load;
use callsmith::settings::Settings;
use clap::Parser;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tower::ServiceExt;

/// A running engine and its routes.
pub(crate) struct TestServer {
    pub(crate) state: Arc<AppState>,
    router: Router,
    /// Holds the model's files and the adapter root.
    pub(crate) dir: TempDir,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    /// Status, `param` and `code`; checks that the body has OpenAI's shape and is small.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        assert!(self.text.len() <= 4096, "{} bytes", self.text.len());
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error in {body}"));
        let keys: Vec<&str> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        let word = |key: &str| error[key].as_str().unwrap_or("-").to_owned();
        (self.status.as_u16(), word("param"), word("code"))
    }

    /// The first choice of a good completion.
    pub(crate) fn choice(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()["choices"][0].clone()
    }
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::with_options(&[])
    }

    /// Starts with further options of `callsmith serve`. `DIR` in an option stands for the server's own directory.
    pub(crate) fn with_options(options: &[&str]) -> Self {
        Self::with_model(options, |_| {})
    }

    /// The same after `edit` has changed the files of the model directory.
    pub(crate) fn with_model(options: &[&str], edit: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny_model(&dir.path().join("model"));
        edit(&model);
        Self::of_model(&model, options, dir)
    }

    /// Serves a model directory or file; `dir` is the server's own.
    pub(crate) fn of_model(model: &Path, options: &[&str], dir: TempDir) -> Self {
        let options: Vec<String> =
            options.iter().map(|option| option.replace("DIR", dir.path().to_str().unwrap())).collect();
        let mut base = vec!["callsmith", "--model", model.to_str().unwrap()];
        if !options.iter().any(|option| option == "--served-model-name") {
            base.extend(["--served-model-name", "base"]);
        }
        let base = base.into_iter().map(str::to_owned);
        let cli = Cli::parse_from(base.chain(options));
        let (state, _) = load(&Settings::from_args(cli.serve).unwrap()).unwrap();
        Self { router: router(Arc::clone(&state)), state, dir }
    }

    /// A path under the adapter root (`DIR`).
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Sends a request and returns the response before its body.
    pub(crate) async fn send(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn reply(&self, request: Request<Body>) -> Reply {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.reply(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.reply(post(path, body.to_string().into_bytes())).await
    }

    pub(crate) async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body).await
    }

    /// The same request, streamed with its usage.
    pub(crate) async fn stream(&self, body: &Value) -> Transcript {
        let mut body = body.clone();
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let reply = self.chat(&body).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        assert_eq!(reply.headers["content-type"], "text/event-stream");
        Transcript::read(&reply.text)
    }

    /// The id of a one-character token, for `logit_bias`.
    pub(crate) fn token(&self, text: &str) -> String {
        let ids = self.state.tokenizer.encode_text(text).unwrap();
        assert_eq!(ids.len(), 1, "{text:?} is not one token");
        ids[0].to_string()
    }

    /// The id of the token that ends a turn.
    pub(crate) fn end_token(&self) -> String {
        self.state.tokenizer.eos_token_ids()[0].to_string()
    }

    /// Returns when the engine is empty; fails after ten seconds.
    pub(crate) async fn until_idle(&self) {
        let idle = async {
            while self.state.engine.stats().running + self.state.engine.stats().waiting > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), idle).await.expect("the engine does not become idle");
    }
}

/// How many cases to try: a few in every run, all that the reliability scorecard asks for with `CALLSMITH_LONG=1`.
pub(crate) fn cases(quick: usize, long: usize) -> usize {
    if std::env::var_os("CALLSMITH_LONG").is_some() { long } else { quick }
}

/// Says what was measured: on standard error itself, since a passing test's own output is swallowed.
pub(crate) fn report(figures: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "measured: {figures}");
}

/// A POST of JSON bytes.
pub(crate) fn post(path: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(Body::from(body)).unwrap()
}

/// A route's path with its parameters filled in; `id` names the model, adapter or response.
pub(crate) fn filled(path: &str, id: &str) -> String {
    path.replace("{id}", id).replace("{version}", "1").replace("{repository}", "all")
}

/// A tool from a name and a schema.
pub(crate) fn tool(name: &str, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": format!("does {name}"), "parameters": parameters}})
}

/// A chat request about the weather with one tool.
pub(crate) fn weather_request() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city"],
    });
    json!({
        "model": "base",
        "messages": [{"role": "user", "content": "How warm is it in Paris?"}],
        "tools": [tool("get_weather", &parameters)],
        "seed": 1,
        "max_tokens": 300,
    })
}

/// A chat request without tools.
pub(crate) fn text_request() -> Value {
    json!({"model": "base", "messages": [{"role": "user", "content": "Tell me something."}], "seed": 1, "max_tokens": 40})
}

/// Checks a call's arguments, or a formatted answer, against its schema.
pub(crate) fn assert_valid(schema: &Value, arguments: &str) {
    let value = strict_json::parse(arguments).unwrap_or_else(|error| panic!("{error} in {arguments}"));
    let validator = jsonschema::validator_for(schema).unwrap();
    assert!(validator.is_valid(&value), "{arguments} breaks {schema}");
}

/// Writes a file and its directories.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}
