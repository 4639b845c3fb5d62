//! Soft prompts over HTTP: loaded, listed and used like other adapters, in one batch with them.

use crate::support::{TestServer, random_adapter, random_prompt, text_request};
use serde_json::{Value, json};

async fn server() -> TestServer {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    random_adapter(&server.path("factors"), 1);
    random_prompt(&server.path("prompt"), 20, 2);
    random_prompt(&server.path("other"), 3, 3);
    for name in ["factors", "prompt", "other"] {
        let reply = server.post("/v1/load_lora_adapter", &json!({"lora_name": name, "lora_path": name})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    server
}

/// The answer's text and its usage.
async fn ask(server: &TestServer, model: &str) -> (String, Value) {
    let mut body = text_request();
    (body["model"], body["temperature"], body["max_tokens"]) = (json!(model), json!(0), json!(200));
    body["messages"][0]["content"] = json!("Tell me something of which nobody has ever heard. ".repeat(3));
    body["logit_bias"] = json!({server.end_token(): -100});
    (body["repetition_penalty"], body["frequency_penalty"]) = (json!(1.1), json!(0.1));
    let reply = server.chat(&body).await;
    (reply.choice()["message"]["content"].as_str().unwrap().to_owned(), reply.json()["usage"].clone())
}

#[tokio::test]
async fn a_batch_of_the_base_factors_and_soft_prompts_gives_each_its_solo_answer() {
    let server = server().await;
    let names = ["base", "factors", "prompt", "other"];
    let mut solo = Vec::new();
    for name in names {
        solo.push(ask(&server, name).await.0);
    }
    let alone = server.state.engine.stats().steps;
    let together = futures::future::join_all(names.map(|name| ask(&server, name))).await;
    assert!(server.state.engine.stats().steps - alone < 600, "the requests were not batched");
    assert_eq!(together.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), solo);
    assert!((0..4).all(|i| (0..i).all(|j| solo[i] != solo[j])), "adapters do not differ: {solo:?}");
}

#[tokio::test]
async fn virtual_tokens_are_in_no_count_and_what_was_cached_is_of_the_same_prompt() {
    let server = server().await;
    let usage = |usage: &Value| {
        (usage["prompt_tokens"].as_u64().unwrap(), usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap())
    };
    let (prompt, cached) = usage(&ask(&server, "base").await.1);
    assert_eq!(cached, 0);
    for name in ["prompt", "other"] {
        let (text, first) = ask(&server, name).await;
        assert_eq!(usage(&first), (prompt, 0), "{name}");
        let (again, second) = ask(&server, name).await;
        assert_eq!((again, usage(&second).0), (text, prompt));
        assert!((1..prompt).contains(&usage(&second).1), "{name}: {second}");
    }
}

#[tokio::test]
async fn the_list_says_what_kind_an_adapter_is() {
    let server = server().await;
    let listed = server.get("/v1/lora_adapters").await.json();
    let seen = |name: &str| {
        let adapters = listed["data"].as_array().unwrap();
        let adapter = adapters.iter().find(|adapter| adapter["name"] == name).unwrap();
        json!([adapter["kind"], adapter["rank"], adapter["virtual_tokens"]])
    };
    assert_eq!(seen("factors"), json!(["lora", 4, 0]));
    assert_eq!(seen("prompt"), json!(["soft prompt", 0, 20]));
    assert_eq!(server.get("/v1/models/prompt").await.json()["parent"], "base");
}

#[tokio::test]
async fn a_soft_prompt_of_another_model_is_refused() {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    random_prompt(&server.path("prompt"), 2, 1);
    let path = server.path("prompt/adapter_config.json");
    let settings = std::fs::read_to_string(&path).unwrap().replace("\"token_dim\"", "\"token_dim\": 7, \"was\"");
    std::fs::write(&path, settings).unwrap();
    let reply = server.post("/v1/load_lora_adapter", &json!({"lora_name": "prompt", "lora_path": "prompt"})).await;
    assert_eq!(reply.status, 422);
    assert!(reply.text.contains("token_dim"), "{}", reply.text);
}
