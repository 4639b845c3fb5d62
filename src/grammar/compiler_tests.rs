//! Compiling: turn grammars, errors, the cache, and the life of a constraint.

use super::*;
use crate::grammar::schema::{admit, admit_parameters};
use crate::grammar::testing::{Lab, Random, WordEnv, byte_env, complaint};
use serde_json::{Value, json};

fn weather() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string", "minLength": 1}, "days": {"type": "integer"}}, "required": ["city"]})
}

/// Text, or one or more calls of two functions; `None` is a function without arguments.
fn turn(first: &Value) -> String {
    let schemas = [admit(first).unwrap(), admit_parameters(&None).unwrap()];
    let mut lark = String::from(
        "start: text | calls\ntext: /[^{](.|\\n)*/\ncalls: \"{\\\"tool_uses\\\":[\" call (\",\" call)* \"]}\"\n",
    );
    lark.push_str("call: call0 | call1\n");
    for (index, schema) in schemas.iter().enumerate() {
        lark.push_str(&format!(
            "call{index}: \"{{\\\"recipient_name\\\":\\\"functions.f{index}\\\",\\\"parameters\\\":\" args{index} \"}}\"\nargs{index}: %json {schema}\n"
        ));
    }
    lark
}

#[test]
fn a_turn_is_text_or_valid_calls() {
    for env in [byte_env(), WordEnv::shared()] {
        let lab = Lab::new(env);
        let constraint = lab.compiler.compile_blocking(&turn(&weather())).unwrap();
        let mut calls = 0;
        for seed in 1..100 {
            let mut constraint = constraint.fork();
            let mut start = Vec::new();
            if seed % 2 == 0 {
                constraint.commit(u32::from(b'{')).unwrap();
                start.push(b'{');
            }
            let Some(rest) = lab.sample(constraint, &mut Random::new(seed), 400) else { continue };
            let text = [start, rest].concat();
            if text.first() != Some(&b'{') {
                continue;
            }
            let turn: Value = serde_json::from_slice(&text).unwrap();
            for call in turn["tool_uses"].as_array().unwrap() {
                calls += 1;
                let arguments = call["parameters"].to_string();
                let schema = if call["recipient_name"] == "functions.f0" { weather() } else { json!({"const": {}}) };
                assert_eq!(complaint(&schema, arguments.as_bytes()), None);
            }
        }
        assert!(calls > 10, "{calls} calls");
    }
}

#[test]
fn forced_tokens_are_committed_and_the_rest_is_sampled() {
    let lab = Lab::new(WordEnv::shared());
    let lark = format!(
        "start: \"{{\\\"name\\\":\\\"the tool\\\",\\\"parameters\\\":\" args \"}}\"\nargs: %json {}",
        admit(&weather()).unwrap()
    );
    let mut constraint = lab.compiler.compile_blocking(&lark).unwrap();
    let forced = constraint.take_forced().unwrap();
    let text = lab.env.tok_trie().decode_str(&forced);
    assert!(text.starts_with(r#"{"name":"the tool","parameters":{"city"#), "{text}");
    assert!(constraint.take_forced().unwrap().is_empty(), "there is a choice now");
    assert!(!constraint.is_finished() && !constraint.is_accepting().unwrap());
}

#[test]
fn the_way_that_was_looked_at_says_nothing_about_the_other() {
    let lab = Lab::new(WordEnv::shared());
    let lark = r#"start: "x" ("ga\"" body "\",\"b" | "sa\"" body "\"}")
body: /[a-z]*/"#;
    let mut constraint = lab.compiler.compile_blocking(lark).unwrap();
    let words = |tokens: &[u32]| tokens.iter().map(|id| lab.env.tok_trie().token(*id).to_vec()).collect::<Vec<_>>();
    assert_eq!(words(&constraint.take_forced().unwrap()).concat(), b"x");
    constraint.commit(u32::from(b's')).unwrap();
    assert_eq!(words(&constraint.take_forced().unwrap()).concat(), b"a\"");
    let allowed = words(&lab.allowed(&mut constraint));
    assert!(allowed.contains(&b"\"}".to_vec()) && !allowed.contains(&b"\",\"".to_vec()), "{allowed:?}");
}

#[test]
fn what_cannot_be_taken_back_is_compiled_too() {
    let lab = Lab::new(WordEnv::shared());
    for lexeme in ["w[max_tokens=5]: /[a-z]+/", "w[stop=\"x\"]: /[a-z]+/"] {
        let mut constraint = lab.compiler.compile_blocking(&format!("start: \"a: \" w\n{lexeme}")).unwrap();
        assert!(!constraint.take_forced().unwrap().is_empty(), "{lexeme}");
    }
}

#[test]
fn every_end_of_turn_id_is_allowed_where_the_turn_may_end_and_padding_never() {
    let lab = Lab::new(WordEnv::shared());
    let ends = lab.env.tok_trie().eos_tokens().to_vec();
    let mut constraint = lab.compiler.compile_blocking("start: /a+/").unwrap();
    assert!(!lab.allowed(&mut constraint).iter().any(|id| ends.contains(id)));
    constraint.commit(u32::from(b'a')).unwrap();
    let allowed = lab.allowed(&mut constraint);
    assert!(constraint.is_accepting().unwrap() && !constraint.is_finished());
    assert!(ends.iter().all(|id| allowed.contains(id)));
    let width = lab.env.tok_trie().vocab_size() as u32;
    assert!(allowed.iter().all(|id| *id < width));
    for end in ends {
        let mut ended = constraint.fork();
        ended.commit(end).unwrap();
        assert!(ended.is_finished() && ended.take_forced().unwrap().is_empty());
    }
}

#[test]
fn a_forbidden_token_is_an_error_and_forks_are_independent() {
    let lab = Lab::new(byte_env());
    let constraint = lab.compiler.compile_blocking("start: \"ab\"").unwrap();
    let mut wrong = constraint.fork();
    assert!(matches!(wrong.commit(u32::from(b'x')), Err(GrammarError::Internal(_))));
    assert!(lab.accepts(constraint, "ab"));
}

#[test]
fn bad_grammars_are_short_errors_and_the_threads_live_on() {
    let lab = Lab::new(byte_env());
    let bad = [
        "",
        "start: (",
        "start: nothing_like_this",
        "nope: \"a\"",
        "start: %json {\"type\": \"stsring\"}",
        "start: %json {",
        "start: %json {\"not\": {}}",
        "start: /(/",
        "start: %json {\"type\":\"string\",\"pattern\":\"(?=a)\"}",
    ];
    for lark in bad {
        match lab.compiler.compile_blocking(lark) {
            Err(GrammarError::Compile(message)) => {
                assert!(message.chars().count() <= 300 && !message.contains('\n') && !message.is_empty(), "{message}");
            }
            other => panic!("{lark}: {:?}", other.err()),
        }
    }
    assert!(lab.compiler.compile_blocking("start: \"a\"").is_ok());
}

#[tokio::test]
async fn async_callers_compile_many_at_once() {
    let compiler = GrammarCompiler::new(byte_env(), 2).unwrap();
    let (one, two, bad) = tokio::join!(
        compiler.compile("start: \"a\"".into()),
        compiler.compile("start: \"b\"".into()),
        compiler.compile("start: )".into())
    );
    assert!(one.is_ok() && two.is_ok() && bad.is_err());
}

#[test]
fn the_cache_is_bounded_and_returns_first_states() {
    let worker = Worker::new(&byte_env()).unwrap();
    for index in 0..100 {
        let mut constraint = worker.compile(&format!("start: \"{index}\"")).unwrap();
        constraint.take_forced().unwrap();
    }
    let cache = worker.cache.lock();
    assert_eq!(cache.entries.len(), CACHED_GRAMMARS);
    assert_eq!(cache.bytes, cache.entries.iter().map(|(key, _)| key.len()).sum::<usize>());
    drop(cache);
    let mut again = worker.compile("start: \"99\"").unwrap();
    assert_eq!(again.take_forced().unwrap(), [u32::from(b'9'), u32::from(b'9')]);
    assert_eq!((worker.counts.hits.into_inner(), worker.counts.misses.into_inner()), (1, 100));
}
