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
        json!({"type": "string", "not": {"enum": ["a", "ab", "", "\"", "é"]}, "maxLength": 3}),
        json!({"type": "number", "minimum": 0, "maximum": 3, "not": {"enum": [1, 2, 0.5]}}),
        json!({"not": {"type": ["string", "object", "array"]}}),
        json!({"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["kind"],
            "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["n"]}, "else": {"required": ["s"]}}),
        json!({"type": "object", "properties": {"card": {"type": "integer"}, "address": {"type": "string"}}, "dependentRequired": {"card": ["address"]}}),
        json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": true}),
        json!({"type": "array", "items": {"enum": [1, 2, 3, 4, 5, 6, 7]}, "uniqueItems": true, "minItems": 2}),
        json!({"type": "array", "contains": {"const": 1}, "maxItems": 3, "minContains": 1, "maxContains": 2}),
        json!({"type": "object", "propertyNames": {"pattern": "^[a-c]{1,2}$"}, "additionalProperties": {"type": "null"}}),
        json!({"oneOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 5}, {"type": "null"}]}),
        json!({"allOf": [{"properties": {"a": {"type": "null"}}}], "type": "object", "properties": {"b": {"type": "boolean"}}, "unevaluatedProperties": false}),
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
