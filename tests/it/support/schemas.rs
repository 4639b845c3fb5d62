//! The schemas that random decoding is tried on.

use serde_json::{Value, json};

pub(crate) const COUNT: usize = 60;

/// Sixty schemas: every keyword that tools commonly use, alone and together.
pub(crate) fn schemas() -> Vec<Value> {
    let word = json!({"type": "string", "maxLength": 6});
    let one = |schema: Value| json!({"type": "object", "properties": {"x": schema}, "required": ["x"]});
    let mut all: Vec<Value> = [
        json!({"type": "string"}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "time"}),
        json!({"type": "string", "enum": ["a", "b\"c", "日本", ""]}),
        json!({"const": {"fixed": [1, null]}}),
        json!({"enum": [1, 2.5, -3, null, true, "mixed"]}),
        json!({"type": "integer"}),
        json!({"type": "integer", "minimum": -17, "maximum": 230}),
        json!({"type": "integer", "exclusiveMinimum": 0}),
        json!({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}),
        json!({"type": "number"}),
        json!({"type": "number", "minimum": 0.25, "maximum": 7.75}),
        json!({"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 1}),
        json!({"type": "boolean"}),
        json!({"type": "null"}),
        json!({"type": ["string", "null"], "maxLength": 4}),
        json!({"type": ["integer", "boolean"]}),
        json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 4}),
        json!({"type": "array", "items": word, "minItems": 1, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "integer"}], "items": false, "minItems": 2}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 2}),
        json!({"type": "array", "items": {"type": "object", "properties": {"k": word}, "required": ["k"]}, "maxItems": 2}),
        json!({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"v": {"type": "boolean"}}, "required": ["v"]}]}),
        json!({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}),
        json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "object", "properties": {"c": word}}}}}}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2}),
    ]
    .into_iter()
    .map(one)
    .collect();
    let shared = json!({"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x", "y"]}});
    all.extend([
        json!({"type": "object", "properties": {}}),
        json!({"type": "object", "properties": {"a": word, "b": word, "c": word}}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["b"]}),
        json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": false}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "title": "T", "type": "object", "properties": {"n": {"type": "integer", "title": "N", "default": 3}}, "required": ["n"]}),
        json!({"type": "object", "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}, "required": ["from"], "$defs": shared}),
        json!({"type": "object", "properties": {"p": {"allOf": [{"$ref": "#/definitions/point"}]}}, "required": ["p"], "definitions": shared}),
        json!({"type": "object", "properties": {"weird key \"é\"": {"type": "boolean"}, "": {"type": "null"}}, "required": [""]}),
        json!({"type": "object", "properties": {"city": word, "days": {"type": "integer", "minimum": 1, "maximum": 14}, "unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["city"]}),
        json!({"type": "object", "properties": {"tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3}, "exact": {"type": "boolean"}}, "required": ["tags"]}),
        json!({"type": "object", "properties": {"who": {"type": "object", "properties": {"name": word, "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"]}, "note": {"type": ["string", "null"], "maxLength": 5}}, "required": ["who", "note"]}),
        json!({"type": "object", "properties": {"when": {"type": "string", "format": "date-time"}, "every": {"type": "number", "minimum": 0.5, "maximum": 24}}, "required": ["when"]}),
    ]);
    all.extend(more());
    assert_eq!(all.len(), COUNT);
    all
}

/// Shapes in which keywords meet: through references, alternatives, tuples, patterns, recursion.
fn more() -> Vec<Value> {
    let object =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let word = json!({"type": "string", "maxLength": 5});
    vec![
        object(json!({"x": {"const": 0.5}, "y": {"enum": [false]}}), json!(["y"])),
        object(json!({"id": {"type": "string", "format": "uuid"}}), json!(["id"])),
        object(json!({"ip": {"type": "string", "format": "ipv4"}}), json!(["ip"])),
        object(json!({"x": {"type": "string", "pattern": "^(a|bc){1,3}$", "maxLength": 4}}), json!(["x"])),
        object(json!({"x": {"type": "string", "pattern": "^\\d+$", "maxLength": 4}}), json!(["x"])),
        object(json!({"x": {"type": "number", "multipleOf": 0.5, "minimum": -2, "maximum": 2}}), json!(["x"])),
        object(json!({"x": {"type": "integer", "minimum": 999, "maximum": 1001}}), json!(["x"])),
        object(json!({"x": {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0}]}}), json!(["x"])),
        object(json!({"x": {"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 9}]}}), json!(["x"])),
        object(json!({"x": {"allOf": [word, {"minLength": 2}]}}), json!(["x"])),
        object(
            json!({"x": {"type": "array", "prefixItems": [word, {"type": "null"}], "items": {"type": "boolean"}, "maxItems": 3}}),
            json!(["x"]),
        ),
        object(
            json!({"x": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "integer", "maximum": 3}]}, "maxItems": 3}}),
            json!(["x"]),
        ),
        object(
            json!({"x": {"type": "object", "patternProperties": {"^k[0-9]$": {"type": "boolean"}}, "additionalProperties": false, "maxProperties": 2}}),
            json!(["x"]),
        ),
        object(
            json!({"x": {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "boolean"}}}),
            json!(["x"]),
        ),
        object(
            json!({"x": {"type": ["array", "object", "null"], "items": {"type": "null"}, "maxItems": 2, "additionalProperties": false}}),
            json!(["x"]),
        ),
        object(json!({"x": {"enum": [[1, 2], {"a": "b"}, "c", null]}}), json!(["x"])),
        json!({"type": "object", "properties": {"tree": {"$ref": "#/$defs/node"}}, "required": ["tree"], "$defs": {"node": {"type": "object", "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/node"}}, "required": ["v"]}}}),
        json!({"type": "object", "properties": {"value": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"$ref": "#/properties/value"}, "maxItems": 2}]}}, "required": ["value"]}),
        json!({"type": "object", "required": ["kind"], "anyOf": [{"properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}, "required": ["n"]}, {"properties": {"kind": {"const": "b"}, "s": word}, "required": ["s"]}]}),
        json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": {"type": "integer"}}),
    ]
}

#[test]
fn every_one_of_them_can_be_enforced() {
    let admitted = |schema: &Value| callsmith::grammar::schema::admit_parameters(&Some(schema.clone()));
    let refused: Vec<_> = schemas().into_iter().filter_map(|schema| Some((admitted(&schema).err()?, schema))).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
