//! What goes over the wire, byte for byte, in each kind of stream: answers that grammars force, so that every machine
//! says the same.

use crate::support::{TestServer, tool, weather_request};
use regex::Regex;
use serde_json::{Value, json};

/// Ids, times and versions replaced; everything else is what clients see.
fn settled(text: &str) -> String {
    let ids = Regex::new("(chatcmpl-|cmpl-|resp_|msg_|fc_|rs_|call_)[A-Za-z0-9]{24}").unwrap();
    let times = Regex::new(r#""(created|created_at|completed_at)":\d+"#).unwrap();
    let text = ids.replace_all(text, "${1}ID");
    let text = times.replace_all(&text, "\"$1\":0");
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

/// A call of which nothing is left to chance.
fn forced_call() -> Value {
    let parameters = json!({"type": "object", "properties": {"unit": {"const": "celsius"}}, "required": ["unit"]});
    let mut body = weather_request();
    body["tools"] = json!([tool("set_unit", &parameters)]);
    (body["tool_choice"], body["parallel_tool_calls"]) = (json!("required"), json!(false));
    body
}

/// The same as a request for a response.
fn forced_response() -> Value {
    let function = forced_call()["tools"][0]["function"].clone();
    json!({"model": "base", "input": "Set it.", "tool_choice": "required", "parallel_tool_calls": false,
        "tools": [{"type": "function", "name": "set_unit", "parameters": function["parameters"]}]})
}

/// Text of which nothing is left to chance.
fn forced_text() -> Value {
    json!({"model": "base", "messages": [{"role": "user", "content": "Say it."}], "structured_outputs": {"choice": ["It is warm."]}})
}

/// Each scenario: its name, route and body.
fn scenarios() -> Vec<(&'static str, &'static str, Value)> {
    let with = |mut body: Value, more: &Value| {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (chat, stream) = ("/v1/chat/completions", json!({"stream": true}));
    let usage = json!({"stream": true, "stream_options": {"include_usage": true}});
    let text_format = json!({"format": {"type": "json_schema", "name": "x", "schema": {"const": "warm"}}});
    vec![
        ("chat_call", chat, with(forced_call(), &usage)),
        ("chat_text", chat, with(forced_text(), &stream)),
        ("chat_two_choices", chat, with(forced_text(), &json!({"stream": true, "n": 2}))),
        ("chat_cut", chat, with(forced_text(), &json!({"stream": true, "max_tokens": 2}))),
        (
            "chat_tokens",
            chat,
            with(forced_call(), &json!({"stream": true, "return_tokens": true, "logprobs": true, "top_logprobs": 1})),
        ),
        (
            "completion",
            "/v1/completions",
            json!({"model": "base", "prompt": "It ", "echo": true, "stream": true,
            "structured_outputs": {"regex": "is warm"}, "stream_options": {"include_usage": true}}),
        ),
        ("response_call", "/v1/responses", with(forced_response(), &stream)),
        ("response_text", "/v1/responses", json!({"model": "base", "input": "?", "stream": true, "text": text_format})),
        ("response_cut", "/v1/responses", with(forced_response(), &json!({"stream": true, "max_output_tokens": 3}))),
        (
            "generate_call",
            "/v2/models/base/generate_stream",
            json!({"text_input": "Set it.", "tools": forced_call()["tools"],
            "tool_choice": "required", "parallel_tool_calls": false, "details": true}),
        ),
    ]
}

#[tokio::test]
async fn every_kind_of_stream_is_written_as_it_was() {
    let server = TestServer::start();
    for (name, path, body) in scenarios() {
        let reply = server.post(path, &body).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(name, settled(&reply.text));
        });
    }
}
