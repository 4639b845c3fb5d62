//! A chat template comes from the base model's directory alone: not from a request, on no route, and not from an adapter.

use crate::support::{Reply, TestServer, post, random_adapter, text_request, write};
use axum::body::Body;
use axum::http::Request;
use callsmith::api::paths;
use serde_json::{Value, json};

const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
/// What servers that take templates from requests call them.
const FIELDS: [&str; 4] = ["chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"];
const PROMPTLESS: [&str; 4] = ["/v1/models", "/v1/models/{id}", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"];
const EVIL: &str = "{{ 'EVIL ' * 1000 }}{{ messages }}";

fn request(method: &str, path: &str, body: &Value) -> Request<Body> {
    let mut request = post(path, body.to_string().into_bytes());
    *request.method_mut() = method.parse().unwrap();
    request
}

/// A body that every route understands as far as it reads one.
fn good_body() -> Value {
    let mut body = text_request();
    body["max_tokens"] = json!(3);
    (body["lora_name"], body["lora_path"]) = (json!("late"), json!("late"));
    body
}

/// What a fresh server answers.
async fn reply(method: &str, path: &str, body: &Value) -> Reply {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    random_adapter(&server.path("late"), 3);
    server.reply(request(method, path, body)).await
}

/// A route refuses the field by name, or reads no such thing and does what it does without.
async fn takes_no_template(method: &str, path: &str) -> usize {
    let plain = reply(method, path, &good_body()).await.status;
    let mut refused = 0;
    for field in FIELDS {
        let mut body = good_body();
        let value =
            if field.ends_with("kwargs") { json!({"tokenize": true, "chat_template": EVIL}) } else { json!(EVIL) };
        body[field] = value;
        let reply = reply(method, path, &body).await;
        assert!(!reply.text.contains("EVIL"), "{method} {path}: {}", reply.text);
        if reply.status == 400 {
            assert_eq!(reply.refusal(), (400, field.to_owned(), "unsupported_parameter".to_owned()));
            refused += 1;
        } else {
            assert_eq!(reply.status, plain, "{method} {path} {field}");
        }
    }
    refused
}

/// A new route that makes prompts has to refuse templates: any other under `/v1/` that takes a POST is named here.
#[tokio::test]
async fn no_route_takes_a_template_from_a_request() {
    for path in paths() {
        for method in METHODS {
            let refused = takes_no_template(method, &path.replace("{id}", "late")).await;
            let makes_prompts = method == "POST" && path.starts_with("/v1/") && !PROMPTLESS.contains(&path);
            assert_eq!(refused, if makes_prompts { FIELDS.len() } else { 0 }, "{method} {path}");
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
