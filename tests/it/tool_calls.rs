//! A random model calls exactly as `tool_choice` says: the grammar decides, not luck.

use crate::support::{Reply, TestServer, assert_valid, tool, weather_request};
use serde_json::{Value, json};

fn calls(reply: &Reply) -> Vec<(String, String)> {
    let choice = reply.choice();
    let calls = choice["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    calls.iter().map(|call| (word(&call["function"]["name"]), word(&call["function"]["arguments"]))).collect()
}

/// Two tools whose calls are nearly forced, so that many answers finish.
fn two_tools() -> Value {
    let mut body = weather_request();
    let small = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]});
    body["tools"] = json!([tool("light", &small), tool("heat", &small)]);
    body
}

#[tokio::test]
async fn a_required_tool_is_always_called() {
    let server = TestServer::start();
    for seed in 0..20 {
        let mut body = weather_request();
        body["tool_choice"] = json!("required");
        body["parallel_tool_calls"] = json!(false);
        (body["seed"], body["temperature"]) = (json!(seed), json!(2));
        body["logit_bias"] = json!({server.token("\""): 4, server.token("}"): 4});
        let reply = server.chat(&body).await;
        let choice = reply.choice();
        assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
        assert_eq!(choice["message"]["content"], Value::Null);
        let calls = calls(&reply);
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].0, "get_weather");
        assert_valid(&body["tools"][0]["function"]["parameters"], &calls[0].1);
    }
}

#[tokio::test]
async fn a_named_tool_is_the_only_one_called() {
    let server = TestServer::start();
    for seed in 0..10 {
        let mut body = two_tools();
        body["tool_choice"] = json!({"type": "function", "function": {"name": "heat"}});
        (body["seed"], body["temperature"]) = (json!(seed), json!(2));
        let calls = calls(&server.chat(&body).await);
        assert!(!calls.is_empty() && calls.iter().all(|(name, _)| name == "heat"), "{calls:?}");
    }
}

#[tokio::test]
async fn no_tool_is_called_when_the_choice_is_none() {
    let server = TestServer::start();
    for seed in 0..10 {
        let mut body = two_tools();
        body["tool_choice"] = json!("none");
        (body["seed"], body["max_tokens"]) = (json!(seed), json!(20));
        let choice = server.chat(&body).await.choice();
        assert!(choice["message"].get("tool_calls").is_none(), "{choice}");
        assert!(choice["message"]["content"].is_string());
    }
}

#[tokio::test]
async fn without_parallel_calls_there_is_one_call_at_most() {
    let server = TestServer::start();
    let mut several = 0;
    for seed in 0..30 {
        let mut body = two_tools();
        body["tool_choice"] = json!("required");
        (body["seed"], body["temperature"]) = (json!(seed), json!(2));
        body["logit_bias"] = json!({server.token(","): 5});
        several += usize::from(calls(&server.chat(&body).await).len() > 1);
        body["parallel_tool_calls"] = json!(false);
        assert_eq!(calls(&server.chat(&body).await).len(), 1);
    }
    assert!(several > 0, "parallel calls never happen: the test shows nothing");
}

#[tokio::test]
async fn allowed_tools_restricts_the_calls() {
    let server = TestServer::start();
    for seed in 0..10 {
        let mut body = two_tools();
        let only = json!([{"type": "function", "function": {"name": "light"}}]);
        body["tool_choice"] = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": only}});
        body["seed"] = json!(seed);
        let calls = calls(&server.chat(&body).await);
        assert!(!calls.is_empty() && calls.iter().all(|(name, _)| name == "light"), "{calls:?}");
    }
}

#[tokio::test]
async fn a_function_without_arguments_gets_an_empty_object() {
    let server = TestServer::start();
    let mut body = weather_request();
    body["tools"] = json!([{"type": "function", "function": {"name": "ping"}}]);
    body["tool_choice"] = json!("required");
    body["parallel_tool_calls"] = json!(false);
    assert_eq!(calls(&server.chat(&body).await), [("ping".to_owned(), "{}".to_owned())]);
}

#[tokio::test]
async fn an_answer_cut_inside_a_call_is_marked_and_never_completed() {
    let server = TestServer::start();
    for max_tokens in 1..12 {
        let mut body = weather_request();
        body["tool_choice"] = json!("required");
        body["max_tokens"] = json!(max_tokens);
        body["logit_bias"] = json!({server.token("\""): -100});
        let reply = server.chat(&body).await;
        let choice = reply.choice();
        assert_eq!(choice["finish_reason"], "length", "{choice}");
        assert_eq!(reply.json()["usage"]["completion_tokens"], max_tokens);
    }
}

#[tokio::test]
async fn a_conversation_with_results_is_accepted() {
    let server = TestServer::start();
    let mut body = weather_request();
    body["messages"] = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How warm is it?"}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "{\"celsius\":21}"}]},
    ]);
    body["max_tokens"] = json!(5);
    assert!(server.chat(&body).await.choice()["finish_reason"].is_string());
}

#[tokio::test]
async fn a_function_of_a_catalogue_keeps_its_name_and_its_types_are_understood() {
    let server = TestServer::start();
    let mut body = weather_request();
    let schema = json!({"type": "dict", "properties": {"on": {"type": "bool"}}, "required": ["on"]});
    body["tools"] = json!([tool("home.light", &schema), tool("home_light", &schema)]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "home.light"}});
    body["messages"] = json!([
        {"role": "user", "content": "on"},
        {"role": "assistant", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "home.light", "arguments": "{\"on\":true}"}}
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "user", "content": "off"},
    ]);
    (body["temperature"], body["parallel_tool_calls"]) = (json!(0), json!(false));
    let named = body["tool_choice"].take();
    let allowed = json!({"mode": "required", "tools": [{"type": "function", "function": {"name": "home.light"}}]});
    body["tool_choice"] = json!({"type": "allowed_tools", "allowed_tools": allowed});
    let allowed = calls(&server.chat(&body).await);
    assert!(allowed.len() == 1 && allowed[0].0 == "home.light", "{allowed:?}");
    body["tool_choice"] = named;
    let calls = calls(&server.chat(&body).await);
    assert!(calls.len() == 1 && calls[0].0 == "home.light", "{calls:?}");
    assert_valid(
        &json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}),
        &calls[0].1,
    );
    body["stream"] = json!(true);
    let streamed = server.stream(&body).await.message(0);
    assert_eq!(streamed["tool_calls"][0]["function"]["name"], "home.light", "{streamed}");
    assert_eq!(streamed["tool_calls"][0]["function"]["arguments"], calls[0].1);
}
