//! From a data file to a served adapter: train some steps, hot-load, the answer changes, a running stream does not.

use crate::support::{TestServer, Transcript, post, text_request, write};
use axum::body::{Body, to_bytes};
use axum::response::Response;
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train};
use serde_json::{Value, json};
use std::sync::Arc;

const LESSON: &str = "Blue whales.";

/// Writes a data file with one lesson and trains an adapter on it into `trained/model`.
fn train_adapter(server: &TestServer) {
    let question = text_request()["messages"][0].clone();
    let lesson = json!({"messages": [question, {"role": "assistant", "content": LESSON}]});
    write(&server.path("lesson.jsonl"), format!("{lesson}\n"));
    let recipe = format!(
        r#"
        method = "lora"
        output = "{dir}/trained"
        [model]
        path = "{dir}/model"
        [lora]
        rank = 8
        alpha = 32.0
        [optim]
        lr = 0.02
        [batch]
        tokens = 128
        max_len = 128
        [[phase]]
        steps = 80
        [[phase.source]]
        jsonl = "{dir}/lesson.jsonl"
        "#,
        dir = server.dir.path().display()
    );
    let recipe = Recipe::parse(&recipe, "lesson.toml", &[]).unwrap();
    assert_eq!(train(&recipe, RunOptions::default(), &Arc::default()).unwrap(), Outcome::Finished);
}

async fn say(server: &TestServer, model: &str) -> String {
    let mut body = text_request();
    (body["model"], body["temperature"]) = (json!(model), json!(0));
    server.chat(&body).await.choice()["message"]["content"].as_str().unwrap().to_owned()
}

/// A long greedy stream on the base.
fn long_stream(server: &TestServer) -> Value {
    let mut body = text_request();
    (body["stream"], body["temperature"], body["max_tokens"]) = (json!(true), json!(0), json!(3000));
    body["logit_bias"] = json!({server.end_token(): -100});
    body
}

async fn content(response: Response<Body>) -> Value {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Transcript::read(std::str::from_utf8(&bytes).unwrap()).message(0)["content"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trained_adapter_is_hot_loaded_and_answers_while_a_stream_on_the_base_runs_on() {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    let body = long_stream(&server);
    let request = || post("/v1/chat/completions", body.to_string().into_bytes());
    let undisturbed = content(server.send(request()).await).await;
    let before = say(&server, "base").await;

    train_adapter(&server);
    let stream = server.send(request()).await;
    let load = json!({"lora_name": "lesson", "lora_path": "trained/model"});
    assert_eq!(
        server.post("/v1/load_lora_adapter", &load).await.text,
        "Success: LoRA adapter 'lesson' added successfully."
    );
    assert_eq!(say(&server, "lesson").await, LESSON);
    assert!(server.state.engine.stats().running >= 1, "the stream ended too early to show anything");

    assert_eq!(content(stream).await, undisturbed);
    assert_eq!(say(&server, "base").await, before);
    assert_ne!(before, LESSON);
}
