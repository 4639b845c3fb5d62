//! Text completions and the tokeniser's routes.

use crate::support::{TestServer, Transcript};
use serde_json::{Value, json};

fn request(prompt: &Value) -> Value {
    json!({"model": "base", "prompt": prompt, "max_tokens": 8, "temperature": 0})
}

async fn complete(server: &TestServer, body: &Value) -> Value {
    let reply = server.post("/v1/completions", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

#[tokio::test]
async fn text_and_token_ids_continue_alike() {
    let server = TestServer::start();
    let tokens = server.post("/tokenize", &json!({"prompt": "abc"})).await.json();
    assert_eq!(tokens["count"].as_u64().unwrap() as usize, tokens["tokens"].as_array().unwrap().len());
    let from_text = complete(&server, &request(&json!("abc"))).await;
    let from_ids = complete(&server, &request(&tokens["tokens"])).await;
    assert_eq!(from_text["choices"][0]["text"], from_ids["choices"][0]["text"]);
    assert_eq!(from_text["object"], "text_completion");
    assert_eq!(from_text["usage"]["prompt_tokens"], tokens["count"]);
    assert_eq!(from_text["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn several_prompts_give_n_choices_each_in_order() {
    let server = TestServer::start();
    let mut body = request(&json!(["abc", "xyz"]));
    (body["n"], body["echo"]) = (json!(2), json!(true));
    let whole = complete(&server, &body).await;
    let choices = whole["choices"].as_array().unwrap();
    let starts: Vec<&str> = choices.iter().map(|choice| &choice["text"].as_str().unwrap()[..3]).collect();
    assert_eq!(starts, ["abc", "abc", "xyz", "xyz"]);
    assert!(choices.iter().enumerate().all(|(index, choice)| choice["index"] == index));
}

#[tokio::test]
async fn a_stream_says_what_the_whole_completion_says() {
    let server = TestServer::start();
    let mut body = request(&json!("abc"));
    (body["echo"], body["seed"], body["temperature"], body["max_tokens"]) =
        (json!(true), json!(3), json!(1), json!(40));
    let whole = complete(&server, &body).await;
    (body["stream"], body["stream_options"]) = (json!(true), json!({"include_usage": true}));
    let text = server.post("/v1/completions", &body).await.text;
    assert!(text.ends_with("data: [DONE]\n\n"));
    let chunks = Transcript::read(&text).chunks;
    let joined: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(joined, whole["choices"][0]["text"].as_str().unwrap());
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "text_completion"));
}

#[tokio::test]
async fn logprobs_have_one_entry_a_token_and_offsets_into_the_text() {
    let server = TestServer::start();
    let mut body = request(&json!("abc"));
    body["logprobs"] = json!(3);
    let whole = complete(&server, &body).await;
    let logprobs = &whole["choices"][0]["logprobs"];
    let texts: Vec<&str> = logprobs["tokens"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(texts.len() as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
    for key in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[key].as_array().unwrap().len(), texts.len(), "{key}");
    }
    assert!(logprobs["top_logprobs"].as_array().unwrap().iter().all(|top| top.as_object().unwrap().len() <= 3));
    assert_eq!(logprobs["text_offset"][0], 0);
    assert_eq!(logprobs["text_offset"][1], texts[0].chars().count());
}

#[tokio::test]
async fn structured_outputs_force_the_whole_text() {
    let server = TestServer::start();
    let cases = [
        (json!({"regex": "(red|blue)-[0-9]{2}/[a-c]"}), r"^(red|blue)-[0-9]{2}/[a-c]$"),
        (json!({"choice": ["yes", "no, \"never\""]}), r#"^(yes|no, "never")$"#),
        (json!({"grammar": "start: \"<\" WORD \">\"\nWORD: /[a-z]{3}/"}), "^<[a-z]{3}>$"),
        (
            json!({"json": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false}}),
            r#"^\{"a":[12]\}$"#,
        ),
    ];
    for (structured, pattern) in cases {
        let mut body = request(&json!("abc"));
        (body["structured_outputs"], body["max_tokens"], body["temperature"]) =
            (structured.clone(), json!(60), json!(2));
        let expected = regex::Regex::new(pattern).unwrap();
        for path in ["/v1/completions", "/v1/chat/completions"] {
            if path.contains("chat") {
                (body["messages"], body["prompt"]) = (json!([{"role": "user", "content": "?"}]), Value::Null);
            }
            let reply = server.post(path, &body).await;
            let choice = reply.choice();
            let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap();
            assert!(expected.is_match(text), "{structured}: {text}");
            assert_eq!(choice["finish_reason"], "stop");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_by_name() {
    let server = TestServer::start();
    for (field, value, param, code) in [
        ("suffix", json!("end"), "suffix", "unsupported_parameter"),
        ("best_of", json!(3), "best_of", "unsupported_value"),
        ("prompt", json!(""), "prompt", "empty_string"),
        ("prompt", json!([]), "prompt", "empty_array"),
        ("prompt", json!([1, 1_000_000]), "prompt[1]", "integer_above_max_value"),
        ("prompt", json!(["a", ""]), "prompt[1]", "empty_string"),
        ("prompt", json!({"a": 1}), "prompt", "invalid_type"),
        ("logprobs", json!(true), "logprobs", "invalid_type"),
        ("n", json!(129), "n", "integer_above_max_value"),
        ("structured_outputs", json!({"regex": "(?=a)b"}), "structured_outputs.regex", "invalid_grammar"),
        (
            "structured_outputs",
            json!({"regex": "a", "choice": ["a"]}),
            "structured_outputs.choice",
            "invalid_parameter_combination",
        ),
        (
            "structured_outputs",
            json!({"structural_tag": "x"}),
            "structured_outputs.structural_tag",
            "unsupported_parameter",
        ),
        ("structured_outputs", json!({"grammar": "start: %json {}"}), "structured_outputs.grammar", "invalid_grammar"),
        ("structured_outputs", json!({"grammar": "start: nothing"}), "structured_outputs.grammar", "invalid_grammar"),
        ("structured_outputs", json!({"choice": []}), "structured_outputs.choice", "invalid_grammar"),
    ] {
        let mut body = request(&json!("abc"));
        body[field] = value.clone();
        let reply = server.post("/v1/completions", &body).await;
        assert_eq!(reply.refusal(), (400, param.to_owned(), code.to_owned()), "{field} {value}: {}", reply.text);
    }
    let mut both = request(&json!("abc"));
    (both["echo"], both["logprobs"]) = (json!(true), json!(1));
    let refusal = server.post("/v1/completions", &both).await.refusal();
    assert_eq!(refusal, (400, "logprobs".to_owned(), "unsupported_parameter".to_owned()));
}

#[tokio::test]
async fn tokens_and_text_turn_into_each_other() {
    let server = TestServer::start();
    let text = "Grüße <|user|> 日本 {\"a\": 1}";
    let tokens =
        server.post("/tokenize", &json!({"model": "base", "prompt": text, "return_token_strs": true})).await.json();
    let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).await.json();
    assert_eq!(back["prompt"], text);
    assert_eq!(tokens["token_strs"].as_array().unwrap().len() as u64, tokens["count"].as_u64().unwrap());
    let messages = json!({"messages": [{"role": "user", "content": "abc"}]});
    let chat = server.post("/tokenize", &messages).await.json();
    let mut asked = messages.clone();
    (asked["model"], asked["max_tokens"]) = (json!("base"), json!(1));
    assert_eq!(server.chat(&asked).await.json()["usage"]["prompt_tokens"], chat["count"]);
    let mut closed = messages;
    closed["add_generation_prompt"] = json!(false);
    assert!(server.post("/tokenize", &closed).await.json()["count"].as_u64() < chat["count"].as_u64());
    let unknown = server.post("/tokenize", &json!({"model": "nobody", "prompt": "a"})).await;
    assert_eq!(unknown.refusal(), (404, "model".to_owned(), "model_not_found".to_owned()));
}

/// Ambiguous grammars cost more with every token; they end in a refusal, not in a slow server.
#[tokio::test]
async fn a_grammar_that_costs_too_much_is_the_callers_to_mend() {
    let server = TestServer::start();
    let letters = json!({server.end_token(): -100});
    for grammar in [
        "start: start start start | start start | A\nA: /[a-z ]/",
        "start: start start | \"a\" | /[a-z ]/",
        "start: a{0,1000}\na: b{0,1000}\nb: \"x\"{0,1000}",
    ] {
        let mut body = request(&json!("abc"));
        (body["structured_outputs"], body["max_tokens"]) = (json!({"grammar": grammar}), json!(1900));
        (body["logit_bias"], body["temperature"]) = (letters.clone(), json!(1));
        let started = std::time::Instant::now();
        let reply = server.post("/v1/completions", &body).await;
        assert_eq!(
            reply.refusal(),
            (400, "structured_outputs.grammar".to_owned(), "invalid_grammar".to_owned()),
            "{grammar}"
        );
        assert!(started.elapsed().as_secs() < 5, "{grammar} took {:?}", started.elapsed());
    }
}
