//! The promise: a model that knows nothing, at temperature 2, still never makes a malformed call.

use crate::support::{TestServer, Transcript, tool};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// Finished answers that the test must see.
const ENOUGH: usize = 2_000;
/// Calls among them.
const ENOUGH_CALLS: usize = 1_500;
/// Requests that run at once.
const TOGETHER: usize = 16;

const MODES: [Mode; 6] =
    [Mode::Auto, Mode::Required, Mode::Named, Mode::Parallel, Mode::StreamedAuto, Mode::StreamedRequired];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Auto,
    Required,
    Named,
    Parallel,
    StreamedAuto,
    StreamedRequired,
}

/// What came of the finished answers.
#[derive(Debug, Default)]
struct Tally {
    finished: usize,
    cut: usize,
    calls: usize,
    several: usize,
    /// Schemas whose tool was called.
    schemas: HashSet<usize>,
}

/// Forty schemas: every keyword that tools commonly use, alone and together.
fn schemas() -> Vec<Value> {
    let word = json!({"type": "string", "maxLength": 6});
    let one = |schema: Value| json!({"type": "object", "properties": {"x": schema}, "required": ["x"]});
    let mut all: Vec<Value> = [
        json!({"type": "string"}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "time"}),
        json!({"type": "string", "enum": ["a", "b\"c", "日本", ""]}),
        json!({"const": {"fixed": [1, null]}}),
        json!({"enum": [1, 2.5, -3, null, true, "mixed"]}),
        json!({"type": "integer"}),
        json!({"type": "integer", "minimum": -17, "maximum": 230}),
        json!({"type": "integer", "exclusiveMinimum": 0}),
        json!({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}),
        json!({"type": "number"}),
        json!({"type": "number", "minimum": 0.25, "maximum": 7.75}),
        json!({"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 1}),
        json!({"type": "boolean"}),
        json!({"type": "null"}),
        json!({"type": ["string", "null"], "maxLength": 4}),
        json!({"type": ["integer", "boolean"]}),
        json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 4}),
        json!({"type": "array", "items": word, "minItems": 1, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "integer"}], "items": false, "minItems": 2}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 2}),
        json!({"type": "array", "items": {"type": "object", "properties": {"k": word}, "required": ["k"]}, "maxItems": 2}),
        json!({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"v": {"type": "boolean"}}, "required": ["v"]}]}),
        json!({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}),
        json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "object", "properties": {"c": word}}}}}}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2}),
    ]
    .into_iter()
    .map(one)
    .collect();
    let shared = json!({"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x", "y"]}});
    all.extend([
        json!({"type": "object", "properties": {}}),
        json!({"type": "object", "properties": {"a": word, "b": word, "c": word}}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["b"]}),
        json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": false}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "title": "T", "type": "object", "properties": {"n": {"type": "integer", "title": "N", "default": 3}}, "required": ["n"]}),
        json!({"type": "object", "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}, "required": ["from"], "$defs": shared}),
        json!({"type": "object", "properties": {"p": {"allOf": [{"$ref": "#/definitions/point"}]}}, "required": ["p"], "definitions": shared}),
        json!({"type": "object", "properties": {"weird key \"é\"": {"type": "boolean"}, "": {"type": "null"}}, "required": [""]}),
        json!({"type": "object", "properties": {"city": word, "days": {"type": "integer", "minimum": 1, "maximum": 14}, "unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["city"]}),
        json!({"type": "object", "properties": {"tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3}, "exact": {"type": "boolean"}}, "required": ["tags"]}),
        json!({"type": "object", "properties": {"who": {"type": "object", "properties": {"name": word, "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"]}, "note": {"type": ["string", "null"], "maxLength": 5}}, "required": ["who", "note"]}),
        json!({"type": "object", "properties": {"when": {"type": "string", "format": "date-time"}, "every": {"type": "number", "minimum": 0.5, "maximum": 24}}, "required": ["when"]}),
    ]);
    assert_eq!(all.len(), 40);
    all
}

/// Which of the schemas the request with this number offers.
fn schema_of(index: usize) -> usize {
    (index / MODES.len()) % 40
}

/// A request at temperature 2 in one mode. A few tokens are favoured, so that answers end before they are cut.
fn request(server: &TestServer, schemas: &[Value], index: usize) -> (Mode, Value) {
    let mode = MODES[index % MODES.len()];
    let schema = &schemas[schema_of(index)];
    let other = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]});
    let choice = match mode {
        Mode::Auto | Mode::StreamedAuto => json!("auto"),
        Mode::Named => json!({"type": "function", "function": {"name": "main_tool"}}),
        Mode::Required | Mode::Parallel | Mode::StreamedRequired => json!("required"),
    };
    let ends = [("\"", 4.0), ("}", 4.0), ("]", 4.0), ("{", 5.0)];
    let bias: serde_json::Map<String, Value> =
        ends.iter().map(|&(text, value)| (server.token(text), json!(value))).collect();
    let mut body = json!({
        "model": "base",
        "messages": [{"role": "user", "content": format!("Do it {index}.")}],
        "tools": [tool("main_tool", schema), tool("other-tool_2", &other)],
        "tool_choice": choice,
        "parallel_tool_calls": mode == Mode::Parallel,
        "temperature": 2, "seed": index, "max_tokens": 200, "logit_bias": bias,
        "stream": matches!(mode, Mode::StreamedAuto | Mode::StreamedRequired),
    });
    body["logit_bias"][server.end_token()] = json!(6);
    (mode, body)
}

/// The message and the finish reason of one answer.
async fn answer(server: &TestServer, body: &Value) -> (Value, Value) {
    let reply = server.chat(body).await;
    assert_eq!(reply.status, 200, "{} for {body}", reply.text);
    if body["stream"] == json!(true) {
        let transcript = Transcript::read(&reply.text);
        assert!(transcript.done, "{}", reply.text);
        return (transcript.message(0), transcript.finish_reason(0));
    }
    let choice = reply.choice();
    (choice["message"].clone(), choice["finish_reason"].clone())
}

/// Checks a finished answer; says whether the main tool was called.
fn check(tally: &mut Tally, mode: Mode, body: &Value, message: &Value, finish: &Value) -> bool {
    if finish == "length" {
        tally.cut += 1;
        return false;
    }
    tally.finished += 1;
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    assert_eq!(finish, if calls.is_empty() { "stop" } else { "tool_calls" }, "{message}");
    assert!(!calls.is_empty() || matches!(mode, Mode::Auto | Mode::StreamedAuto), "no call in {mode:?}: {message}");
    assert!(calls.len() <= 1 || mode == Mode::Parallel, "{mode:?}: {message}");
    tally.several += usize::from(calls.len() > 1);
    for call in &calls {
        let name = &call["function"]["name"];
        assert!(mode != Mode::Named || name == "main_tool", "{message}");
        let tools = body["tools"].as_array().unwrap();
        let called = tools
            .iter()
            .find(|tool| tool["function"]["name"] == *name)
            .unwrap_or_else(|| panic!("unknown tool in {message}"));
        crate::support::assert_valid(
            &called["function"]["parameters"],
            call["function"]["arguments"].as_str().unwrap(),
        );
        tally.calls += 1;
    }
    calls.iter().any(|call| call["function"]["name"] == "main_tool")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_model_answers_always_validate() {
    let server = Arc::new(TestServer::start());
    let schemas = schemas();
    let mut tally = Tally::default();
    let mut answers = stream::iter(0..4 * ENOUGH)
        .map(|index| {
            let ((mode, body), server) = (request(&server, &schemas, index), Arc::clone(&server));
            async move {
                let (message, finish) = answer(&server, &body).await;
                (index, mode, body, message, finish)
            }
        })
        .buffer_unordered(TOGETHER);
    while let Some((index, mode, body, message, finish)) = answers.next().await {
        if check(&mut tally, mode, &body, &message, &finish) {
            tally.schemas.insert(schema_of(index));
        }
        if tally.finished >= ENOUGH && tally.calls >= ENOUGH_CALLS {
            break;
        }
    }
    drop(answers);
    assert!(tally.finished >= ENOUGH && tally.calls >= ENOUGH_CALLS, "{tally:?}");
    assert_eq!(tally.schemas.len(), 40, "some schema was never called: {tally:?}");
    assert!(tally.several > 0, "no answer with several calls: {tally:?}");
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("callsmith_constraint_violations_total 0"), "{metrics}");
}
