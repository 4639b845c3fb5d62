//! Every field of a chat request with wrong types and ranges, and what real clients send.

use super::*;
use crate::api::error::ApiError;
use crate::chat::{Role, ToolChoice};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(body: &Value) -> Result<ChatRequest, ApiError> {
    parse_chat(body.as_object().unwrap(), WireLimits { logits_width: 1000 })
}

/// A request that uses every field.
fn golden() -> Value {
    json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "!"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "strict": true,
             "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
            {"type": "function", "function": {"name": "g"}},
        ],
        "tool_choice": "auto", "parallel_tool_calls": false,
        "stream": true, "stream_options": {"include_usage": true, "include_obfuscation": false},
        "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1,
        "repetition_penalty": 1.1, "frequency_penalty": -1, "presence_penalty": 1, "n": 2,
        "stop": ["a", "b"], "seed": -3, "logit_bias": {"5": -100}, "logprobs": true, "top_logprobs": 4,
        "ignore_eos": false,
        "response_format": {"type": "text"}, "user": "u", "metadata": {"k": "v"}, "store": false,
        "service_tier": "auto", "modalities": ["text"], "some_new_field": {"x": 1},
    })
}

/// The golden request with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Value {
    let mut body = golden();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        _ => panic!("no parent at {pointer}"),
    }
    body
}

fn refusal(body: &Value) -> (String, String) {
    let error = parse(body).expect_err(&body.to_string());
    (error.param().unwrap_or("-").to_owned(), error.kind().code().unwrap_or("-").to_owned())
}

#[test]
fn a_request_with_every_field_becomes_domain_types() {
    let request = parse(&golden()).unwrap();
    let messages = &request.conversation.messages;
    assert_eq!(
        messages.iter().map(|m| m.role).collect::<Vec<_>>(),
        [Role::System, Role::User, Role::Assistant, Role::Tool]
    );
    assert_eq!(messages[1].content, "hi!");
    assert_eq!(messages[2].tool_calls[0].arguments, json!({"x": 1}));
    assert_eq!((messages[3].name.as_deref(), messages[3].tool_call_id.as_deref()), (Some("f"), Some("c1")));
    assert_eq!((request.max_tokens, request.n, request.include_usage), (Some(5), 2, true));
    assert_eq!((request.params.top_k, request.params.logprobs), (3, Some(4)));
    assert_eq!(request.params.logit_bias, [(5, -100.0)]);
    assert!(!request.conversation.parallel_tool_calls);
    assert_eq!(request.conversation.tools[1].parameters, None);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_wrong_value_is_named_with_path_and_code() {
    let long = "x".repeat(65);
    let table: Vec<(&str, Value, &str, &str)> = vec![
        ("/model", json!(3), "model", "invalid_type"),
        ("/model", json!(null), "model", "missing_required_parameter"),
        ("/messages", json!([]), "messages", "empty_array"),
        ("/messages", json!(null), "messages", "missing_required_parameter"),
        ("/messages", json!({}), "messages", "invalid_type"),
        ("/messages/0", json!("hi"), "messages[0]", "invalid_type"),
        ("/messages/0/role", json!("robot"), "messages[0].role", "invalid_value"),
        ("/messages/0/role", json!(null), "messages[0].role", "missing_required_parameter"),
        ("/messages/0/content", json!(null), "messages[0].content", "missing_required_parameter"),
        ("/messages/0/content", json!(7), "messages[0].content", "invalid_type"),
        ("/messages/1/content", json!([]), "messages[1].content", "empty_array"),
        ("/messages/1/content/0/type", json!("image_url"), "messages[1].content[0].type", "invalid_value"),
        ("/messages/1/content/1/text", json!(1.5), "messages[1].content[1].text", "invalid_type"),
        ("/messages/2/tool_calls", json!("f()"), "messages[2].tool_calls", "invalid_type"),
        ("/messages/2/tool_calls/0/id", json!(null), "messages[2].tool_calls[0].id", "missing_required_parameter"),
        (
            "/messages/2/tool_calls/0/function/arguments",
            json!({}),
            "messages[2].tool_calls[0].function.arguments",
            "invalid_type",
        ),
        (
            "/messages/2/tool_calls/0/function/arguments",
            json!("[1]"),
            "messages[2].tool_calls[0].function.arguments",
            "invalid_value",
        ),
        (
            "/messages/2/tool_calls/0/function/arguments",
            json!("{"),
            "messages[2].tool_calls[0].function.arguments",
            "invalid_value",
        ),
        ("/messages/2/function_call", json!({}), "messages[2].function_call", "unsupported_parameter"),
        ("/messages/3/tool_call_id", json!("c9"), "messages[3].tool_call_id", "invalid_value"),
        ("/messages/3/tool_call_id", json!(null), "messages[3].tool_call_id", "missing_required_parameter"),
        ("/tools", json!([]), "tools", "empty_array"),
        ("/tools", json!({}), "tools", "invalid_type"),
        ("/tools/1", json!("f"), "tools[1]", "invalid_type"),
        ("/tools/1/type", json!("web_search"), "tools[1].type", "invalid_value"),
        ("/tools/1/function", json!(null), "tools[1].function", "missing_required_parameter"),
        ("/tools/1/function/name", json!("f"), "tools[1].function.name", "invalid_value"),
        ("/tools/1/function/name", json!("a b"), "tools[1].function.name", "invalid_value"),
        ("/tools/1/function/name", json!(""), "tools[1].function.name", "empty_string"),
        ("/tools/1/function/name", json!(long), "tools[1].function.name", "string_above_max_length"),
        ("/tools/1/function/parameters", json!("{}"), "tools[1].function.parameters", "invalid_type"),
        ("/tools/0/function/strict", json!("yes"), "tools[0].function.strict", "invalid_type"),
        ("/tool_choice", json!("any"), "tool_choice", "invalid_value"),
        ("/tool_choice", json!(1), "tool_choice", "invalid_type"),
        ("/tool_choice", json!({"type": "function", "function": {"name": "h"}}), "tool_choice", "invalid_value"),
        (
            "/tool_choice",
            json!({"type": "function", "name": "f"}),
            "tool_choice.function",
            "missing_required_parameter",
        ),
        ("/tool_choice", json!({"type": "custom"}), "tool_choice.type", "invalid_value"),
        (
            "/tool_choice",
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}}),
            "tool_choice.allowed_tools.mode",
            "invalid_value",
        ),
        (
            "/tool_choice",
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}),
            "tool_choice.allowed_tools.tools",
            "empty_array",
        ),
        ("/parallel_tool_calls", json!("no"), "parallel_tool_calls", "invalid_type"),
        ("/stream", json!(1), "stream", "invalid_type"),
        ("/stream", json!(false), "stream_options", "invalid_value"),
        ("/stream_options/include_usage", json!("yes"), "stream_options.include_usage", "invalid_type"),
        ("/max_completion_tokens", json!(0), "max_completion_tokens", "integer_below_min_value"),
        (
            "/max_completion_tokens",
            json!(9_223_372_036_854_775_808_u64),
            "max_completion_tokens",
            "integer_above_max_value",
        ),
        ("/max_completion_tokens", json!(2.5), "max_completion_tokens", "invalid_type"),
        ("/max_tokens", json!(4), "max_tokens", "invalid_parameter_combination"),
        ("/temperature", json!(-0.1), "temperature", "decimal_below_min_value"),
        ("/temperature", json!(2.1), "temperature", "decimal_above_max_value"),
        ("/temperature", json!("hot"), "temperature", "invalid_type"),
        ("/top_p", json!(0), "top_p", "decimal_below_min_value"),
        ("/top_p", json!(1.1), "top_p", "decimal_above_max_value"),
        ("/top_k", json!(-2), "top_k", "integer_below_min_value"),
        ("/min_p", json!(1.5), "min_p", "decimal_above_max_value"),
        ("/repetition_penalty", json!(0), "repetition_penalty", "decimal_below_min_value"),
        ("/ignore_eos", json!(1), "ignore_eos", "invalid_type"),
        ("/frequency_penalty", json!(-2.1), "frequency_penalty", "decimal_below_min_value"),
        ("/presence_penalty", json!(2.1), "presence_penalty", "decimal_above_max_value"),
        ("/n", json!(0), "n", "integer_below_min_value"),
        ("/n", json!(129), "n", "integer_above_max_value"),
        ("/n", json!(-1), "n", "integer_below_min_value"),
        ("/stop", json!(["a", "b", "c", "d", "e"]), "stop", "array_above_max_length"),
        ("/stop", json!([""]), "stop[0]", "empty_string"),
        ("/stop", json!([1]), "stop[0]", "invalid_type"),
        ("/stop", json!({}), "stop", "invalid_type"),
        ("/seed", json!("s"), "seed", "invalid_type"),
        ("/logit_bias", json!([]), "logit_bias", "invalid_type"),
        ("/logit_bias", json!({"1000": 1}), "logit_bias", "invalid_value"),
        ("/logit_bias", json!({"-1": 1}), "logit_bias", "invalid_value"),
        ("/logit_bias", json!({"5": 1e9}), "logit_bias.5", "decimal_above_max_value"),
        ("/logit_bias", json!({"5": "a"}), "logit_bias.5", "invalid_type"),
        ("/logprobs", json!(false), "top_logprobs", "invalid_value"),
        ("/top_logprobs", json!(21), "top_logprobs", "integer_above_max_value"),
        ("/response_format", json!("json"), "response_format", "invalid_type"),
        ("/response_format", json!({"type": "xml"}), "response_format.type", "invalid_value"),
        (
            "/response_format",
            json!({"type": "json_schema", "json_schema": {"schema": {}}}),
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        ("/user", json!(1), "user", "invalid_type"),
        ("/metadata", json!({"k": 1}), "metadata.k", "invalid_type"),
        ("/store", json!(true), "store", "unsupported_value"),
        ("/service_tier", json!("gold"), "service_tier", "invalid_value"),
        ("/modalities", json!(["audio"]), "modalities[0]", "unsupported_value"),
        ("/functions", json!([{"name": "f"}]), "functions", "unsupported_parameter"),
        ("/function_call", json!("auto"), "function_call", "unsupported_parameter"),
        ("/chat_template", json!("x"), "chat_template", "unsupported_parameter"),
        ("/chat_template_kwargs", json!({"a": 1}), "chat_template_kwargs", "unsupported_parameter"),
        ("/prediction", json!({}), "prediction", "unsupported_parameter"),
        ("/audio", json!({}), "audio", "unsupported_parameter"),
    ];
    for (pointer, value, param, code) in table {
        let body = with(pointer, value.clone());
        assert_eq!(refusal(&body), (param.to_owned(), code.to_owned()), "{pointer} = {value}");
    }
}

#[test]
fn tool_choice_needs_tools_even_when_it_is_none() {
    for choice in [json!("none"), json!("auto"), json!({"type": "function", "function": {"name": "f"}})] {
        let mut body = with("/tool_choice", choice);
        body.as_object_mut().unwrap().remove("tools");
        assert_eq!(refusal(&body), ("tool_choice".to_owned(), "-".to_owned()));
    }
}

#[test]
fn null_means_absent_for_every_optional_field() {
    let keep = ["model", "messages"];
    let keys: Vec<String> = golden().as_object().unwrap().keys().cloned().collect();
    for key in keys.iter().filter(|key| !keep.contains(&key.as_str())) {
        let mut body = with(&format!("/{key}"), Value::Null);
        // These depend on the field that is missing now.
        let dependent = match key.as_str() {
            "tools" => "tool_choice",
            "stream" => "stream_options",
            "logprobs" => "top_logprobs",
            _ => "-",
        };
        body.as_object_mut().unwrap().remove(dependent);
        assert!(parse(&body).is_ok(), "{key}: {:?}", parse(&body));
    }
}

#[test]
fn allowed_tools_restricts_what_may_be_called() {
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}});
    let request = parse(&with("/tool_choice", allowed)).unwrap();
    assert_eq!((request.callable, request.conversation.tool_choice), (vec![1], ToolChoice::Required));
}

#[test]
fn json_answers_are_read_when_no_call_is_possible() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let mut body = with(
        "/response_format",
        json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}),
    );
    body["tool_choice"] = json!("none");
    assert_eq!(
        parse(&body).unwrap().format,
        ResponseFormat::JsonSchema { schema, strict: true, param: "response_format" }
    );
}

/// Values that no field should trust.
fn hostile() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(-1)),
        Just(json!(0)),
        Just(json!(129)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(1e308)),
        Just(json!(0.5)),
        Just(json!("")),
        Just(json!("\u{0}\u{202e}../../etc/passwd")),
        Just(json!(true)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[[]]]]])),
        Just(json!({"type": "function"})),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_hostile_value_anywhere_is_accepted_or_refused_with_a_param(place in any::<prop::sample::Index>(), value in hostile()) {
        let mut all = Vec::new();
        pointers(&golden(), "", &mut all);
        let pointer = place.get(&all);
        if let Err(error) = parse(&with(pointer, value)) {
            prop_assert!(error.param().is_some(), "{pointer}: {error}");
            prop_assert!(error.body().to_string().len() <= 4096);
        }
    }
}
