//! A server that speaks OpenAI's protocol, ours or another's: one request a turn, many under way at once.
//!
//! What the server writes under which grammar is its own business.

use super::{Answerer, Case, Reply, Take};
use crate::data::native;
use crate::error::{Result, TrainError};
use crate::eval::score::Call;
use callsmith::client::{CHAT, Client, Failure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(600);
/// Waits before a request is sent again to a server that is busy.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];

/// A model behind a URL.
pub struct Remote {
    client: Client,
    url: String,
    model: String,
    max_tokens: usize,
    in_flight: usize,
}

/// What of a completion is looked at.
#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    /// JSON text.
    arguments: String,
}

impl Remote {
    /// The model that the server at `url` calls `model`; `key` is sent as the bearer of every request.
    ///
    /// # Errors
    /// When the system gives no HTTP client.
    pub fn new(url: &str, key: Option<String>, model: &str, max_tokens: usize, in_flight: usize) -> Result<Self> {
        let client = Client::new(url, key).map_err(|failure| wrong(url, &failure))?;
        Ok(Self { client, url: url.to_owned(), model: model.to_owned(), max_tokens, in_flight })
    }

    fn body(&self, case: &Case) -> Value {
        let mut body = native::to_json(&case.conversation);
        body["model"] = json!(self.model);
        body["max_tokens"] = json!(self.max_tokens);
        body["temperature"] = json!(0.0);
        body
    }

    async fn answer_all(&self, cases: &[&Case], take: Take<'_>) -> Result<()> {
        let mut running: JoinSet<(usize, Result<Reply, Failure>)> = JoinSet::new();
        let mut waiting = cases.iter().enumerate();
        loop {
            while running.len() < self.in_flight
                && let Some((place, case)) = waiting.next()
            {
                let (client, body) = (self.client.clone(), self.body(case));
                running.spawn(async move { (place, ask(&client, &body).await) });
            }
            let Some(ended) = running.join_next().await else { return Ok(()) };
            let ended = ended.map_err(|error| TrainError::Data(format!("a request was lost: {error}")))?;
            take(ended.0, ended.1.map_err(|failure| wrong(&self.url, &failure))?)?;
        }
    }
}

impl Answerer for Remote {
    fn answer(&self, cases: &[&Case], take: Take<'_>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(TrainError::io(&self.url))?.block_on(self.answer_all(cases, take))
    }

    fn identity(&self) -> Value {
        json!({"url": self.url, "model": self.model, "max_tokens": self.max_tokens})
    }
}

/// One request, sent again while the server is busy.
async fn ask(client: &Client, body: &Value) -> Result<Reply, Failure> {
    let mut pauses = PAUSES.iter();
    loop {
        let sent = timeout(PATIENCE, client.post(CHAT, body)).await;
        let failure = match sent.unwrap_or_else(|_| Err(Failure::of("timeout"))) {
            Ok(text) => return read(&text),
            Err(failure) => failure,
        };
        match (failure.status, pauses.next()) {
            (Some(400 | 413 | 422), _) => return Ok(Reply::refusal(format!("{}: {}", failure.kind, failure.message))),
            (Some(429 | 500 | 502 | 503 | 504), Some(pause)) => sleep(*pause).await,
            _ => return Err(failure),
        }
    }
}

fn read(text: &str) -> Result<Reply, Failure> {
    let unread = |error: serde_json::Error| Failure { message: error.to_string(), ..Failure::of("no chat completion") };
    let completion: Completion = serde_json::from_str(text).map_err(unread)?;
    let message = completion.choices.into_iter().next().map(|choice| choice.message);
    let message = message.ok_or_else(|| Failure::of("a completion without a choice"))?;
    let call = |call: ToolCall| -> Call {
        // Text that is no JSON equals no wanted arguments.
        (call.function.name, serde_json::from_str(&call.function.arguments).unwrap_or(Value::Null))
    };
    let calls = message.tool_calls.unwrap_or_default().into_iter().map(call).collect();
    Ok(Reply { text: message.content.unwrap_or_default(), calls, refused: None })
}

fn wrong(url: &str, failure: &Failure) -> TrainError {
    let remedy = match failure.status {
        Some(401 | 403) => "; give the server's key with --api-key",
        Some(404) => "; --url is the server's root (or its /v1), --served-model one of the names that /v1/models lists",
        _ => "; what was answered is kept under --out, and the same command goes on from there",
    };
    let said = if failure.message.is_empty() { String::new() } else { format!(": {}", failure.message) };
    TrainError::Input { path: url.to_owned(), message: format!("{}{said}{remedy}", failure.kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_words_of_a_completion_are_read_and_broken_arguments_equal_nothing() {
        let call = |name: &str, arguments: &str| json!({"id": "a", "type": "function", "function": {"name": name, "arguments": arguments}});
        let message =
            json!({"role": "assistant", "content": null, "tool_calls": [call("f", "{\"x\":1}"), call("g", "{")]});
        let reply = read(&json!({"choices": [{"message": message}]}).to_string()).unwrap();
        assert_eq!(reply.calls, [("f".to_owned(), json!({"x": 1})), ("g".to_owned(), Value::Null)]);
        assert_eq!(read(r#"{"choices":[{"message":{"content":"hi"}}]}"#).unwrap().text, "hi");
        assert_eq!(read("<html>").unwrap_err().kind, "no chat completion");
        assert!(read(r#"{"choices":[]}"#).is_err());
    }

    #[test]
    fn an_error_of_the_server_names_it_and_what_to_do() {
        let failure = Failure { status: Some(401), message: "no key".to_owned(), ..Failure::of("http 401") };
        assert_eq!(
            wrong("http://x", &failure).to_string(),
            "http://x: http 401: no key; give the server's key with --api-key"
        );
    }
}
