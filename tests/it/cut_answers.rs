//! Wherever `max_tokens` cuts an answer, what is there is the beginning of the whole one: nothing is invented or closed.

use crate::support::{TestServer, cases, report, tool, weather_request};
use serde_json::{Value, json};

/// A request whose answer is a call or two, by seed.
fn request(server: &TestServer, seed: usize) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3}},
        "required": ["city"],
    });
    let mut body = weather_request();
    body["tools"] = json!([tool("weather", &parameters), tool("stop", &json!({"type": "object", "properties": {}}))]);
    body["tool_choice"] = json!("required");
    (body["temperature"], body["seed"], body["max_tokens"]) = (json!(1.5), json!(seed), json!(400));
    body["logit_bias"] = json!({server.token("\""): 3, server.token("}"): 3, server.end_token(): 4});
    body
}

fn calls(message: &Value) -> Vec<(String, String)> {
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    calls.iter().map(|call| (word(&call["function"]["name"]), word(&call["function"]["arguments"]))).collect()
}

/// Every call but the last is whole; the last is a beginning.
fn assert_beginning(cut: &[(String, String)], whole: &[(String, String)]) {
    assert!(cut.len() <= whole.len(), "{cut:?} is more than {whole:?}");
    for (index, (part, all)) in cut.iter().zip(whole).enumerate() {
        assert_eq!(part.0, all.0, "{cut:?} of {whole:?}");
        assert!(all.1.starts_with(&part.1), "{cut:?} of {whole:?}");
        assert!(index + 1 == cut.len() || part.1 == all.1, "{cut:?} of {whole:?}");
    }
}

#[tokio::test]
async fn every_cut_of_a_call_is_a_beginning_of_it_and_says_so() {
    let server = TestServer::start();
    let (mut outputs, mut cuts, mut inside, mut seed) = (0, 0, 0, 0);
    while outputs < cases(8, 50) {
        let mut body = request(&server, seed);
        seed += 1;
        let whole = server.chat(&body).await;
        let choice = whole.choice();
        let expected = calls(&choice["message"]);
        if choice["finish_reason"] != "tool_calls" {
            continue;
        }
        outputs += 1;
        let length = whole.json()["usage"]["completion_tokens"].as_u64().unwrap();
        for most in 1..length {
            body["max_tokens"] = json!(most);
            let (cut, streamed) = (server.chat(&body).await, server.stream(&body).await);
            let choice = cut.choice();
            let found = calls(&choice["message"]);
            // The last token may be the one that only says that the turn is over: then the calls are whole.
            if choice["finish_reason"] != "length" {
                assert_eq!((most + 1, &found), (length, &expected), "{choice}");
                continue;
            }
            assert_beginning(&found, &expected);
            // A call that was cut before its arguments is nobody's words.
            let words = [&choice["message"]["content"], &streamed.message(0)["content"]];
            assert!(words.iter().all(|words| words.as_str().is_none_or(str::is_empty)), "{words:?}");
            assert_eq!(cut.json()["usage"]["completion_tokens"], most);
            assert_eq!((streamed.finish_reason(0), calls(&streamed.message(0))), (json!("length"), found.clone()));
            cuts += 1;
            inside += usize::from(
                found.last().is_some_and(|(_, arguments)| !arguments.is_empty() && !arguments.ends_with('}')),
            );
        }
    }
    report(format_args!("{cuts} cuts of {outputs} outputs, {inside} of them inside arguments"));
    assert!(inside > outputs, "the cuts are not inside calls");
}
