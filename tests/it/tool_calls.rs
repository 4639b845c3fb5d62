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

/// A form for the answers of turns that do not call.
fn with_form(mut body: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"], "additionalProperties": false});
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
    (body["temperature"], body["parallel_tool_calls"]) = (json!(2), json!(false));
    body
}

/// Beside tools, a turn is either calls or an answer of the demanded form, whichever the model begins; in every dialect.
#[tokio::test]
async fn a_turn_calls_or_answers_in_its_form() {
    let mut both = 0;
    for dialect in ["tool_uses", "hermes", "llama3", "mistral", "mistral_args", "llama_functions"] {
        let server = TestServer::with_options(&["--dialect", dialect]);
        let (mut called, mut answered) = (0, 0);
        for seed in 0..24 {
            let mut body = with_form(two_tools());
            body["seed"] = json!(seed);
            let reply = server.chat(&body).await;
            let choice = reply.choice();
            match (choice["finish_reason"].as_str().unwrap(), calls(&reply).as_slice()) {
                ("tool_calls", [(name, arguments)]) => {
                    assert!(
                        ["light", "heat"].contains(&name.as_str())
                            && ["{\"on\":true}", "{\"on\":false}"].contains(&arguments.replace(' ', "").as_str()),
                        "{arguments}"
                    );
                    called += 1;
                }
                ("stop", []) => {
                    let text = choice["message"]["content"].as_str().unwrap();
                    assert!(["{\"warm\":true}", "{\"warm\":false}"].contains(&text), "{dialect}: {text}");
                    answered += 1;
                }
                _ => panic!("{dialect}: {choice}"),
            }
            let streamed = server.stream(&body).await;
            assert_eq!(streamed.finish_reason(0), choice["finish_reason"]);
            assert_eq!(streamed.message(0)["content"], choice["message"]["content"], "{dialect}");
        }
        both += usize::from(called > 0 && answered > 0);
    }
    // Some dialect's opening may be what this random model always prefers.
    assert!(both >= 4, "{both} dialects were seen to do both");
}

#[tokio::test]
async fn a_demanded_call_is_made_whatever_the_form() {
    let server = TestServer::start();
    let mut body = with_form(two_tools());
    body["tool_choice"] = json!("required");
    assert_eq!(server.chat(&body).await.choice()["finish_reason"], "tool_calls");
    body["tool_choice"] = json!("none");
    assert_valid(
        &body["response_format"]["json_schema"]["schema"],
        server.chat(&body).await.choice()["message"]["content"].as_str().unwrap(),
    );
    body["tool_choice"] = json!("auto");
    body["response_format"] = json!({"type": "json_object"});
    assert_eq!(server.chat(&body).await.refusal().1, "response_format", "a call could not be told from any object");
}

#[tokio::test]
async fn tokens_are_shown_when_asked_for_and_forced_ones_are_marked() {
    let server = TestServer::start();
    let mut body = two_tools();
    (body["tool_choice"], body["parallel_tool_calls"], body["return_tokens"]) =
        (json!("required"), json!(false), json!(true));
    let reply = server.chat(&body).await;
    let tokens = reply.choice()["tokens"].as_array().unwrap().clone();
    assert_eq!(tokens.len() as u64, reply.json()["usage"]["completion_tokens"].as_u64().unwrap());
    let text: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert!(text.starts_with("{\"tool_uses\":[{\"recipient_name\":\"functions."), "{text}");
    assert!(tokens.iter().any(|token| token["forced"] == true) && tokens.iter().any(|token| token["forced"] == false));
    let streamed = server.stream(&body).await;
    let shown: Vec<Value> =
        streamed.choice_chunks(0).iter().flat_map(|choice| choice["tokens"].as_array().unwrap().clone()).collect();
    assert_eq!(shown, tokens);
    body["return_tokens"] = json!(false);
    assert!(server.chat(&body).await.choice().get("tokens").is_none());
}
