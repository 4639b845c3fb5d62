//! The Responses API: items, the order of events, conversations that go on, and what is kept.

use crate::support::{Reply, TestServer, assert_valid, weather_request};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

/// A request with one flat tool.
fn request() -> Value {
    let function = weather_request()["tools"][0]["function"].clone();
    let tool =
        json!({"type": "function", "name": function["name"], "parameters": function["parameters"], "strict": false});
    json!({"model": "base", "input": "How warm is it in Paris?", "tools": [tool], "tool_choice": "required",
        "parallel_tool_calls": false, "seed": 1, "max_output_tokens": 300})
}

async fn create(server: &TestServer, body: &Value) -> Value {
    let reply = server.post("/v1/responses", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

/// The events of a stream; checks what holds for all of them.
async fn stream(server: &TestServer, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let reply = server.post("/v1/responses", &body).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let frames = reply.text.trim_end().split("\n\n").map(|frame| {
        let (name, data) = frame.split_once('\n').unwrap();
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", event["type"].as_str().unwrap()));
        event
    });
    let events: Vec<Value> = frames.collect();
    assert!(events.iter().enumerate().all(|(index, event)| event["sequence_number"] == index));
    events
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    kinds
}

/// Without what differs from one response to the next.
fn settled(response: &Value) -> Value {
    let mut response = response.clone();
    for key in ["id", "created_at", "completed_at"] {
        response[key] = Value::Null;
    }
    for item in response["output"].as_array_mut().unwrap() {
        (item["id"], item["call_id"]) = (Value::Null, Value::Null);
    }
    response
}

#[tokio::test]
async fn a_call_is_an_item_and_its_stream_has_openais_order() {
    let server = TestServer::with_options(&["--no-prefix-cache"]);
    let whole = create(&server, &request()).await;
    let item = &whole["output"][0];
    assert_eq!(
        (&whole["status"], &item["type"], &item["name"]),
        (&json!("completed"), &json!("function_call"), &json!("get_weather"))
    );
    assert_valid(&request()["tools"][0]["parameters"], item["arguments"].as_str().unwrap());
    let usage = &whole["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap())
    );
    let events = stream(&server, &request()).await;
    assert_eq!(
        kinds(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, item["arguments"].as_str().unwrap());
    assert_eq!(settled(&events.last().unwrap()["response"]), settled(&whole));
}

#[tokio::test]
async fn text_is_a_message_item_and_a_cut_one_is_incomplete() {
    let server = TestServer::start();
    let body = json!({"model": "base", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Talk."}]}],
        "instructions": "Be brief.", "seed": 1, "max_output_tokens": 6, "include": ["message.output_text.logprobs"],
        "top_logprobs": 2, "logit_bias": {server.end_token(): -100}, "metadata": {"a": "b"}});
    let events = stream(&server, &body).await;
    assert_eq!(
        kinds(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete",
        ]
    );
    let response = &events.last().unwrap()["response"];
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!((&response["metadata"], &response["instructions"]), (&json!({"a": "b"}), &json!("Be brief.")));
    let part = &response["output"][0]["content"][0];
    assert_eq!(part["logprobs"].as_array().unwrap().len(), 6);
    assert_eq!(part["logprobs"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, part["text"].as_str().unwrap());
    let chat = json!({"model": "base", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Talk."}],
        "seed": 1, "max_tokens": 6, "logit_bias": {server.end_token(): -100}});
    assert_eq!(server.chat(&chat).await.choice()["message"]["content"], part["text"]);
}

/// The answer to a call, given with the whole history and by `previous_response_id`.
#[tokio::test]
async fn a_conversation_goes_on_from_items_or_from_a_kept_response() {
    let server = TestServer::start();
    let first = create(&server, &request()).await;
    let call = &first["output"][0];
    let result = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "{\"degrees\": 20}"});
    let mut next = request();
    (next["tool_choice"], next["previous_response_id"], next["input"]) =
        (json!("none"), first["id"].clone(), json!([result]));
    let by_id = create(&server, &next).await;
    next["previous_response_id"] = Value::Null;
    next["input"] = json!([{"role": "user", "content": "How warm is it in Paris?"}, call, result]);
    let by_items = create(&server, &next).await;
    assert_eq!(by_id["usage"]["input_tokens"], by_items["usage"]["input_tokens"]);
    assert_eq!(by_id["output"][0]["content"], by_items["output"][0]["content"]);
    assert_eq!(by_id["previous_response_id"], first["id"]);
    let mut third = json!({"model": "base", "input": "And now?", "previous_response_id": by_id["id"], "seed": 1, "max_output_tokens": 4});
    let longer = create(&server, &third).await;
    assert!(longer["usage"]["input_tokens"].as_u64() > by_id["usage"]["input_tokens"].as_u64());
    third["previous_response_id"] = json!("resp_unknown");
    let refusal = server.post("/v1/responses", &third).await.refusal();
    assert_eq!(refusal, (400, "previous_response_id".to_owned(), "previous_response_not_found".to_owned()));
}

async fn delete(server: &TestServer, id: &str) -> Reply {
    server.reply(Request::delete(format!("/v1/responses/{id}")).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_response_is_kept_until_it_is_deleted_unless_it_shall_not_be() {
    let server = TestServer::start();
    let first = create(&server, &request()).await;
    let id = first["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.json(), first);
    let items = server.get(&format!("/v1/responses/{id}/input_items")).await.json();
    assert_eq!(items["data"][0]["content"][0]["text"], "How warm is it in Paris?");
    assert_eq!(delete(&server, id).await.json(), json!({"id": id, "object": "response", "deleted": true}));
    let gone = server.get(&format!("/v1/responses/{id}")).await.refusal();
    assert_eq!(gone, (404, "response_id".to_owned(), "response_not_found".to_owned()));
    assert_eq!(delete(&server, id).await.status, 404);
    let mut unkept = request();
    unkept["store"] = json!(false);
    let unkept = create(&server, &unkept).await;
    assert_eq!(server.get(&format!("/v1/responses/{}", unkept["id"].as_str().unwrap())).await.status, 404);
}

#[tokio::test]
async fn input_items_come_in_pages_newest_first() {
    let server = TestServer::start();
    let said = |text: String| json!({"role": "user", "content": text});
    let input: Vec<Value> = (0..5).map(|index| said(format!("word {index}"))).collect();
    let body = json!({"model": "base", "input": input, "max_output_tokens": 1});
    let response = create(&server, &body).await;
    let path = format!("/v1/responses/{}/input_items", response["id"].as_str().unwrap());
    let page = async |options: &str| {
        let page = server.get(&format!("{path}?{options}")).await.json();
        let texts = page["data"].as_array().unwrap().iter().map(|item| item["content"][0]["text"].to_string());
        (texts.collect::<Vec<_>>().join(" ").replace("word ", "").replace('"', ""), page)
    };
    assert_eq!(page("").await.0, "4 3 2 1 0");
    let (texts, first) = page("limit=2").await;
    assert_eq!((texts.as_str(), &first["has_more"]), ("4 3", &json!(true)));
    let (texts, last) = page(&format!("limit=3&after={}", first["last_id"].as_str().unwrap())).await;
    assert_eq!((texts.as_str(), &last["has_more"]), ("2 1 0", &json!(false)));
    assert_eq!(page("order=asc&limit=1").await.0, "0");
    for (options, param) in [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=x", "after")] {
        let refusal = server.get(&format!("{path}?{options}")).await.refusal();
        assert_eq!(refusal, (400, param.to_owned(), "invalid_value".to_owned()), "{options}");
    }
    let again = server.get(&format!("{}?stream=true", path.trim_end_matches("/input_items"))).await.refusal();
    assert_eq!(again, (400, "stream".to_owned(), "unsupported_parameter".to_owned()));
}

#[tokio::test]
async fn text_format_forces_json() {
    let server = TestServer::start();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "number", "schema": schema, "strict": true});
    let body = json!({"model": "base", "input": "A number.", "text": {"format": format}, "max_output_tokens": 50});
    let response = create(&server, &body).await;
    assert_valid(&schema, response["output"][0]["content"][0]["text"].as_str().unwrap());
    assert_eq!(response["text"]["format"], format);
}

/// A field, a wrong value, and the refusal's `param` and `code`.
fn wrong_fields() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let function = |parameters: Value| json!([{"type": "function", "name": "f", "parameters": parameters}]);
    vec![
        ("input", Value::Null, "input", "missing_required_parameter"),
        ("input", json!([{"type": "web_search_call"}]), "input[0].type", "invalid_value"),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "input_image"}]}]),
            "input[0].content[0].type",
            "invalid_value",
        ),
        ("input", json!([{"type": "function_call_output", "call_id": "x", "output": "1"}]), "input", "invalid_value"),
        (
            "input",
            json!([{"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}]),
            "input",
            "invalid_value",
        ),
        (
            "input",
            json!([{"type": "function_call", "call_id": "x", "name": "f", "arguments": "[]"}]),
            "input[0].arguments",
            "invalid_value",
        ),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type", "invalid_value"),
        (
            "tools",
            function(json!({"type": "object", "properties": {"a": {"type": "strnig"}}})),
            "tools[0].parameters",
            "invalid_function_parameters",
        ),
        ("tool_choice", json!({"type": "function", "name": "g"}), "tool_choice", "invalid_value"),
        ("background", json!(true), "background", "unsupported_parameter"),
        ("reasoning", json!({"effort": "high"}), "reasoning", "unsupported_parameter"),
        ("truncation", json!("auto"), "truncation", "unsupported_value"),
        ("include", json!(["file_search_call.results"]), "include[0]", "invalid_value"),
        (
            "text",
            json!({"format": {"type": "json_schema", "name": "x"}}),
            "text.format.schema",
            "missing_required_parameter",
        ),
        (
            "text",
            json!({"format": {"type": "json_schema", "name": "x", "schema": {"type": "strnig"}}}),
            "text.format.schema",
            "invalid_json_schema",
        ),
        ("max_output_tokens", json!(0), "max_output_tokens", "integer_below_min_value"),
    ]
}

#[tokio::test]
async fn wrong_fields_are_refused_by_their_own_names() {
    let server = TestServer::start();
    for (field, value, param, code) in wrong_fields() {
        let mut body = request();
        body["tool_choice"] = json!("auto");
        body[field] = value.clone();
        let reply = server.post("/v1/responses", &body).await;
        assert_eq!(reply.refusal(), (400, param.to_owned(), code.to_owned()), "{field} {value}: {}", reply.text);
    }
    let no_tools = |choice: &str| json!({"model": "base", "input": "a", "tools": [], "tool_choice": choice, "max_output_tokens": 1});
    assert_eq!(server.post("/v1/responses", &no_tools("auto")).await.status, 200);
    let refusal = server.post("/v1/responses", &no_tools("required")).await.refusal();
    assert_eq!(refusal, (400, "tool_choice".to_owned(), "-".to_owned()));
    let long = json!({"model": "base", "input": "word ".repeat(100_000)});
    assert_eq!(
        server.post("/v1/responses", &long).await.refusal(),
        (400, "input".to_owned(), "context_length_exceeded".to_owned())
    );
}
