//! Plain text: stop strings, logprobs, seeds, JSON answers.

use crate::support::{TestServer, assert_valid, text_request, weather_request};
use serde_json::{Value, json};

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let server = TestServer::start();
    let mut body = text_request();
    body["logit_bias"] = json!({server.end_token(): -100});
    let whole = server.chat(&body).await.choice();
    let text = whole["message"]["content"].as_str().unwrap().to_owned();
    let letters: Vec<char> = text.chars().collect();
    let stop: String = letters[letters.len() / 2..letters.len() / 2 + 2].iter().collect();
    body["stop"] = json!(["never said", stop]);
    let cut = server.chat(&body).await.choice();
    assert_eq!(cut["finish_reason"], "stop");
    assert_eq!(cut["message"]["content"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
    assert_eq!(
        server.stream(&body).await.message(0)["content"].as_str().unwrap_or_default(),
        cut["message"]["content"]
    );
    server.until_idle().await;
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let server = TestServer::start();
    let mut texts = Vec::new();
    for seed in [5, 5, 6] {
        let mut body = text_request();
        body["seed"] = json!(seed);
        texts.push(server.chat(&body).await.choice()["message"]["content"].clone());
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}

#[tokio::test]
async fn logprobs_have_openais_shape() {
    let server = TestServer::start();
    let mut body = text_request();
    (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(3));
    let reply = server.chat(&body).await;
    let choice = reply.choice();
    let entries = choice["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(json!(entries.len()), reply.json()["usage"]["completion_tokens"]);
    for entry in &entries {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        for scored in top.iter().chain([entry]) {
            assert!(scored["token"].is_string() && scored["bytes"].is_array(), "{scored}");
            assert!(scored["logprob"].as_f64().unwrap() <= 1e-6, "{scored}");
        }
        let best = top[0]["logprob"].as_f64().unwrap();
        assert!(top.iter().all(|scored| scored["logprob"].as_f64().unwrap() <= best));
    }
    let bytes: Vec<u8> = entries
        .iter()
        .flat_map(|entry| entry["bytes"].as_array().unwrap())
        .map(|b| b.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8_lossy(&bytes), choice["message"]["content"].as_str().unwrap());
    body["logprobs"] = json!(false);
    body.as_object_mut().unwrap().remove("top_logprobs");
    assert_eq!(server.chat(&body).await.choice()["logprobs"], Value::Null);
}

#[tokio::test]
async fn usage_counts_prompt_and_completion() {
    let server = TestServer::start();
    let mut body = text_request();
    body["logit_bias"] = json!({server.end_token(): -100});
    let usage = server.chat(&body).await.json()["usage"].clone();
    assert_eq!(usage["completion_tokens"], 40);
    assert!(usage["prompt_tokens"].as_u64().unwrap() > 5);
    assert_eq!(usage["total_tokens"].as_u64().unwrap(), usage["prompt_tokens"].as_u64().unwrap() + 40);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 0);
}

#[tokio::test]
async fn an_ignored_end_of_turn_makes_a_text_as_long_as_it_may_be() {
    let server = TestServer::start();
    for seed in 0..8 {
        let mut body = text_request();
        (body["seed"], body["max_tokens"], body["ignore_eos"]) = (json!(seed), json!(90), json!(true));
        // The end is what the model would say at once.
        body["logit_bias"] = json!({server.end_token(): 100});
        let reply = server.chat(&body).await;
        assert_eq!(reply.choice()["finish_reason"], "length");
        assert_eq!(reply.json()["usage"]["completion_tokens"], 90);
        body["ignore_eos"] = json!(false);
        assert_eq!(server.chat(&body).await.json()["usage"]["completion_tokens"], 0);
    }
    let mut formatted = text_request();
    formatted["response_format"] = json!({"type": "json_object"});
    for mut body in [weather_request(), formatted] {
        body["ignore_eos"] = json!(true);
        let refused = server.chat(&body).await;
        let error = &refused.json()["error"];
        assert_eq!((&error["param"], &error["code"]), (&json!("ignore_eos"), &json!("invalid_parameter_combination")));
    }
}

#[tokio::test]
async fn max_tokens_beyond_the_context_is_cut_to_what_is_left() {
    let server = TestServer::start();
    let mut body = text_request();
    (body["max_tokens"], body["temperature"]) = (json!(1_000_000), json!(0));
    body["logit_bias"] = json!({server.end_token(): -100});
    let reply = server.chat(&body).await;
    assert_eq!(reply.choice()["finish_reason"], "length");
    assert_eq!(reply.json()["usage"]["total_tokens"], server.state.model.context_length);
}

#[tokio::test]
async fn a_json_schema_answer_fits_its_schema() {
    let server = TestServer::start();
    let schema = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["name", "age"], "additionalProperties": false});
    let mut finished = 0;
    for seed in 0..10 {
        let mut body = text_request();
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
        (body["seed"], body["temperature"], body["max_tokens"]) = (json!(seed), json!(2), json!(200));
        let choice = server.chat(&body).await.choice();
        if choice["finish_reason"] == "stop" {
            finished += 1;
            assert_valid(&schema, choice["message"]["content"].as_str().unwrap());
        }
    }
    assert!(finished >= 5, "{finished} of 10 finished");
}

#[tokio::test]
async fn a_json_object_answer_is_an_object() {
    let server = TestServer::start();
    let mut finished = 0;
    for seed in 0..10 {
        let mut body = text_request();
        body["response_format"] = json!({"type": "json_object"});
        (body["seed"], body["max_tokens"]) = (json!(seed), json!(300));
        body["logit_bias"] = json!({server.token("\""): 5, server.token("}"): 8, server.token("]"): 6});
        let choice = server.chat(&body).await.choice();
        if choice["finish_reason"] == "stop" {
            finished += 1;
            let value: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
            assert!(value.is_object(), "{value}");
        }
    }
    assert!(finished >= 3, "{finished} of 10 finished");
}
