//! What prompts have in common is computed once, and no answer shows it.

use crate::support::{Random, TestServer, cases, random_adapter, report};
use serde_json::{Value, json};

/// A prompt of a few hundred tokens whose beginning many share.
fn body(model: &str, number: usize) -> Value {
    let shared = "You answer briefly and say nothing that is not so. ".repeat(4 + number % 3);
    let question = format!("Question {number}: what is {} and {}?", number % 7, number / 7);
    json!({
        "model": model, "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "system", "content": shared}, {"role": "user", "content": question}],
    })
}

async fn load(server: &TestServer, name: &str, path: &str) {
    let body = json!({"lora_name": name, "lora_path": path, "load_inplace": true});
    assert_eq!(server.post("/v1/load_lora_adapter", &body).await.status, 200);
}

/// The answer's text, and how many tokens of its prompt were cached.
async fn ask(server: &TestServer, body: &Value) -> (Value, u64) {
    let reply = server.chat(body).await;
    let cached = &reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
    (reply.choice()["message"]["content"].clone(), cached.as_u64().unwrap())
}

/// A server with the adapters `a` and `b` in its root.
async fn server(options: &[&str]) -> TestServer {
    let server = TestServer::with_options(&[&["--adapter-root", "DIR"], options].concat());
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        random_adapter(&server.path(name), seed as u64 + 1);
    }
    server
}

/// The models of a server in which the name `x` stands for one adapter and then for another.
const MODELS: [&str; 5] = ["base", "a", "b", "x is a", "x is b"];

async fn answer(server: &TestServer, model: &str, number: usize) -> (Value, u64) {
    let Some(path) = model.strip_prefix("x is ") else { return ask(server, &body(model, number)).await };
    load(server, "x", path).await;
    ask(server, &body("x", number)).await
}

#[tokio::test]
async fn cached_prefixes_change_no_answer_whatever_was_asked_before() {
    let (cold, warm) = (server(&["--no-prefix-cache"]).await, server(&[]).await);
    let mut random = Random(5);
    let (prompts, orders) = (cases(8, 200), cases(3, 24));
    let (mut cached, mut asked) = (0, 0);
    for number in 0..prompts {
        let mut expected = Vec::new();
        for model in MODELS {
            let (text, cached) = answer(&cold, model, number).await;
            assert_eq!(cached, 0);
            expected.push(text);
        }
        assert_ne!(expected[0], expected[1], "the adapter changes nothing");
        for _ in 0..orders {
            let mut order = [0, 1, 2, 3, 4];
            (1..order.len()).for_each(|end| order.swap(end, random.below(end + 1)));
            for index in order {
                let (text, hits) = answer(&warm, MODELS[index], number).await;
                assert_eq!(text, expected[index], "{} of prompt {number} in the order {order:?}", MODELS[index]);
                (cached, asked) = (cached + hits, asked + 1);
            }
        }
    }
    report(format_args!("{asked} answers equal those without a cache; {} cached tokens for each", cached / asked));
    assert!(cached / asked > 50);
    let metrics = warm.get("/metrics").await.text;
    assert!(metrics.contains(&format!("callsmith_prefix_cache_hits_total {cached}\n")), "{cached} of {metrics}");
}

#[tokio::test]
async fn a_full_cache_forgets_and_goes_on() {
    let small = server(&["--kv-cache-mib", "1", "--max-batch", "2"]).await;
    let cold = server(&["--no-prefix-cache"]).await;
    for number in (0..cases(60, 600)).chain(0..20) {
        assert_eq!(ask(&small, &body("base", number)).await.0, ask(&cold, &body("base", number)).await.0);
    }
    small.until_idle().await;
    assert_eq!(small.state.engine.stats().blocks_used, 0, "what is kept is not in use");
}

#[tokio::test]
async fn what_one_key_has_asked_is_not_to_be_found_out_by_another() {
    let server = TestServer::with_options(&["--api-key", "alice", "--api-key", "bob"]);
    let ask = async |key: &str| {
        let request = axum::http::Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .body(axum::body::Body::from(body("base", 1).to_string()));
        let reply = server.reply(request.unwrap()).await.json();
        reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(ask("alice").await, 0);
    assert!(ask("alice").await > 50);
    assert_eq!(ask("bob").await, 0);
}

#[tokio::test]
async fn every_protocol_tells_how_much_was_cached() {
    let server = TestServer::start();
    let chat = body("base", 2);
    let cached = [ask(&server, &chat).await.1, ask(&server, &chat).await.1];
    assert!(cached[0] == 0 && cached[1] > 50, "{cached:?}");
    assert_eq!(server.stream(&chat).await.usage()["prompt_tokens_details"]["cached_tokens"], cached[1]);
    // One prompt counts once, however many answers it has.
    let mut several = chat.clone();
    several["n"] = json!(3);
    assert_eq!(ask(&server, &several).await.1, cached[1]);
    let input = json!({"model": "base", "input": chat["messages"], "max_output_tokens": 3, "temperature": 0});
    let response = server.post("/v1/responses", &input).await.json();
    assert_eq!(response["usage"]["input_tokens_details"]["cached_tokens"], cached[1]);
}
