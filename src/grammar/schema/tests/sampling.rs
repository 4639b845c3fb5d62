//! The promise, by trial: what random decoding finishes parses and validates against the caller's own schema.

use crate::grammar::schema::admit;
use crate::grammar::testing::{Lab, Random, WordEnv, byte_env, complaint};
use serde_json::{Value, json};

const SAMPLES: u64 = 40;
const LIMIT: usize = 300;

fn string(keyword: &str, value: impl Into<Value>) -> Value {
    json!({"type": "string", keyword: value.into()})
}

fn scalars() -> Vec<Value> {
    vec![
        json!({"type": "number"}),
        json!({"type": "integer"}),
        json!({"type": "number", "minimum": -2.5, "exclusiveMaximum": 1e-3}),
        json!({"type": "number", "minimum": 0.1, "maximum": 0.123_456_789_012_345_6}),
        json!({"type": "number", "exclusiveMinimum": 0}),
        json!({"type": "number", "exclusiveMinimum": 0.299_999_999_999_999_9, "exclusiveMaximum": 0.300_000_000_000_000_1}),
        json!({"type": "number", "multipleOf": 0.01, "minimum": 0}),
        json!({"type": "number", "multipleOf": 0.3}),
        json!({"type": "integer", "multipleOf": 7, "minimum": -100}),
        json!({"type": "integer", "minimum": -1_000_000, "maximum": 12_345}),
        json!({"type": "string"}),
        string("minLength", 3),
        string("maxLength", 4),
        string("pattern", "^[a-z]{2,5}(-[0-9]+)?$"),
        string("pattern", r"\d{3}"),
        string("pattern", r"^\s\S\s$"),
        string("pattern", r"^a|b$"),
        string("pattern", r"(^x$)|(^y)"),
        string("pattern", r"^(a|b)*c?$|^$"),
        string("pattern", r"[^\w\s]{2}"),
        string("pattern", r"^[\s\S]{1,3}$"),
        string("pattern", r"^.+@.+\..+$"),
        string("pattern", r"^\p{Lu}\p{Ll}+$"),
        string("pattern", r#"^["\\/\n]{1,4}$"#),
        json!({"type": "string", "pattern": "^[ab]*$", "minLength": 2, "maxLength": 5, "format": "hostname"}),
        string("format", "uuid"),
        string("format", "date"),
        string("format", "time"),
        string("format", "date-time"),
        string("format", "duration"),
        string("format", "ipv4"),
        string("format", "ipv6"),
        string("format", "email"),
        string("format", "hostname"),
        string("format", "uri"),
        json!({"enum": ["a", "a b", "\"quoted\"\n", "日本", 1, 2.5, -3, true, null, [1, {"k": []}], {"z": "y", "a": 0.1}]}),
        json!({"const": {"nested": [1, 2.0, "x"]}}),
        json!({"type": ["string", "null"], "maxLength": 3}),
        json!({"type": ["integer", "number", "boolean"]}),
        json!({}),
        json!(true),
        json!({"minLength": 2, "minimum": 4, "maxItems": 1}),
    ]
}

fn structures() -> Vec<Value> {
    let point = json!({"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x", "y"]});
    vec![
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": point}, "required": ["b"]}),
        json!({"type": "object", "properties": {"a": {}, "b": true}}),
        json!({"type": "object"}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "": {"const": 1}}, "additionalProperties": true}),
        json!({"type": "object", "patternProperties": {"^a": {"type": "integer"}, "^b": {"type": "string"}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"ab": {"maximum": 9}}, "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "null"}}),
        json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "minProperties": 1}),
        json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "maxProperties": 1}),
        json!({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1, "maxProperties": 2}),
        json!({"type": "object", "required": ["x"]}),
        json!({"type": "array"}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["a", "b"]}], "items": false}),
        json!({"type": "array", "prefixItems": [{"type": "null"}], "items": point, "minItems": 1}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "maxItems": 2}),
        json!({"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}, point]}),
        json!({"anyOf": [point, {"type": "object", "properties": {"x": {"type": "string"}}}], "type": "object"}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]}),
        json!({"oneOf": [{"type": "object", "properties": {"t": {"const": "a"}, "v": {}}, "required": ["t"]}, {"type": "object", "properties": {"t": {"const": "b"}}, "required": ["t"]}]}),
        json!({"oneOf": [{"type": "array", "items": {"type": "integer"}, "minItems": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "null"}]}),
        json!({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 4}]}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"minimum": 1}}}, {"properties": {"a": {"type": "integer", "maximum": 3}, "b": {"type": "string"}}, "required": ["a"]}]}),
        json!({"allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"minLength": 1, "minimum": 5}, {"type": "null"}]}]}),
        json!({"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, {"properties": {"b": {}}}], "type": "object"}),
        json!({"$defs": {"n": {"type": "object", "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "required": ["v"]}}, "$ref": "#/$defs/n"}),
        json!({"type": "object", "properties": {"l": {"$ref": "#"}, "r": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "op": {"enum": ["+", "*"]}}, "required": ["op"]}),
        json!({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}}, "b": {"type": "object", "additionalProperties": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
        json!({"$defs": {"s": {"type": "string", "minLength": 1}}, "type": "object", "properties": {"k": {"$ref": "#/$defs/s", "maxLength": 3, "description": "d"}}, "required": ["k"]}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"e": {"enum": ["x", "y"]}}, "type": "array", "items": [{"$ref": "#/definitions/e"}], "additionalItems": {"type": "integer"}}),
        json!({"type": "object", "properties": {"q\"uote\\": {"const": "v\"\\"}, "tab\t": {"type": "null"}, "ключ": {"type": "boolean"}}, "required": ["ключ"]}),
        json!({"type": "object", "properties": {"location": {"type": "string", "description": "City"}, "unit": {"type": "string", "enum": ["c", "f"]}, "days": {"type": "integer", "minimum": 1, "maximum": 14}, "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3}}, "required": ["location"], "additionalProperties": false}),
    ]
}

/// Finished samples of one schema; every one keeps the promise.
fn decode(lab: &Lab, schema: &Value) -> usize {
    let admitted = admit(schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
    let constraint = lab.schema(&admitted).unwrap_or_else(|error| panic!("{schema}: {error}\n{admitted}"));
    let mut finished = 0;
    for seed in 0..SAMPLES {
        if let Some(text) = lab.sample(constraint.fork(), &mut Random::new(seed + 1), LIMIT) {
            finished += 1;
            assert_eq!(complaint(schema, &text), None, "schema {schema}\nadmitted {admitted}");
        }
    }
    assert!(finished >= 5, "{schema} finished {finished} times");
    finished
}

#[test]
fn random_decoding_byte_by_byte_is_always_valid() {
    let lab = Lab::new(byte_env());
    let finished: usize = scalars().iter().chain(&structures()).map(|schema| decode(&lab, schema)).sum();
    assert!(finished > 2_000, "{finished} samples");
}

#[test]
fn random_decoding_of_words_is_always_valid() {
    let lab = Lab::new(WordEnv::shared());
    let finished: usize = scalars().iter().chain(&structures()).map(|schema| decode(&lab, schema)).sum();
    assert!(finished > 2_000, "{finished} samples");
}

const TYPES: [&str; 7] = ["string", "integer", "null", "boolean", "number", "array", "object"];

/// A small random schema over few names and values, so that its parts often meet.
fn random_schema(random: &mut Random, depth: usize) -> Value {
    let name = |random: &mut Random| ["a", "b", "c"][random.below(3)].to_owned();
    let below = |random: &mut Random, keyword: &str| match random.below(2) {
        0 => json!({"minimum": random.below(5), "minLength": random.below(3), "minItems": random.below(3)}),
        _ => json!({keyword: random.below(6)}),
    };
    let kind = if depth == 0 { random.below(6) } else { random.below(14) };
    let list =
        |random: &mut Random| (0..1 + random.below(3)).map(|_| random_schema(random, depth - 1)).collect::<Vec<_>>();
    let map = |random: &mut Random| {
        (0..random.below(4))
            .map(|_| (name(random), random_schema(random, depth - 1)))
            .collect::<serde_json::Map<_, _>>()
    };
    match kind {
        0 => json!({"type": TYPES[random.below(7)]}),
        1 => json!({"enum": [random.below(3), "a", null, 1.5]}),
        2 => json!({"const": (["a", "b"][random.below(2)])}),
        3 => below(random, "maximum"),
        4 => below(random, "maxLength"),
        5 => json!(random.below(4) > 0),
        6 => json!({"anyOf": list(random)}),
        7 => json!({"allOf": list(random)}),
        8 => json!({"oneOf": list(random)}),
        9 => {
            json!({"type": "array", "prefixItems": list(random), "items": random_schema(random, depth - 1), "maxItems": 3})
        }
        10 => json!({"properties": map(random), "required": [name(random)]}),
        11 => {
            json!({"type": "object", "properties": map(random), "additionalProperties": random_schema(random, depth - 1)})
        }
        12 => json!({"properties": map(random), "minProperties": random.below(3), "maxProperties": random.below(4)}),
        _ => {
            let mut both = json!({"properties": map(random), "type": "object"});
            both["anyOf"] = json!(list(random));
            both
        }
    }
}

/// `CALLSMITH_TRIALS` asks for more schemas than a quick run tries.
#[test]
fn random_schemas_are_refused_or_keep_the_promise() {
    let trials = std::env::var("CALLSMITH_TRIALS").ok().and_then(|count| count.parse().ok()).unwrap_or(250);
    let lab = Lab::new(byte_env());
    let mut random = Random::new(trials);
    let (mut admitted, mut finished) = (0, 0);
    for _ in 0..trials {
        let schema = random_schema(&mut random, 3);
        let Ok(constraint) = admit(&schema).and_then(|copy| lab.schema(&copy)) else { continue };
        admitted += 1;
        for _ in 0..4 {
            let Some(text) = lab.sample(constraint.fork(), &mut random, 100) else { continue };
            finished += 1;
            assert_eq!(complaint(&schema, &text), None, "schema {schema}");
        }
    }
    assert!(admitted > trials / 3 && finished > trials, "{admitted} admitted, {finished} samples");
}
