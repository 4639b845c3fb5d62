//! Schemas that would overflow a recursive compiler's stack are refused over HTTP, and the process lives on.

use crate::support::{Server, cases};
use callsmith::grammar::{GrammarError, schema};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Larger request bodies are refused unread.
const MAX_BODY: usize = 2 * 1024 * 1024;
const DEPTHS: [usize; 8] = [70, 218, 900, 7_400, 20_000, 33_000, 60_000, 100_000];
const FORMS: usize = 12;

/// How a definition can refer to the next one.
fn link(form: usize, next: &str) -> String {
    let nested = |levels: usize| {
        let open = r#"{"type":"array","items":"#.repeat(levels);
        format!("{open}{next}{}", "}".repeat(levels))
    };
    match form {
        0 => next.to_owned(),
        1 => format!(r#"{{"properties":{{"a":{next}}}}}"#),
        2 => format!(r#"{{"type":"object","properties":{{"a":{next}}}}}"#),
        3 => format!(r#"{{"items":{next}}}"#),
        4 => format!(r#"{{"anyOf":[{next}]}}"#),
        5 => format!(r#"{{"anyOf":[{next},{{"type":"null"}}]}}"#),
        6 => format!(r#"{{"allOf":[{next}]}}"#),
        7 => format!(r#"{},"type":"integer"}}"#, next.trim_end_matches('}')),
        8 => format!(r#"{{"additionalProperties":{next}}}"#),
        9 => format!(r#"{{"patternProperties":{{"^a":{next}}}}}"#),
        10 => nested(3),
        _ => nested(20),
    }
}

/// A chain of definitions, as text: deep values must not be built here either.
fn chain(form: usize, depth: usize) -> String {
    let mut text = String::from(r##"{"$ref":"#/$defs/0","$defs":{"##);
    for level in 0..depth {
        let next = format!(r##"{{"$ref":"#/$defs/{}"}}"##, level + 1);
        write!(text, r#""{level}":{},"#, link(form, &next)).unwrap();
    }
    write!(text, r#""{depth}":{{"type":"integer"}}}}}}"#).unwrap();
    text
}

/// Plain nesting of three kinds, in an object.
fn nesting(kind: usize, depth: usize) -> String {
    let (open, close) =
        [(r#"{"type":"array","items":"#, "}"), (r#"{"properties":{"a":"#, "}}"), (r#"{"anyOf":[{"items":"#, "}]}")]
            [kind];
    let inner = format!(r#"{}{{"type":"null"}}{}"#, open.repeat(depth), close.repeat(depth));
    format!(r#"{{"type":"object","properties":{{"x":{inner}}}}}"#)
}

fn as_parameters(schema: &str) -> String {
    format!(
        r#"{{"model":"base","messages":[{{"role":"user","content":"x"}}],"max_tokens":1,
        "tools":[{{"type":"function","function":{{"name":"deep","parameters":{schema}}}}}]}}"#
    )
}

fn as_format(schema: &str) -> String {
    format!(
        r#"{{"model":"base","messages":[{{"role":"user","content":"x"}}],"max_tokens":1,
        "response_format":{{"type":"json_schema","json_schema":{{"name":"deep","schema":{schema}}}}}}}"#
    )
}

/// Sends a schema in both places; each is refused as too complex, or unread for its size or its JSON's depth.
fn refused_in_both_places(server: &mut Server, schema: &str, what: &str) {
    let places = [(as_parameters(schema), "invalid_function_parameters"), (as_format(schema), "invalid_json_schema")];
    for (body, code) in places {
        let reply = server.client().post("/v1/chat/completions", &body);
        assert!(server.is_alive(), "{what} killed the server");
        if body.len() > MAX_BODY {
            // The connection may break while the rest of the body is under way.
            assert!(reply.is_err() || reply.unwrap().0 == 413, "{what}");
            continue;
        }
        let (status, text) = reply.unwrap();
        assert_eq!(status, 400, "{what}: {text}");
        let unread = text.contains("invalid_json") && text.contains("recursion limit");
        let too_complex = text.contains(code) && text.contains("schema_too_complex");
        assert!(unread || too_complex, "{what}: {text}");
    }
}

#[test]
fn reference_chains_of_every_form_and_depth_leave_the_server_alive() {
    let mut server = Server::start(&[]);
    for form in 0..FORMS {
        for depth in DEPTHS {
            refused_in_both_places(&mut server, &chain(form, depth), &format!("form {form}, depth {depth}"));
        }
    }
    let good = as_format(r#"{"type":"object","properties":{"a":{"type":"boolean"}},"required":["a"]}"#);
    assert_eq!(server.chat(&good).0, 200);
}

#[test]
fn nesting_of_every_kind_and_depth_leaves_the_server_alive() {
    let mut server = Server::start(&[]);
    for kind in 0..3 {
        for depth in [40, 60, 130, 1_000, 20_000, 60_000, 100_000] {
            refused_in_both_places(&mut server, &nesting(kind, depth), &format!("kind {kind}, depth {depth}"));
        }
    }
    assert_eq!(server.chat(&as_format(r#"{"type":"boolean"}"#)).0, 200);
}

/// What no request body can hold: chains of full depth, on the stack of an ordinary thread.
#[test]
fn chains_beyond_any_request_are_refused_on_a_small_stack() {
    let depth = cases(10_000, 100_000);
    let judge = move || {
        for form in 0..FORMS {
            let text = chain(form, depth);
            let schema: Map<String, Value> = serde_json::from_str(&text).unwrap();
            let refused = schema::admit(&Value::Object(schema));
            assert!(matches!(refused, Err(GrammarError::TooComplex { .. })), "form {form}: {refused:?}");
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(judge).unwrap().join().unwrap();
    assert!(schema::admit(&json!({"type": "boolean"})).is_ok());
}
