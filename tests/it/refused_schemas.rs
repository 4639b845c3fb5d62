//! Schemas that mean nothing, or nothing enforceable, are a 400 that names the tool: before any byte of a stream, never a 200.

use crate::support::{Random, TestServer, cases, tool, weather_request};
use serde_json::{Value, json};

/// Schemas that nothing satisfies or that are malformed; `n` varies them.
fn faults(n: usize) -> Vec<Value> {
    let name = ["text", "stsring", "int", "", "Object", "any of", "NULL", "decimal", "[]", "date"][n % 10];
    let number = n as i64;
    vec![
        json!({"type": format!("{name}{n}")}),
        json!({"type": ["string", format!("{name}{n}")]}),
        json!({"type": n}),
        json!({"type": []}),
        json!({"type": {"name": name}}),
        json!({"enum": []}),
        json!({"enum": name}),
        json!({"enum": {"a": n}}),
        json!({"$ref": format!("#/$defs/absent{n}")}),
        json!({"$ref": format!("#/properties/absent{n}/items")}),
        json!({"$ref": n}),
        json!({"$ref": format!("other{n}.json")}),
        json!({"$ref": format!("#anchor{n}")}),
        json!({"type": "integer", "minimum": number + 1, "maximum": number}),
        json!({"type": "integer", "exclusiveMinimum": number, "exclusiveMaximum": number + 1}),
        json!({"type": "number", "minimum": number, "exclusiveMaximum": number}),
        json!({"type": "integer", "multipleOf": n + 7, "minimum": 1, "maximum": n + 6}),
        json!({"type": "integer", "multipleOf": 0}),
        json!({"type": "integer", "multipleOf": -1 - number}),
        json!({"type": "string", "minLength": n + 1, "maxLength": n}),
        json!({"type": "string", "maxLength": -1 - number}),
        json!({"type": "string", "minLength": "3"}),
        json!({"type": "string", "pattern": format!("({n}")}),
        json!({"type": "string", "pattern": format!("[z-a]{n}")}),
        json!({"type": "string", "pattern": format!("(?=a)a{n}")}),
        json!({"type": "string", "pattern": format!("(a)\\1{{{}}}", n + 1)}),
        json!({"type": "string", "pattern": n}),
        json!({"type": "string", "format": format!("no-format-{n}")}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": n + 1, "maxItems": n}),
        json!({"type": "array", "items": false, "minItems": n + 1}),
        json!({"type": "array", "items": n}),
        json!({"type": "array", "prefixItems": {}}),
        json!({"type": "object", "required": ["a"], "properties": {"a": false}}),
        json!({"type": "object", "required": [format!("r{n}")], "additionalProperties": false}),
        json!({"type": "object", "required": "a"}),
        json!({"type": "object", "required": [n]}),
        json!({"type": "object", "properties": [name]}),
        json!({"type": "object", "properties": {"a": n}}),
        json!({"type": "object", "minProperties": n + 2, "maxProperties": n + 1}),
        json!({"type": "object", "minProperties": 1, "additionalProperties": false}),
        json!({"anyOf": []}),
        json!({"allOf": [{"type": "string"}, {"type": "integer", "minimum": n}]}),
        json!({"anyOf": [{"type": "string", "enum": [n]}, {"type": "integer", "enum": [name]}]}),
        json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        json!({"const": name, "type": "integer"}),
        json!({"const": n, "enum": [n + 1]}),
        json!(false),
        json!(n),
        json!([name]),
        json!(null),
    ]
}

/// Puts a schema where every instance must meet it.
fn wrap(kind: usize, inner: &Value, n: usize) -> Value {
    match kind % 6 {
        0 => json!({"type": "object", "properties": {"x": inner}, "required": ["x"]}),
        1 => {
            json!({"type": "object", "properties": {format!("k{n}"): inner, "y": {"type": "null"}}, "required": [format!("k{n}")]})
        }
        2 => json!({"type": "array", "items": inner, "minItems": 1, "maxItems": n % 5 + 1}),
        3 => json!({"allOf": [inner]}),
        4 => json!({"anyOf": [inner]}),
        _ => json!({"type": "array", "prefixItems": [{"type": "null"}, inner], "minItems": 2}),
    }
}

/// References that lead nowhere but back.
fn loops(n: usize) -> Value {
    let own = json!({"$ref": "#"});
    match n % 6 {
        0 => own,
        1 => json!({"type": "object", "properties": {format!("p{n}"): own}, "required": [format!("p{n}")]}),
        2 => {
            json!({"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#/properties/x"}, "n": {"const": n}}})
        }
        3 => {
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}, "c": {"const": n}}})
        }
        4 => {
            json!({"type": "object", "required": ["x"], "properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": n}]}}})
        }
        _ => {
            json!({"type": "object", "required": ["x"], "properties": {"x": {"type": "array", "minItems": n % 3 + 1, "items": own}}})
        }
    }
}

/// Invalid schema number `index`: a fault under up to three wrappers, in an object.
fn invalid(index: usize) -> Value {
    if index % 10 == 9 {
        return loops(index / 10);
    }
    let mut random = Random(index as u64);
    let all = faults(random.below(60));
    let mut schema = all[index % all.len()].clone();
    for _ in 0..random.below(3) {
        schema = wrap(random.below(6), &schema, random.below(100));
    }
    wrap(random.below(2), &schema, index)
}

#[tokio::test]
async fn an_invalid_schema_is_refused_by_the_name_of_its_tool_before_any_byte_of_an_answer() {
    let server = TestServer::start();
    for index in 0..cases(1_000, 2_000) {
        let schema = invalid(index);
        let mut body = weather_request();
        body["stream"] = json!(index % 2 == 1);
        let name = format!("bad_{index}");
        body["tools"].as_array_mut().unwrap().push(tool(&name, &schema));
        let reply = server.chat(&body).await;
        assert_eq!(reply.status, 400, "{schema}: {}", reply.text);
        assert_eq!(reply.headers["content-type"], "application/json");
        let expected = (400, "tools[1].function.parameters".to_owned(), "invalid_function_parameters".to_owned());
        assert_eq!(reply.refusal(), expected, "{schema}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(&format!("'{name}'")), "{}", reply.text);
    }
    assert_eq!(server.state.engine.stats().steps, 0, "a refused request reached the engine");
    assert_eq!(server.chat(&weather_request()).await.status, 200);
}

#[tokio::test]
async fn an_invalid_answer_schema_is_refused_before_any_byte_of_an_answer() {
    let server = TestServer::start();
    for index in 0..cases(500, 2_000) {
        let schema = invalid(index);
        let mut body = weather_request();
        body.as_object_mut().unwrap().remove("tools");
        body["stream"] = json!(index % 2 == 1);
        body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let refusal = server.chat(&body).await.refusal();
        assert_eq!(refusal, (400, "response_format".to_owned(), "invalid_json_schema".to_owned()), "{schema}");
    }
    assert_eq!(server.state.engine.stats().steps, 0, "a refused request reached the engine");
}

/// Status of a request whose only tool has this schema as a property's, and what the error says.
async fn tried(server: &TestServer, property: &Value, strict: bool) -> (u16, String) {
    let mut parameters = json!({"type": "object", "properties": {"x": property}, "required": ["x"]});
    if strict {
        parameters["additionalProperties"] = json!(false);
    }
    let mut body = weather_request();
    body["tools"] = json!([tool("tried", &parameters)]);
    body["tools"][0]["function"]["strict"] = json!(strict);
    body["max_tokens"] = json!(1);
    let reply = server.chat(&body).await;
    (reply.status.as_u16(), reply.text)
}

#[tokio::test]
async fn no_keyword_is_silently_ignored_and_none_reaches_the_compilers_options() {
    let server = TestServer::start();
    let string = |key: &str, value: Value| json!({"type": "string", "maxLength": 4, key: value});
    let typos = [
        "minLenght",
        "maxlength",
        "Pattern",
        "enums",
        "requried",
        "propertys",
        "additionalproperties",
        "exclusiveMin",
        "oneof",
        "any_of",
        "foo",
        "",
        "const ",
        "minimun",
    ];
    for strict in [false, true] {
        for guidance in [json!({"lenient": true}), json!({}), json!(null), json!({"whitespace_flexible": true})] {
            let (status, text) = tried(&server, &string("x-guidance", guidance), strict).await;
            assert!(status == 400 && text.contains("x-guidance"), "{text}");
        }
        for typo in typos {
            let (status, text) = tried(&server, &string(typo, json!(3)), strict).await;
            let named = text.contains(if strict { "is not permitted" } else { "unknown" });
            assert!(status == 400 && named, "{typo:?}: {text}");
        }
        let unenforced = [
            ("not", json!({"pattern": "a"})),
            ("$id", json!("x")),
            ("$anchor", json!("x")),
            ("$dynamicRef", json!("#x")),
            ("id", json!("x")),
        ];
        for (key, value) in unenforced {
            let (status, text) = tried(&server, &string(key, value), strict).await;
            assert!(status == 400 && text.contains(key), "{key}: {text}");
        }
    }
}

#[tokio::test]
async fn notes_that_constrain_nothing_are_taken() {
    let server = TestServer::start();
    for (key, value) in [
        ("title", json!("T")),
        ("description", json!("d")),
        ("default", json!("a")),
        ("examples", json!(["a"])),
        ("deprecated", json!(true)),
        ("$comment", json!("c")),
        ("x-order", json!(3)),
    ] {
        let (status, text) = tried(&server, &json!({"type": "string", "maxLength": 4, key: value}), false).await;
        assert_eq!(status, 200, "{key}: {text}");
    }
}
