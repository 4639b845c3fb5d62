//! A chat template comes from the base model's directory alone: not from a request, on no route, and not from an adapter.

use crate::support::{Reply, TestServer, filled, post, random_adapter, text_request, write};
use axum::body::Body;
use axum::http::Request;
use callsmith::api::paths;
use serde_json::{Value, json};

const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
/// What servers that take templates from requests call them.
const FIELDS: [&str; 4] = ["chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"];
/// Routes that make no prompt, though they take a POST.
const PROMPTLESS: [&str; 4] =
    ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/pin_lora_adapter", "/detokenize"];
const EVIL: &str = "{{ 'EVIL ' * 1000 }}{{ messages }}";

fn request(method: &str, path: &str, body: &Value) -> Request<Body> {
    let mut request = post(path, body.to_string().into_bytes());
    *request.method_mut() = method.parse().unwrap();
    request
}

/// A body that the route understands, as far as it reads one.
fn good_body(path: &str) -> Value {
    if path.contains("/generate") {
        return json!({"text_input": "abc", "max_tokens": 3});
    }
    if path.ends_with("/infer") {
        let input = json!({"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["abc"]});
        return json!({"inputs": [input], "parameters": {"max_tokens": 3}});
    }
    let mut body = text_request();
    body["max_tokens"] = json!(3);
    (body["lora_name"], body["lora_path"]) = (json!("late"), json!("late"));
    match path {
        "/v1/completions" => (body["prompt"], body["messages"]) = (json!("abc"), Value::Null),
        "/v1/responses" => {
            (body["input"], body["messages"], body["max_tokens"]) = (json!("abc"), Value::Null, Value::Null);
            body["max_output_tokens"] = json!(3);
        }
        "/detokenize" => body["tokens"] = json!([1, 2]),
        _ => {}
    }
    body
}

/// What a fresh server answers.
async fn reply(method: &str, path: &str, body: &Value) -> Reply {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    random_adapter(&server.path("late"), 3);
    server.reply(request(method, path, body)).await
}

/// A route refuses the field by name, or reads no such thing and does what it does without. Returns whether it takes the
/// method at all, and how many fields it refuses.
async fn takes_no_template(method: &str, path: &str) -> (bool, usize) {
    let plain = reply(method, path, &good_body(path)).await.status;
    let mut refused = 0;
    for field in FIELDS {
        let mut body = good_body(path);
        // Whether a turn is opened is no template; it is a question that can be asked of the tokeniser.
        if (path, field) == ("/tokenize", "add_generation_prompt") {
            continue;
        }
        let value =
            if field.ends_with("kwargs") { json!({"tokenize": true, "chat_template": EVIL}) } else { json!(EVIL) };
        *(if path.ends_with("/infer") { &mut body["parameters"][field] } else { &mut body[field] }) = value;
        let reply = reply(method, path, &body).await;
        assert!(!reply.text.contains("EVIL"), "{method} {path}: {}", reply.text);
        if reply.status == plain {
            continue;
        }
        if path.starts_with("/v2/") {
            assert_eq!(reply.status, 400, "{method} {path} {field}");
            assert!(reply.json()["error"].as_str().unwrap().contains(field), "{}", reply.text);
        } else {
            assert_eq!(reply.refusal(), (400, field.to_owned(), "unsupported_parameter".to_owned()));
        }
        refused += 1;
    }
    (plain != 405, refused)
}

/// A new route that makes prompts has to refuse templates: any other that takes a POST is named here.
#[tokio::test]
async fn no_route_takes_a_template_from_a_request() {
    for (path, _) in paths() {
        let path = path.as_str();
        for method in METHODS {
            let (serves, refused) = takes_no_template(method, &filled(path, "late")).await;
            let makes_prompts =
                method == "POST" && serves && !PROMPTLESS.contains(&path) && !path.contains("/repository/");
            let expected = if path == "/tokenize" { FIELDS.len() - 1 } else { FIELDS.len() };
            assert_eq!(refused, if makes_prompts { expected } else { 0 }, "{method} {path}");
        }
    }
}

/// Prompt length and answer of an adapter that is loaded over HTTP.
async fn answer_of(server: &TestServer, name: &str) -> (Value, Value) {
    let load = json!({"lora_name": name, "lora_path": server.path(name).to_str().unwrap()});
    let loaded = server.post("/v1/load_lora_adapter", &load).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    let mut body = text_request();
    (body["model"], body["temperature"]) = (json!(name), json!(0));
    let reply = server.chat(&body).await;
    (reply.json()["usage"]["prompt_tokens"].clone(), reply.choice()["message"]["content"].clone())
}

#[tokio::test]
async fn a_template_in_an_adapter_directory_is_ignored() {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    random_adapter(&server.path("plain"), 5);
    random_adapter(&server.path("evil"), 5);
    for name in ["chat_template.jinja", "chat_template.json"] {
        write(&server.path("evil").join(name), EVIL);
    }
    let config = json!({"chat_template": EVIL, "eos_token": "<|user|>"}).to_string();
    write(&server.path("evil").join("tokenizer_config.json"), config);
    write(&server.path("evil").join("tokenizer.json"), "{");
    assert_eq!(answer_of(&server, "evil").await, answer_of(&server, "plain").await);
}
