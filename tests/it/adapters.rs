//! Adapters over HTTP: loaded, used beside the base, replaced and unloaded while requests run.

use crate::support::{Reply, TestServer, post, random_adapter, text_request, write};
use callsmith::adapter::peft::{self, TokenRows};
use callsmith::api::MAX_LOADS;
use callsmith::model::weights::load_config;
use candle_core::{DType, Device, Tensor};
use futures::StreamExt;
use serde_json::{Value, json};

fn server() -> TestServer {
    TestServer::with_options(&["--adapter-root", "DIR"])
}

async fn load(server: &TestServer, name: &str, path: &str) -> Reply {
    server.post("/v1/load_lora_adapter", &json!({"lora_name": name, "lora_path": path})).await
}

async fn say(server: &TestServer, model: &str) -> String {
    say_with(server, model, 0.0).await
}

/// Long enough that requests which are sent together run together.
const TOKENS: u64 = 400;

async fn say_with(server: &TestServer, model: &str, temperature: f64) -> String {
    let mut body = text_request();
    (body["model"], body["temperature"], body["max_tokens"]) = (json!(model), json!(temperature), json!(TOKENS));
    body["logit_bias"] = json!({server.end_token(): -100});
    server.chat(&body).await.choice()["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_adapter_is_loaded_listed_used_and_unloaded() {
    let server = server();
    random_adapter(&server.path("one"), 1);
    let reply = load(&server, "one", "one").await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, "Success: LoRA adapter 'one' added successfully."));
    let models = server.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "base");
    let adapter = &models["data"][1];
    assert_eq!((&adapter["id"], &adapter["parent"]), (&json!("one"), &json!("base")));
    assert!(adapter["root"].as_str().unwrap().ends_with("one") && adapter["generation"].is_string());
    assert_eq!(server.get("/v1/models/one").await.json(), *adapter);
    assert_ne!(say(&server, "one").await, say(&server, "base").await);
    let reply = server.post("/v1/unload_lora_adapter", &json!({"lora_name": "one"})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text.as_str()),
        (200, "Success: LoRA adapter 'one' removed successfully.")
    );
    let mut body = text_request();
    body["model"] = json!("one");
    assert_eq!(server.chat(&body).await.refusal(), (404, "model".to_owned(), "model_not_found".to_owned()));
}

#[tokio::test]
async fn a_batch_of_base_and_adapters_gives_each_its_solo_answer() {
    let server = server();
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        random_adapter(&server.path(name), seed);
        assert_eq!(load(&server, name, name).await.status, 200);
    }
    for temperature in [0.0, 1.0] {
        let names = ["base", "a", "b", "c"];
        let mut solo = Vec::new();
        for name in names {
            solo.push(say_with(&server, name, temperature).await);
        }
        let alone = server.state.engine.stats().steps;
        let together = futures::future::join_all(names.map(|name| say_with(&server, name, temperature))).await;
        let shared = server.state.engine.stats().steps - alone;
        assert!(shared < 3 * TOKENS, "{shared} steps for four times {TOKENS} tokens: the requests were not batched");
        assert_eq!(together, solo);
        assert!((0..4).all(|i| (0..i).all(|j| solo[i] != solo[j])), "adapters do not differ: {solo:?}");
    }
}

#[tokio::test]
async fn a_running_stream_keeps_its_generation_while_the_name_is_replaced_and_unloaded() {
    let server = server();
    random_adapter(&server.path("old"), 1);
    random_adapter(&server.path("new"), 2);
    assert_eq!(load(&server, "x", "old").await.status, 200);
    let mut body = text_request();
    (body["model"], body["stream"], body["temperature"], body["max_tokens"]) =
        (json!("x"), json!(true), json!(0), json!(3000));
    body["logit_bias"] = json!({server.end_token(): -100});
    let undisturbed = server.chat(&body).await.text;
    let response = server.send(post("/v1/chat/completions", body.to_string().into_bytes())).await;
    let mut stream = response.into_body().into_data_stream();
    let mut text = stream.next().await.unwrap().unwrap().to_vec();
    let replace = json!({"lora_name": "x", "lora_path": "new", "load_inplace": true});
    assert_eq!(server.post("/v1/load_lora_adapter", &replace).await.status, 200);
    let replaced = say(&server, "x").await;
    assert_eq!(server.post("/v1/unload_lora_adapter", &json!({"lora_name": "x"})).await.status, 200);
    assert!(server.state.engine.stats().running >= 1, "the stream ended too early to show anything");
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let content = |text: &str| crate::support::Transcript::read(text).message(0)["content"].clone();
    let finished = content(&String::from_utf8(text).unwrap());
    assert_eq!(finished, content(&undisturbed));
    assert!(
        !finished.as_str().unwrap().starts_with(&replaced),
        "the replacement says the same: the test shows nothing"
    );
}

#[tokio::test]
async fn refusals_follow_the_table() {
    let server = server();
    random_adapter(&server.path("good"), 1);
    assert_eq!(load(&server, "good", "good").await.status, 200);
    let good = say(&server, "good").await;
    let whole = std::fs::read(server.path("good/adapter_model.safetensors")).unwrap();
    let config = std::fs::read(server.path("good/adapter_config.json")).unwrap();
    write(&server.path("cut/adapter_config.json"), &config);
    write(&server.path("cut/adapter_model.safetensors"), &whole[..whole.len() / 2]);
    let outside = tempfile::tempdir().unwrap();
    random_adapter(&outside.path().join("a"), 1);
    let outside = outside.path().join("a").display().to_string();
    for (name, path, status, code) in [
        ("good", "good", 409, "lora_adapter_already_loaded"),
        ("base", "good", 400, "invalid_lora_name"),
        ("", "good", 400, "invalid_lora_name"),
        ("a/b", "good", 400, "invalid_lora_name"),
        ("new", "nowhere", 404, "adapter_file_not_found"),
        ("new", "../../../etc", 403, "adapter_file_forbidden"),
        ("new", outside.as_str(), 403, "adapter_file_forbidden"),
        ("new", "cut", 422, "invalid_lora_adapter"),
    ] {
        let reply = load(&server, name, path).await;
        let (found, _, found_code) = reply.refusal();
        assert_eq!((found, found_code.as_str()), (status, code), "{name} {path}: {}", reply.text);
        assert_eq!(reply.headers.contains_key("x-should-retry"), status == 409);
    }
    let failed = json!({"lora_name": "good", "lora_path": "cut", "load_inplace": true});
    assert_eq!(server.post("/v1/load_lora_adapter", &failed).await.status, 422);
    assert_eq!(say(&server, "good").await, good, "a failed replacement disturbed the old generation");
    let unknown = server.post("/v1/unload_lora_adapter", &json!({"lora_name": "new"})).await;
    assert_eq!(unknown.refusal(), (404, "lora_name".to_owned(), "lora_adapter_not_found".to_owned()));
}

#[tokio::test]
async fn wrong_fields_are_refused_by_name() {
    let server = server();
    for (body, param, code) in [
        (json!({}), "lora_name", "missing_required_parameter"),
        (json!({"lora_name": "a"}), "lora_path", "missing_required_parameter"),
        (json!({"lora_name": 1, "lora_path": "a"}), "lora_name", "invalid_type"),
        (json!({"lora_name": "a", "lora_path": "a", "load_inplace": "yes"}), "load_inplace", "invalid_type"),
    ] {
        let reply = server.post("/v1/load_lora_adapter", &body).await;
        assert_eq!(reply.refusal(), (400, param.to_owned(), code.to_owned()));
    }
}

#[tokio::test]
async fn without_an_adapter_root_nothing_can_be_changed() {
    let server = TestServer::start();
    let load = load(&server, "a", "a").await;
    assert_eq!(load.refusal().0, 403);
    assert!(load.text.contains("--adapter-root"), "{}", load.text);
    assert_eq!(server.post("/v1/unload_lora_adapter", &json!({"lora_name": "a"})).await.refusal().0, 403);
}

#[tokio::test]
async fn the_metrics_show_what_is_resident() {
    let server = server();
    random_adapter(&server.path("m"), 1);
    assert_eq!(load(&server, "m", "m").await.status, 200);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("callsmith_adapters_resident 1"), "{metrics}");
    assert!(metrics.contains("vllm:lora_adapter_loaded{adapter_name=\"m\""), "{metrics}");
    let reply = server.post("/v1/unload_lora_adapter", &json!({"lora_name": "m"})).await;
    assert_eq!(reply.status, 200);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("callsmith_adapters_resident 0"), "{metrics}");
    assert_eq!(server.get("/v1/models").await.json()["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.get("/v1/models/m").await.json()["error"]["code"], Value::from("model_not_found"));
}

#[tokio::test]
async fn loads_are_bounded_apart_from_requests() {
    let server = server();
    random_adapter(&server.path("one"), 1);
    let mut places: Vec<_> = (0..MAX_LOADS).map(|_| server.state.gate.load().unwrap()).collect();
    let refused = load(&server, "one", "one").await;
    assert_eq!(refused.refusal(), (429, "-".to_owned(), "lora_load_busy".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(!say(&server, "base").await.is_empty());
    places.pop();
    assert_eq!(load(&server, "one", "one").await.status, 200);
    // The place is free again.
    assert_eq!(load(&server, "one", "one").await.status, 409);
}

#[tokio::test]
async fn an_adapter_of_the_root_is_loaded_when_it_is_first_named() {
    let server = server();
    random_adapter(&server.path("weather"), 1);
    let first = say(&server, "weather").await;
    let listed = server.get("/v1/lora_adapters").await.json();
    let entry = &listed["data"][0];
    assert_eq!((&entry["name"], &entry["pinned"], &entry["in_flight"]), (&json!("weather"), &json!(false), &json!(0)));
    assert_eq!(listed["used_bytes"], entry["bytes"]);
    assert_eq!(first, say(&server, "weather").await);
    assert_eq!(server.post("/v1/unload_lora_adapter", &json!({"lora_name": "weather"})).await.status, 200);
    let mut body = text_request();
    body["model"] = json!("weather");
    assert_eq!(server.chat(&body).await.refusal().2, "model_not_found", "unloaded on request, it stays away");
    write(&server.path("broken/adapter_config.json"), "{");
    body["model"] = json!("broken");
    let refusal = server.chat(&body).await;
    assert_eq!(refusal.refusal(), (422, "model".to_owned(), "invalid_lora_adapter".to_owned()));
}

/// Names of adapters in `GET /v1/models`.
async fn adapters_in_models(server: &TestServer) -> Vec<String> {
    let models = server.get("/v1/models").await.json();
    let names = models["data"].as_array().unwrap().iter().skip(1).map(|model| model["id"].as_str().unwrap().to_owned());
    names.collect()
}

#[tokio::test]
async fn an_adapter_that_made_room_is_still_a_model() {
    let one = server();
    random_adapter(&one.path("a"), 1);
    load(&one, "a", "a").await;
    let bytes = one.get("/v1/lora_adapters").await.json()["used_bytes"].as_u64().unwrap();
    // Room for as many as fit into the smallest budget that can be given.
    let fit = (1 << 20) / bytes;
    let server = TestServer::with_options(&["--adapter-root", "DIR", "--adapter-budget-mib", "1"]);
    let names: Vec<String> = (0..=fit).map(|index| format!("adapter-{index:03}")).collect();
    for (index, name) in names.iter().enumerate() {
        random_adapter(&server.path(name), index as u64);
        load(&server, name, name).await;
    }
    let resident = server.get("/v1/lora_adapters").await.json()["data"].as_array().unwrap().len() as u64;
    assert_eq!(resident, fit, "nothing had to make room");
    assert_eq!(adapters_in_models(&server).await, names);
    assert_eq!(server.get("/v1/models/adapter-000").await.json()["parent"], "base");
}

#[tokio::test]
async fn a_model_may_have_slashes_in_its_name() {
    let server = TestServer::with_options(&["--served-model-name", "org/base-1"]);
    assert_eq!(server.get("/v1/models/org/base-1").await.json()["id"], "org/base-1");
    assert_eq!(server.get("/v1/models/org%2Fbase-1").await.json()["id"], "org/base-1");
    assert_eq!(server.get("/v1/models/org/base-2").await.refusal().2, "model_not_found");
}

#[tokio::test]
async fn what_cannot_be_deleted_is_refused_as_a_model() {
    let server = server();
    let delete = async |name: &str| {
        let request = axum::http::Request::delete(format!("/v1/models/{name}")).body(axum::body::Body::empty());
        server.reply(request.unwrap()).await.refusal()
    };
    assert_eq!(delete("none").await, (404, "model".to_owned(), "model_not_found".to_owned()));
    assert_eq!(delete("base").await, (400, "model".to_owned(), "invalid_value".to_owned()));
}

#[tokio::test]
async fn pins_and_expected_generations_are_honoured() {
    let server = server();
    random_adapter(&server.path("a"), 1);
    random_adapter(&server.path("b"), 2);
    let load = |body: serde_json::Value| async { server.post("/v1/load_lora_adapter", &{ body }).await };
    assert_eq!(load(json!({"lora_name": "x", "lora_path": "a", "pinned": true})).await.status, 200);
    let listed = || async { server.get("/v1/lora_adapters").await.json()["data"][0].clone() };
    let generation = listed().await["generation"].clone();
    assert_eq!(listed().await["pinned"], true);
    assert_eq!(server.post("/v1/pin_lora_adapter", &json!({"lora_name": "x", "pinned": false})).await.status, 200);
    assert_eq!(listed().await["pinned"], false);
    let swap = |expected: &serde_json::Value| {
        load(json!({"lora_name": "x", "lora_path": "b", "load_inplace": true, "expected_generation": expected}))
    };
    assert_eq!(swap(&generation).await.status, 200);
    let late = swap(&generation).await;
    assert_eq!(late.refusal(), (409, "expected_generation".to_owned(), "lora_generation_mismatch".to_owned()));
    assert_eq!(late.headers["x-should-retry"], "false");
    let unload = json!({"lora_name": "x", "expected_generation": generation});
    assert_eq!(server.post("/v1/unload_lora_adapter", &unload).await.refusal().2, "lora_generation_mismatch");
    let unknown = server.post("/v1/pin_lora_adapter", &json!({"lora_name": "none"})).await;
    assert_eq!(unknown.refusal(), (404, "lora_name".to_owned(), "lora_adapter_not_found".to_owned()));
}

#[tokio::test]
async fn an_adapter_with_new_tokens_is_refused_with_what_to_do() {
    let server = server();
    let dir = server.path("new");
    random_adapter(&dir, 1);
    let model = load_config(&server.path("model")).unwrap();
    let plain = peft::load(&dir, &model, DType::F32, &Device::Cpu).unwrap();
    let embedding = Tensor::zeros((1, model.hidden_size), DType::F32, &Device::Cpu).unwrap();
    let rows = TokenRows { ids: vec![model.vocab_size as u32], embedding, head: None };
    peft::save_with_tokens(&dir, &plain.config.unwrap(), &plain.weights, (&rows, &server.path("model"))).unwrap();
    let reply = load(&server, "new", "new").await;
    assert_eq!(reply.status, 422);
    assert!(reply.text.contains("trainable_token_indices") && reply.text.contains("callsmith merge"), "{}", reply.text);
    assert_eq!(server.get("/v1/lora_adapters").await.json()["data"], json!([]));
}
