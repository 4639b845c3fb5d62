//! Every field of every route that takes a body, with values that no field should trust; broken bytes; names without end.

use crate::support::{
    Reply, Server, TestServer, cases, filled, post, random_adapter, report, text_request, weather_request,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A good request for each route that takes a body, cheap to answer.
fn golden() -> Vec<(&'static str, Value)> {
    let mut chat = weather_request();
    let extra = json!({
        "max_tokens": 1, "n": 1, "stop": ["a"], "logit_bias": {"1": 1}, "temperature": 1, "top_p": 1, "top_k": 5, "min_p": 0,
        "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logprobs": true, "top_logprobs": 2,
        "stream": false, "tool_choice": "auto", "parallel_tool_calls": true, "user": "u", "metadata": {"k": "v"},
        "service_tier": "auto", "store": false, "return_tokens": true,
    });
    chat.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let function = chat["tools"][0]["function"].clone();
    let flat = json!([{"type": "function", "name": "f", "parameters": function["parameters"]}]);
    let input = json!([{"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"}]);
    let flat_text = chat["tools"].to_string();
    vec![
        ("/v1/chat/completions", chat),
        (
            "/v1/completions",
            json!({"model": "base", "prompt": "a", "max_tokens": 1, "echo": true, "n": 1, "best_of": 1, "seed": 1,
            "stop": "b", "stream": false, "structured_outputs": {"regex": "[ab]"}}),
        ),
        (
            "/v1/responses",
            json!({"model": "base", "input": input, "tools": flat, "tool_choice": "auto", "max_output_tokens": 1,
            "text": {"format": {"type": "text"}}, "include": [], "store": true, "truncation": "disabled", "instructions": "x"}),
        ),
        ("/tokenize", json!({"prompt": "a", "add_special_tokens": true, "return_token_strs": true})),
        ("/detokenize", json!({"tokens": [1, 2]})),
        ("/v1/load_lora_adapter", json!({"lora_name": "a", "lora_path": "a", "load_inplace": true, "pinned": false})),
        ("/v1/pin_lora_adapter", json!({"lora_name": "a", "pinned": false})),
        (
            "/v2/models/{id}/generate",
            json!({"text_input": "a", "id": "1", "parameters": {"max_tokens": 1, "temperature": 1, "tools": flat_text}}),
        ),
        (
            "/v2/models/{id}/infer",
            json!({"id": "1", "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
            "outputs": [{"name": "text_output", "parameters": {"binary_data": false}}], "parameters": {"max_tokens": 1}}),
        ),
        ("/v2/repository/index", json!({"ready": true})),
    ]
}

fn hostile() -> Vec<Value> {
    let nan_like = json!("NaN");
    vec![
        json!(null),
        json!(-1),
        json!(0),
        json!(129),
        json!(2_147_483_648_u64),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e9),
        json!(1e308),
        json!(0.5),
        json!(3),
        json!(21),
        nan_like,
        json!(""),
        json!("\u{0}\u{202e}../../etc/passwd\r\n"),
        json!("x".repeat(5000)),
        json!(true),
        json!([]),
        json!({}),
        json!([[[[[[]]]]]]),
        json!(["a", "b", "c", "d", "e"]),
        json!({"type": "function"}),
        json!([null]),
        json!({"": null}),
    ]
}

/// All pointers into a value.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, child)| (key.clone(), child)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let pointer = format!("{at}/{key}");
        all.push(pointer.clone());
        pointers(child, &pointer, all);
    }
}

/// An error has its protocol's shape, is small, and tells nothing about the inside.
fn check_error(path: &str, reply: &Reply) {
    assert!(reply.text.len() <= 4096, "{} bytes", reply.text.len());
    assert!(!reply.text.contains("/src/") && !reply.text.contains("panicked"), "{}", reply.text);
    if path.starts_with("/v2/") {
        assert!(reply.json()["error"].is_string(), "{}", reply.text);
    } else {
        reply.refusal();
    }
}

fn server() -> TestServer {
    // A context that is soon full, for what asks for as much as there is.
    let shorten = |dir: &std::path::Path| {
        let path = dir.join("config.json");
        let config = std::fs::read_to_string(&path)
            .unwrap()
            .replace("\"max_position_embeddings\":4096", "\"max_position_embeddings\":320");
        std::fs::write(path, config).unwrap();
    };
    let server = TestServer::with_model(&["--adapter-root", "DIR"], shorten);
    random_adapter(&server.path("a"), 1);
    server
}

#[tokio::test]
async fn no_value_of_any_field_causes_a_server_error() {
    let server = server();
    let (mut sent, mut refusals) = (0, Vec::new());
    for (path, body) in golden() {
        let path = filled(path, "base");
        let good = server.post(&path, &body).await;
        assert_eq!(good.status, 200, "{path}: {}", good.text);
        let mut all = Vec::new();
        pointers(&body, "", &mut all);
        for pointer in all {
            for value in hostile() {
                let mut body = body.clone();
                *body.pointer_mut(&pointer).unwrap() = value.clone();
                let asked = Instant::now();
                let reply = server.post(&path, &body).await;
                sent += 1;
                assert!(reply.status.as_u16() < 500, "{path} {pointer} = {value:.100}: {}", reply.text);
                if reply.status != 200 {
                    check_error(&path, &reply);
                    refusals.push(asked.elapsed());
                }
            }
        }
    }
    refusals.sort_unstable();
    let p99 = refusals[refusals.len() * 99 / 100];
    report(format_args!("hostile values: {sent} requests, {} refused, p99 of refusals {p99:?}", refusals.len()));
    assert!(sent >= 1500);
    assert!(p99 < Duration::from_millis(200), "{p99:?}");
}

/// One change to the bytes of a request.
fn mutate(mut bytes: Vec<u8>, at: prop::sample::Index, with: &[u8], keep: bool) -> Vec<u8> {
    let at = at.index(bytes.len() + 1);
    let end = if keep { at } else { (at + with.len()).min(bytes.len()) };
    bytes.splice(at..end, with.iter().copied());
    bytes
}

#[test]
fn broken_bytes_on_every_route_cause_no_server_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = server();
    let golden: Vec<(String, Vec<u8>)> =
        golden().into_iter().map(|(path, body)| (filled(path, "base"), body.to_string().into_bytes())).collect();
    let pieces = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..6),
        (1usize..3000).prop_map(|n| vec![b'['; n]),
        Just(b"\\u0000".to_vec()),
        Just(vec![0xef, 0xbb, 0xbf]),
        Just(b",\"model\":\"base\"".to_vec()),
        Just(b"1e999".to_vec()),
        Just(vec![0xc3]),
        Just(b"}".to_vec()),
    ];
    let change = (any::<prop::sample::Index>(), pieces, any::<bool>());
    let strategy =
        (any::<prop::sample::Index>(), prop::collection::vec(change, 1..4), any::<Option<prop::sample::Index>>());
    let config = Config { cases: cases(1500, 10_000) as u32, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&strategy, |(which, changes, cut)| {
            let (path, body) = which.get(&golden);
            let mut body = changes.iter().fold(body.clone(), |body, (at, with, keep)| mutate(body, *at, with, *keep));
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len() + 1));
            }
            let reply = runtime.block_on(server.reply(post(path, body.clone())));
            prop_assert!(reply.status.as_u16() < 500, "{path} {}: {}", reply.text, String::from_utf8_lossy(&body));
            if reply.status != 200 {
                check_error(path, &reply);
            }
            Ok(())
        })
        .unwrap();
    let (path, body) = &golden[0];
    assert_eq!(runtime.block_on(server.reply(post(path, body.clone()))).status, 200);
}

#[tokio::test]
async fn hostile_biases_change_no_neighbours_answer() {
    let server = TestServer::start();
    let seeded = |seed: u64| {
        let mut body = text_request();
        (body["seed"], body["max_tokens"]) = (json!(seed), json!(60));
        body
    };
    let bodies: Vec<Value> = (0..8).map(seeded).collect();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(server.chat(body).await.choice()["message"]["content"].clone());
    }
    let width = server.state.model.logits_width;
    let many: serde_json::Map<String, Value> = (0..301).map(|id| (id.to_string(), json!(1))).collect();
    let attacks = [
        json!({width.to_string(): 1}),
        json!({"4294967295": 100}),
        json!({"-1": 1}),
        json!({"0": 1e9}),
        json!({"0": -1e9}),
        json!({"0": "NaN"}),
        Value::Object(many),
        json!({"1e3": 1}),
        json!({"": 1}),
    ];
    let attack = async {
        for bias in attacks.iter().cycle().take(60) {
            let mut body = text_request();
            body["logit_bias"] = bias.clone();
            let reply = server.chat(&body).await;
            assert_eq!(reply.status, 400, "{bias}");
            reply.refusal();
        }
    };
    let beside = async {
        let answers =
            bodies.iter().map(|body| async { server.chat(body).await.choice()["message"]["content"].clone() });
        futures::future::join_all(answers).await
    };
    let ((), beside) = tokio::join!(attack, beside);
    assert_eq!(beside, alone);
}

#[test]
fn unknown_names_take_no_memory_and_no_series() {
    let server = Server::start(&["--adapter-root", "DIR"]);
    let mut client = server.client();
    let mut ask = |name: &str| {
        let body = json!({"model": name, "messages": [{"role": "user", "content": "a"}]}).to_string();
        let (status, text) = client.post("/v1/chat/completions", &body).unwrap();
        assert_eq!(status, 404, "{text}");
        assert!(text.contains("model_not_found") && text.len() < 1000);
    };
    for name in ["../../etc/passwd", "a\u{0}b", &"x".repeat(10_000), "bаse", "..", "", "/", "base ", "home"] {
        ask(name);
    }
    (0..500).for_each(|index| ask(&format!("warm-{index}")));
    let series = || server.client().ask("GET /metrics", "").unwrap().1.lines().count();
    let (memory, before) = (server.memory("VmRSS"), series());
    let count = cases(5_000, 100_000);
    (0..count).for_each(|index| ask(&format!("name-{index}")));
    let growth = server.memory("VmRSS").saturating_sub(memory);
    report(format_args!("{count} unknown names: {} KiB more", growth / 1024));
    assert!(growth < 8 << 20, "{growth} bytes");
    assert_eq!(series(), before);
}

/// Says that it is over, whatever happens.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// While prompts of a mebibyte are refused, the probes answer at once.
#[test]
fn long_prompts_are_refused_within_a_second_beside_quick_probes() {
    let server = Server::start(&[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probes = scope.spawn(|| {
            let mut client = server.client();
            let mut times = Vec::new();
            while !done.load(Relaxed) {
                let asked = Instant::now();
                assert_eq!(client.ask("GET /livez", "").unwrap().0, 200);
                times.push(asked.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            times.sort_unstable();
            times[times.len() * 99 / 100]
        });
        // Also when an assertion fails: the probes must end.
        let stop = Stop(&done);
        for unit in ["a", "a ", "\u{1F600}", "e\u{301}"] {
            let body = json!({"model": "base", "messages": [{"role": "user", "content": unit.repeat((1 << 20) / unit.len())}]});
            let asked = Instant::now();
            let (status, text) = server.chat(&body.to_string());
            assert!(status == 400 && text.contains("context_length_exceeded"), "{text:.200}");
            assert!(asked.elapsed() < Duration::from_secs(1), "{unit:?} took {:?}", asked.elapsed());
        }
        drop(stop);
        let p99 = probes.join().unwrap();
        report(format_args!("probes beside long prompts: p99 {p99:?}"));
        assert!(p99 < Duration::from_millis(50));
    });
}
