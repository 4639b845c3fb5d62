//! Dialects over HTTP: ids, control tokens, thoughts, several turns, and a user's own dialect file.

use crate::support::{TestServer, assert_valid, tool, weather_request, write};
use callsmith::chat::dialect::Dialects;
use callsmith::cli::Cli;
use callsmith::settings::Settings;
use clap::Parser;
use serde_json::{Value, json};
use std::path::Path;

/// Shows tools, knows thoughts, and opens them when asked to.
const THINKING: &str = "{% for m in messages %}<|user|>{{ m.content }}{{ m.reasoning_content or '' }}<|end|>{% endfor %}{{ tools or '' }}<|assistant|>\
    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% elif OPEN %}<think>\n{% endif %}";

/// Adds tokens to a model's `tokenizer.json`.
fn add_tokens(model: &Path, tokens: &[(&str, bool)]) {
    let path = model.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let known = json["model"]["vocab"].as_object().unwrap().values().filter_map(Value::as_u64).max().unwrap();
    for (offset, (text, special)) in tokens.iter().enumerate() {
        let token = json!({"id": known + 1 + offset as u64, "content": text, "special": special, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false});
        json["added_tokens"].as_array_mut().unwrap().push(token);
    }
    std::fs::write(path, json.to_string()).unwrap();
}

fn thinking(open: bool, options: &[&str]) -> TestServer {
    TestServer::with_model(options, |model| {
        add_tokens(model, &[("<think>", false), ("</think>", false)]);
        let template = THINKING.replace("OPEN", if open { "true" } else { "false" });
        std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    })
}

fn required(seed: u64) -> Value {
    let mut body = weather_request();
    let small = json!({"type": "object", "properties": {"on": {"type": "boolean"}, "level": {"enum": [1, 2]}}, "required": ["on"]});
    body["tools"] = json!([tool("light", &small), tool("heat", &small)]);
    (body["tool_choice"], body["seed"], body["temperature"]) = (json!("required"), json!(seed), json!(2));
    body
}

#[tokio::test]
async fn every_dialect_calls_validly_and_streams_what_it_answers() {
    for dialect in Dialects::built_in().names() {
        let server = TestServer::with_options(&["--dialect", dialect]);
        let mut finished = 0;
        for seed in 0..10 {
            let body = required(seed);
            let choice = server.chat(&body).await.choice();
            let streamed = server.stream(&body).await;
            assert_eq!(streamed.finish_reason(0), choice["finish_reason"], "{dialect}");
            let calls = choice["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
            let again = streamed.message(0)["tool_calls"].as_array().cloned().unwrap_or_default();
            assert_eq!(calls.len(), again.len(), "{dialect}");
            for (call, again) in calls.iter().zip(&again) {
                assert_eq!(call["function"], again["function"], "{dialect}");
                let short = call["id"].as_str().unwrap().len() == 9;
                assert_eq!(short, dialect.starts_with("mistral"), "{call}");
            }
            if choice["finish_reason"] == "tool_calls" {
                finished += 1;
                let schema = &body["tools"][0]["function"]["parameters"];
                calls.iter().for_each(|call| assert_valid(schema, call["function"]["arguments"].as_str().unwrap()));
            }
        }
        assert!(finished >= 5, "{dialect}: {finished} of 10 finished");
    }
}

#[tokio::test]
async fn a_tag_that_is_a_control_token_is_written_as_that_token() {
    let tag = |model: &Path| add_tokens(model, &[("[TOOL_CALLS]", true)]);
    let server = TestServer::with_model(&["--dialect", "mistral"], tag);
    let reply = server.chat(&required(1)).await;
    let (choice, usage) = (reply.choice(), reply.json()["usage"]["completion_tokens"].as_u64().unwrap());
    assert!(!choice["message"]["tool_calls"].as_array().unwrap().is_empty(), "{choice}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let without = TestServer::with_options(&["--dialect", "mistral"]);
    let more = without.chat(&required(1)).await.json()["usage"]["completion_tokens"].as_u64().unwrap();
    assert_ne!(usage, more, "the tag is one token here and several there");
    // What a caller writes stays text: it is more tokens than the tag.
    let asked = |text: &str| json!({"model": "base", "messages": [{"role": "user", "content": text}], "max_tokens": 1});
    let tokens = async |text: &str| server.chat(&asked(text)).await.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens("[TOOL_CALLS]").await > tokens("x").await + 3);
}

#[tokio::test]
async fn thoughts_come_back_apart_from_the_answer() {
    let server = thinking(true, &[]);
    let mut body = required(3);
    body["logit_bias"] = json!({server.token("</think>"): 8});
    let (mut finished, mut thoughtful) = (0, 0);
    for seed in 0..12 {
        body["seed"] = json!(seed);
        let reply = server.chat(&body).await;
        let choice = reply.choice();
        let message = &choice["message"];
        let counted = reply.json()["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
        assert!(counted > 0 && !message["reasoning_content"].as_str().unwrap_or_default().contains("</think>"));
        thoughtful += usize::from(message["reasoning_content"].is_string());
        if choice["finish_reason"] == "tool_calls" {
            finished += 1;
            assert_eq!(message["content"], Value::Null);
            let streamed = server.stream(&body).await.message(0);
            assert_eq!(streamed["reasoning_content"], message["reasoning_content"]);
            assert_eq!(streamed["tool_calls"][0]["function"], message["tool_calls"][0]["function"]);
        }
    }
    assert!(finished > 3 && thoughtful > 3, "{finished} finished, {thoughtful} with thoughts");
}

#[tokio::test]
async fn a_model_that_may_think_need_not_and_can_be_told_not_to() {
    let server = thinking(false, &[]);
    let mut body = required(1);
    body["logit_bias"] = json!({server.token("<think>"): -100});
    let choice = server.chat(&body).await.choice();
    assert!(choice["message"]["tool_calls"].is_array() && choice["message"].get("reasoning_content").is_none());
    body["logit_bias"] = json!({server.token("<think>"): 100, server.token("</think>"): 8});
    let choice = server.chat(&body).await.choice();
    let silent = choice["message"].get("reasoning_content").is_none();
    assert!(!silent || choice["finish_reason"] == "tool_calls", "{choice}");
    let off = thinking(true, &["--reasoning", "off"]);
    let choice = off.chat(&required(1)).await.choice();
    assert!(choice["message"].get("reasoning_content").is_none() && choice["message"]["tool_calls"].is_array());
    // A request can say the same for itself.
    let on = thinking(true, &[]);
    let mut quiet = required(1);
    quiet["chat_template_kwargs"] = json!({"enable_thinking": false});
    assert_eq!(
        on.chat(&quiet).await.choice()["message"]["tool_calls"][0]["function"],
        choice["message"]["tool_calls"][0]["function"]
    );
    // Thoughts may be given back with the turn that had them.
    let turn = json!({"role": "assistant", "content": "Yes.", "reasoning_content": "hm"});
    let body = json!({"model": "base", "messages": [{"role": "user", "content": "a"}, turn, {"role": "user", "content": "b"}], "max_tokens": 2});
    assert_eq!(server.chat(&body).await.status, 200);
}

#[tokio::test]
async fn results_come_in_any_order_and_each_call_has_one() {
    let server = TestServer::start();
    let call =
        |id: &str| json!({"id": id, "type": "function", "function": {"name": "light", "arguments": "{\"on\":true}"}});
    let result = |id: &str, content: &str| json!({"role": "tool", "tool_call_id": id, "content": content});
    let ask = |results: Vec<Value>| {
        let mut body = required(1);
        let turn = json!({"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]});
        body["messages"] = json!([{"role": "user", "content": "Light."}, turn]);
        body["messages"].as_array_mut().unwrap().extend(results);
        body
    };
    let content = async |body: &Value| server.chat(body).await.choice()["message"]["tool_calls"].clone();
    let in_order = ask(vec![result("a", "1"), result("b", "{\"error\": \"broken\"}")]);
    let swapped = ask(vec![result("b", "{\"error\": \"broken\"}"), result("a", "1")]);
    let names =
        |calls: Value| calls.as_array().unwrap().iter().map(|call| call["function"].clone()).collect::<Vec<_>>();
    assert_eq!(names(content(&in_order).await), names(content(&swapped).await), "the prompt is the same");
    let missing = server.chat(&ask(vec![result("b", "1")])).await;
    assert_eq!(missing.refusal(), (400, "messages[1].tool_calls".into(), "invalid_value".into()));
    assert!(missing.text.contains("did not have response messages: a"), "{}", missing.text);
    let mut late = in_order.clone();
    let more = [json!({"role": "user", "content": "And?"}), result("a", "2")];
    late["messages"].as_array_mut().unwrap().extend(more);
    assert_eq!(server.chat(&late).await.refusal().1, "messages[5].role");
    let twice = server.chat(&ask(vec![result("a", "1"), result("b", "2"), result("a", "3")])).await;
    assert_eq!(twice.refusal().1, "messages[4].tool_call_id");
}

const OWN: &str = r#"
name = "own"
words = "before"
json = "compact"
call = "<function=$NAME>$ARGUMENTS</function>"
between = "\n"
[prompt]
system = "Functions: {{ tools | tojson }}"
results = "{% for result in results %}<result>{{ result.content }}</result>{% endfor %}"
"#;

#[tokio::test]
async fn a_users_own_dialect_is_a_file_in_a_directory() {
    let server = TestServer::with_model(&["--dialect-dir", "DIR/own", "--dialect", "own"], |model| {
        write(&model.with_file_name("own").join("own.toml"), OWN);
    });
    let choice = server.chat(&required(1)).await.choice();
    assert!(!choice["message"]["tool_calls"].as_array().unwrap().is_empty(), "{choice}");
}

#[test]
fn a_wrong_dialect_file_is_refused_with_its_path_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = [
        (OWN.replace("words = \"before\"", "words = \"after\""), "words"),
        (OWN.replace("$NAME>", "$ARGUMENTS>"), "`call`"),
        (OWN.replace("name = \"own\"", "name = \"o w n\""), "`name`"),
        (OWN.replace("tojson", "nosuchfilter"), "nosuchfilter"),
        (OWN.replace("between", "betwen"), "betwen"),
        (OWN.replace("<function=$NAME>", "$NAME>"), "`call`"),
        (OWN.replace("$NAME>", "$NAME$CALL_ID>"), "call_id"),
        (OWN.replace("call = \"<", "call = \" <"), "white space"),
        (OWN.replace("json = \"compact\"", "json = \"compact\"\nlead = \"Now: \""), "`lead`"),
        (OWN.replace("call = \"<function=$NAME>", "call_id = \"$ID\"\ncall = \"<f $NAME $CALL_ID "), "read"),
    ];
    for (source, culprit) in wrong {
        write(&dir.path().join("x.toml"), &source);
        let args = ["callsmith", "--dialect-dir", dir.path().to_str().unwrap()];
        let error = Settings::from_args(Cli::parse_from(args).serve).unwrap_err().to_string();
        assert!(error.contains("x.toml") && error.contains(culprit), "{culprit}: {error}");
    }
}
