//! Wrong fields, bad schemas, broken bodies: refused at once, in OpenAI's shape, and nothing else is disturbed.

use crate::support::{TestServer, post, text_request, tool, weather_request};
use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

fn refusal(param: &str, code: &str) -> (u16, String, String) {
    (400, param.to_owned(), code.to_owned())
}

#[tokio::test]
async fn wrong_fields_are_refused_with_param_and_code() {
    let server = TestServer::start();
    let table = [
        ("model", json!(1), "model", "invalid_type"),
        ("messages", json!([]), "messages", "empty_array"),
        ("messages", json!([{"role": "user"}]), "messages[0].content", "missing_required_parameter"),
        ("tools", json!([]), "tools", "empty_array"),
        ("tool_choice", json!("sometimes"), "tool_choice", "invalid_value"),
        ("temperature", json!(3), "temperature", "decimal_above_max_value"),
        ("top_p", json!(0), "top_p", "decimal_below_min_value"),
        ("n", json!(129), "n", "integer_above_max_value"),
        ("n", json!(-1), "n", "integer_below_min_value"),
        ("max_tokens", json!(0), "max_tokens", "integer_below_min_value"),
        ("max_tokens", json!("9"), "max_tokens", "invalid_type"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "stop", "array_above_max_length"),
        ("logprobs", json!(1), "logprobs", "invalid_type"),
        ("top_logprobs", json!(21), "top_logprobs", "integer_above_max_value"),
        ("logit_bias", json!({"100000": 1}), "logit_bias", "invalid_value"),
        ("logit_bias", json!({"1": 1e9}), "logit_bias.1", "decimal_above_max_value"),
        ("stream_options", json!({"include_usage": true}), "stream_options", "invalid_value"),
        ("functions", json!([{"name": "f"}]), "functions", "unsupported_parameter"),
        ("chat_template_kwargs", json!({"a": 1}), "chat_template_kwargs", "unsupported_parameter"),
    ];
    for (field, value, param, code) in table {
        let mut body = weather_request();
        body[field] = value.clone();
        assert_eq!(server.chat(&body).await.refusal(), refusal(param, code), "{field} = {value}");
    }
    assert_eq!(server.state.engine.stats().steps, 0, "a refused request reached the engine");
}

#[tokio::test]
async fn an_unknown_model_is_a_404_that_repeats_little_of_it() {
    let server = TestServer::start();
    for name in ["nobody", "../../etc/passwd", "base\u{0}", "bаse", &"x".repeat(10_000)] {
        let mut body = text_request();
        body["model"] = json!(name);
        let reply = server.chat(&body).await;
        assert_eq!(reply.refusal(), (404, "model".to_owned(), "model_not_found".to_owned()));
    }
    let metrics = server.get("/metrics").await.text;
    assert!(!metrics.contains("nobody") && !metrics.contains("passwd"), "{metrics}");
}

/// A schema nested `depth` deep.
fn nested(depth: usize) -> Value {
    let leaf = json!({"type": "string"});
    (0..depth).fold(leaf, |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}))
}

#[tokio::test]
async fn a_bad_schema_is_refused_by_the_name_of_its_tool_within_a_second() {
    let server = TestServer::start();
    let chain: serde_json::Map<String, Value> =
        (0..2000).map(|i| (format!("d{i}"), json!({"type": "object", "properties": {"n": {"$ref": format!("#/$defs/d{}", i + 1)}}, "required": ["n"]}))).collect();
    let enumeration: Vec<String> = (0..20_000).map(|i| format!("value number {i}")).collect();
    let properties: serde_json::Map<String, Value> =
        (0..5_000).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
    let endless = json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]});
    for (what, schema) in [
        ("unknown type", json!({"type": "object", "properties": {"x": {"type": "text"}}})),
        ("endless recursion", endless),
        ("dangling reference", json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}})),
        ("remote reference", json!({"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:1/x.json"}}})),
        ("deep nesting", nested(50)),
        ("reference chain", json!({"type": "object", "properties": {"n": {"$ref": "#/$defs/d0"}}, "$defs": chain})),
        ("huge enum", json!({"type": "object", "properties": {"x": {"enum": enumeration}}})),
        ("huge object", json!({"type": "object", "properties": properties})),
        (
            "contradiction",
            json!({"type": "object", "properties": {"x": {"type": "integer", "minimum": 5, "maximum": 4}}, "required": ["x"]}),
        ),
        ("compiler options", json!({"type": "object", "x-guidance": {"lenient": true}})),
        ("not an object", json!({"type": "array", "items": {"type": "string"}})),
    ] {
        let mut body = weather_request();
        body["tools"].as_array_mut().unwrap().push(tool("all.bad", &schema));
        let started = Instant::now();
        let reply = server.chat(&body).await;
        assert_eq!(reply.status, 400, "{what}");
        assert_eq!(reply.refusal(), refusal("tools[1].function.parameters", "invalid_function_parameters"), "{what}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("'all.bad'"), "{what}: {}", reply.text);
        assert!(started.elapsed() < Duration::from_secs(1), "{what} took {:?}", started.elapsed());
    }
    assert!(server.chat(&weather_request()).await.choice()["finish_reason"].is_string());
}

#[tokio::test]
async fn a_bad_answer_schema_is_refused() {
    let server = TestServer::start();
    let mut body = text_request();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}});
    assert_eq!(server.chat(&body).await.refusal(), refusal("response_format", "invalid_json_schema"));
}

#[tokio::test]
async fn a_prompt_over_the_context_is_refused_whatever_it_is_made_of() {
    let server = TestServer::start();
    for unit in ["a", "a  ", "\u{1F600}", "e\u{301}"] {
        let mut body = text_request();
        body["messages"][0]["content"] = json!(unit.repeat(1_000_000 / unit.len()));
        let started = Instant::now();
        assert_eq!(server.chat(&body).await.refusal(), refusal("messages", "context_length_exceeded"), "{unit:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{unit:?} took {:?}", started.elapsed());
    }
    // Short enough in bytes to be tokenised, too long in tokens.
    let mut body = text_request();
    body["messages"][0]["content"] = json!("xq".repeat(2_100));
    let reply = server.chat(&body).await;
    assert_eq!(reply.refusal(), refusal("messages", "context_length_exceeded"));
    assert!(reply.text.contains("4096"), "{}", reply.text);
}

#[tokio::test]
async fn bodies_that_are_not_json_objects_are_refused() {
    let server = TestServer::start();
    for (body, code) in [
        (&b""[..], "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"{\"model\": 1e999}", "invalid_json"),
        (b"{\"model\": \"\\ud800\"}", "invalid_json"),
        (b"[]", "invalid_type"),
        (b"\"text\"", "invalid_type"),
    ] {
        assert_eq!(server.reply(post(CHAT, body.to_vec())).await.refusal(), refusal("-", code), "{body:?}");
    }
    let deep = ["[".repeat(100_000), "{\"a\":".repeat(100_000)];
    for body in deep {
        assert_eq!(server.reply(post(CHAT, body.into_bytes())).await.refusal(), refusal("-", "invalid_json"));
    }
    let plain = Request::post(CHAT).body(Body::from("{}")).unwrap();
    assert_eq!(server.reply(plain).await.refusal(), refusal("-", "invalid_content_type"));
    let huge = post(CHAT, vec![b' '; 3 * 1024 * 1024]);
    assert_eq!(server.reply(huge).await.refusal(), (413, "-".to_owned(), "request_too_large".to_owned()));
}

/// What a mutation does to the bytes of a good request.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let insertion = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..8),
        (1usize..2000).prop_map(|n| vec![b'['; n]),
        Just(b"\"model\":null,".to_vec()),
        Just(vec![0xef, 0xbb, 0xbf]),
        Just(b"\\u0000".to_vec()),
        Just(b"-1e308".to_vec()),
    ];
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        any::<prop::sample::Index>().prop_map(Mutation::Truncate),
        (any::<prop::sample::Index>(), insertion).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<prop::sample::Index>(), 1usize..50).prop_map(|(at, times)| Mutation::Repeat(at, times)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match mutation {
            Mutation::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Mutation::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Mutation::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Mutation::Repeat(at, times) => {
                let at = at.index(bytes.len());
                let piece: Vec<u8> = bytes[at..(at + 16).min(bytes.len())].repeat(*times);
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[test]
fn a_thousand_malformed_bodies_cause_no_server_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = TestServer::start();
    let mut golden = weather_request();
    golden["max_tokens"] = json!(1);
    golden["stop"] = json!(["a"]);
    golden["logit_bias"] = json!({"1": 1});
    let golden = golden.to_string().into_bytes();
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let case = std::cell::Cell::new(0);
    runner
        .run(&prop::collection::vec(mutation(), 1..4), |mutations| {
            let body = mutate(golden.clone(), &mutations);
            let reply = runtime.block_on(server.reply(post(CHAT, body.clone())));
            prop_assert!(reply.status.as_u16() < 500, "{} for {:?}", reply.text, String::from_utf8_lossy(&body));
            if reply.status != 200 {
                let (status, ..) = reply.refusal();
                prop_assert!((400..=413).contains(&status));
            }
            case.set(case.get() + 1);
            if case.get() % 50 == 0 {
                let good = runtime.block_on(server.reply(post(CHAT, golden.clone())));
                prop_assert_eq!(good.status.as_u16(), 200);
            }
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_refused_neighbour_does_not_change_an_answer() {
    let server = TestServer::start();
    let alone = server.chat(&text_request()).await.choice();
    let mut attack = text_request();
    attack["logit_bias"] = json!({"4294967295": 100});
    let (beside, refused) = tokio::join!(async { server.chat(&text_request()).await.choice() }, server.chat(&attack));
    assert_eq!(refused.status, 400);
    assert_eq!(beside, alone);
}
