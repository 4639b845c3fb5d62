//! Streams hold OpenAI's chunk sequence and say exactly what the whole response says.

use crate::support::{TestServer, Transcript, cases, post, text_request, tool, weather_request};
use axum::http::StatusCode;
use futures::StreamExt;
use serde_json::{Value, json};

/// A request whose call is forced from its first to its last byte.
fn forced_request() -> Value {
    let parameters = json!({"type": "object", "properties": {"unit": {"const": "celsius"}}, "required": ["unit"]});
    let mut body = weather_request();
    body["tools"] = json!([tool("set_unit", &parameters)]);
    body["tool_choice"] = json!("required");
    body["parallel_tool_calls"] = json!(false);
    body
}

/// Ids, times and the cut of the arguments into fragments vary; everything else is fixed.
fn normalised(transcript: &Transcript) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut arguments = String::new();
    for chunk in &transcript.chunks {
        let fragment = &chunk["choices"][0]["delta"]["tool_calls"][0]["function"];
        if fragment.get("name").is_none() && fragment["arguments"].is_string() {
            arguments.push_str(fragment["arguments"].as_str().unwrap());
            continue;
        }
        if !arguments.is_empty() {
            lines.push(format!("arguments {}", std::mem::take(&mut arguments)));
        }
        let mut chunk = chunk.clone();
        (chunk["id"], chunk["created"], chunk["system_fingerprint"]) = (json!("ID"), json!(0), json!("FP"));
        if let Some(id) = chunk.pointer_mut("/choices/0/delta/tool_calls/0/id") {
            *id = json!("CALL");
        }
        if chunk["usage"].is_object() {
            chunk["usage"] = json!("USAGE");
        }
        lines.push(chunk.to_string());
    }
    lines.push(format!("done {}", transcript.done));
    lines.join("\n")
}

#[tokio::test]
async fn a_call_is_streamed_in_openais_sequence() {
    let server = TestServer::start();
    let transcript = server.stream(&forced_request()).await;
    insta::assert_snapshot!(normalised(&transcript), @r#"
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"base","system_fingerprint":"FP","choices":[{"index":0,"delta":{"role":"assistant","content":null},"logprobs":null,"finish_reason":null}],"usage":null}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"base","system_fingerprint":"FP","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"CALL","type":"function","function":{"name":"set_unit","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}
    arguments {"unit":"celsius"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"base","system_fingerprint":"FP","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"base","system_fingerprint":"FP","choices":[],"usage":"USAGE"}
    done true
    "#);
}

#[tokio::test]
async fn every_chunk_has_the_same_id_and_time_and_no_usage_unless_asked() {
    let server = TestServer::start();
    let mut body = forced_request();
    body["stream"] = json!(true);
    let transcript = Transcript::read(&server.chat(&body).await.text);
    assert!(transcript.done);
    let first = &transcript.chunks[0];
    assert!(first["id"].as_str().unwrap().starts_with("chatcmpl-"));
    for chunk in &transcript.chunks {
        assert_eq!((&chunk["id"], &chunk["created"]), (&first["id"], &first["created"]));
        assert!(chunk.get("usage").is_none(), "{chunk}");
    }
}

/// A message without what is random or absent in one of the forms.
fn comparable(message: &Value) -> Value {
    let calls: Vec<Value> =
        message["tool_calls"].as_array().into_iter().flatten().map(|call| call["function"].clone()).collect();
    json!({"role": message["role"], "content": message["content"].as_str().unwrap_or_default(), "calls": calls})
}

/// Each call has one id, sent once, and the place in the list that its chunks name.
fn assert_call_ids(message: &Value) {
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let ids: Vec<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert!(ids.iter().all(|id| id.matches("call_").count() == 1), "{ids:?}");
    assert!(calls.iter().enumerate().all(|(index, call)| call["index"] == index), "{calls:?}");
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[tokio::test]
async fn a_stream_says_what_the_whole_response_says() {
    // What is cached would be the one difference.
    let server = TestServer::with_options(&["--no-prefix-cache"]);
    for seed in 0..cases(60, 1_000) {
        let mut body = if seed % 4 == 0 { text_request() } else { weather_request() };
        if seed % 4 == 2 {
            body["tool_choice"] = json!("required");
        }
        (body["seed"], body["temperature"], body["max_tokens"]) = (json!(seed), json!(1.5), json!(80));
        (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(2));
        body["logit_bias"] = json!({server.token("{"): 4, server.token("\""): 3});
        let whole = server.chat(&body).await;
        let streamed = server.stream(&body).await;
        assert!(streamed.done);
        assert_call_ids(&streamed.message(0));
        let choice = whole.choice();
        assert_eq!(comparable(&streamed.message(0)), comparable(&choice["message"]), "seed {seed}");
        assert_eq!(streamed.finish_reason(0), choice["finish_reason"]);
        assert_eq!(Value::Array(streamed.logprobs(0)), choice["logprobs"]["content"]);
        assert_eq!(streamed.usage(), whole.json()["usage"]);
    }
}

#[tokio::test]
async fn several_choices_are_streamed_side_by_side() {
    let server = TestServer::start();
    let mut body = text_request();
    body["n"] = json!(3);
    let whole = server.chat(&body).await.json();
    let streamed = server.stream(&body).await;
    for index in 0..3 {
        assert_eq!(comparable(&streamed.message(index)), comparable(&whole["choices"][index]["message"]));
    }
    assert_ne!(streamed.message(0)["content"], streamed.message(1)["content"], "choices draw their own tokens");
}

/// A stream that would run for thousands of tokens.
fn endless(server: &TestServer) -> Value {
    let mut body = text_request();
    (body["max_tokens"], body["stream"]) = (json!(3500), json!(true));
    body["logit_bias"] = json!({server.end_token(): -100});
    body
}

#[tokio::test]
async fn a_dropped_stream_frees_its_blocks() {
    let server = TestServer::start();
    let before = server.state.engine.stats();
    let response = server.send(post("/v1/chat/completions", endless(&server).to_string().into_bytes())).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body().into_data_stream();
    for _ in 0..3 {
        body.next().await.unwrap().unwrap();
    }
    drop(body);
    server.until_idle().await;
    let after = server.state.engine.stats();
    assert_eq!(after.blocks_used, before.blocks_used);
    assert!(after.generated_tokens < 3000, "it ran on to {} tokens", after.generated_tokens);
}

#[tokio::test]
async fn a_dropped_whole_request_frees_its_blocks() {
    let server = TestServer::start();
    let mut body = endless(&server);
    body["stream"] = json!(false);
    {
        let mut request = Box::pin(server.chat(&body));
        let started = async {
            while server.state.engine.stats().generated_tokens == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            reply = &mut request => panic!("finished too early: {reply:?}"),
            () = started => {}
        }
    }
    server.until_idle().await;
    let after = server.state.engine.stats();
    assert_eq!(after.blocks_used, 0);
    assert!(after.generated_tokens < 3000, "it ran on to {} tokens", after.generated_tokens);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("callsmith_requests_total{model=\"base\",outcome=\"cancelled\"} 1"), "{metrics}");
}

#[tokio::test]
async fn the_first_chunk_of_a_stream_needs_no_token() {
    let server = TestServer::start();
    let response = server.send(post("/v1/chat/completions", endless(&server).to_string().into_bytes())).await;
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(first.contains(r#""delta":{"role":"assistant","content":null}"#), "{first}");
    assert!(!first.contains(r#""content":""#));
}
