//! Models that always want white space, or always open one more bracket: an answer ends or is cut, and stays well-formed.

use crate::support::{TestServer, Transcript, text_request, tool};
use callsmith::grammar::strict_json;
use serde_json::{Map, Value, json};

/// Every token that consists of these bytes, as strongly wanted as a request can want it.
fn wanting(server: &TestServer, wanted: &[u8]) -> Map<String, Value> {
    let made_of = |id: &u32| {
        let bytes = server.state.tokenizer.token_bytes(*id);
        !bytes.is_empty() && bytes.iter().all(|byte| wanted.contains(byte))
    };
    (0..server.state.model.logits_width as u32).filter(made_of).map(|id| (id.to_string(), json!(100))).collect()
}

/// Schemas whose answers could go on for ever.
fn endless() -> Vec<Value> {
    let object = |property: Value| json!({"type": "object", "properties": {"x": property}, "required": ["x"]});
    vec![
        object(json!({"type": "string"})),
        object(json!({"type": "number"})),
        object(json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}})),
        object(json!({"type": "object", "additionalProperties": {"type": "boolean"}})),
        object(json!({})),
        json!({"type": "object", "properties": {"next": {"$ref": "#"}, "more": {"type": "array", "items": {"$ref": "#"}}}}),
    ]
}

/// The requests of one model: calls in every mode, and both kinds of JSON answers.
fn requests(bias: &Map<String, Value>) -> Vec<Value> {
    let mut base = text_request();
    (base["max_tokens"], base["logit_bias"]) = (json!(600), json!(bias));
    let with = |fields: Value| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    let mut all = vec![with(json!({})), with(json!({"response_format": {"type": "json_object"}}))];
    for schema in endless() {
        let tools = json!([tool("endless", &schema)]);
        for choice in [json!("auto"), json!("required"), json!({"type": "function", "function": {"name": "endless"}})] {
            all.push(with(json!({"tools": tools, "tool_choice": choice})));
        }
        all.push(with(
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}),
        ));
    }
    all
}

/// The longest run of white space outside strings, and the deepest nesting.
fn shape(json: &str) -> (usize, usize) {
    let (mut run, mut longest, mut depth, mut deepest) = (0, 0, 0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        run = if !in_string && byte.is_ascii_whitespace() { run + 1 } else { 0 };
        longest = longest.max(run);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    (longest, deepest)
}

fn judge(body: &Value, message: &Value, finish: &Value) {
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let mut texts: Vec<&str> = calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
    if body.get("response_format").is_some() {
        texts.push(message["content"].as_str().unwrap_or_default());
    }
    assert!(["stop", "tool_calls", "length"].iter().any(|reason| finish == reason), "{finish}");
    for text in texts {
        let (whitespace, depth) = shape(text);
        assert!(whitespace <= 2, "{whitespace} in {text:?}");
        assert!(depth < 127, "{depth} deep: a plain parser cannot read {text:?}");
        assert!(finish == "length" || strict_json::parse(text).is_ok(), "{text:?}");
    }
}

async fn never_breaks(wanted: &[u8], refused: &[u8]) {
    let server = TestServer::start();
    let mut bias = wanting(&server, wanted);
    bias.extend(wanting(&server, refused).into_iter().map(|(id, _)| (id, json!(-100))));
    assert!(bias.len() > 1, "the tokenizer has no such tokens");
    for body in requests(&bias) {
        let whole = server.chat(&body).await.choice();
        judge(&body, &whole["message"], &whole["finish_reason"]);
        let streamed: Transcript = server.stream(&body).await;
        judge(&body, &streamed.message(0), &streamed.finish_reason(0));
    }
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("callsmith_constraint_violations_total 0"), "{metrics}");
}

#[tokio::test]
async fn a_model_that_wants_only_white_space_writes_none_between_values() {
    never_breaks(b" \n\t\r", b"").await;
}

#[tokio::test]
async fn a_model_that_always_opens_brackets_stays_readable() {
    never_breaks(b"[{", b"").await;
}

#[tokio::test]
async fn a_model_that_opens_brackets_and_never_closes_a_string_is_cut() {
    never_breaks(b"[{\"", b"]}").await;
}

#[tokio::test]
async fn a_model_that_never_wants_to_end_is_cut() {
    never_breaks(b"0123456789,", b"]}\"").await;
}
