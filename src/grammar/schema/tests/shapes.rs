//! What the admitted copy accepts, text by text.

use crate::grammar::schema::admit;
use crate::grammar::testing::{Lab, byte_env, complaint};
use serde_json::{Value, json};

/// Checks texts that must be allowed and texts that must not.
pub(super) fn check(lab: &Lab, schema: &Value, allowed: &[&str], forbidden: &[&str]) {
    let constraint = lab.schema(&admit(schema).unwrap()).unwrap();
    for text in allowed {
        assert!(lab.accepts(constraint.fork(), text), "{schema} must allow {text}");
        assert_eq!(complaint(schema, text.as_bytes()), None);
    }
    for text in forbidden {
        assert!(!lab.accepts(constraint.fork(), text), "{schema} must forbid {text}");
    }
}

#[test]
fn numbers_are_bounded_and_exact() {
    let lab = Lab::new(byte_env());
    check(
        &lab,
        &json!({"type": "number"}),
        &["0", "-1.5", "1000000000000000"],
        &["1e5", "1000000000000001", "01", "-0"],
    );
    check(&lab, &json!({"type": "integer"}), &["9007199254740991", "-9007199254740991"], &["9007199254740992", "1.0"]);
    check(
        &lab,
        &json!({"exclusiveMinimum": 0, "type": "number"}),
        &["0.5", "0.000000000000001"],
        &["0", "-1", "0.0000000000000001"],
    );
    check(
        &lab,
        &json!({"exclusiveMaximum": 0.3, "type": "number"}),
        &["0.29", "0.2", "-4"],
        &["0.3", "0.299999999999999999999999999"],
    );
    check(&lab, &json!({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 4}), &["3"], &["2", "4"]);
    check(&lab, &json!({"type": "integer", "minimum": 1.5, "maximum": 3.5}), &["2", "3"], &["1", "4"]);
    check(&lab, &json!({"type": "number", "multipleOf": 5}), &["10", "-5", "0"], &["7", "2.5"]);
    check(
        &lab,
        &json!({"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 9}),
        &["0.25", "8.75", "3"],
        &["0.3"],
    );
    check(&lab, &json!({"type": "integer", "multipleOf": 1.5}), &["3", "-6"], &["1", "4"]);
    check(&lab, &json!({"type": "integer", "format": "int32"}), &["2147483647"], &["2147483648"]);
    check(&lab, &json!({"enum": [1.0, 2.5, -3, 0.1, -0.0]}), &["1", "2.5", "-3", "0.1"], &["1.5", "3"]);
}

#[test]
fn objects_are_closed_unless_they_say_otherwise() {
    let lab = Lab::new(byte_env());
    let a = json!({"a": {"type": "integer"}});
    check(&lab, &json!({"type": "object", "properties": a}), &["{}", r#"{"a":1}"#], &[r#"{"b":1}"#, r#"{"a": 1}"#]);
    let open = json!({"type": "object", "properties": a, "additionalProperties": {"type": "string"}});
    check(&lab, &open, &[r#"{"a":1,"b":"x"}"#, r#"{"b":"x"}"#], &[r#"{"a":"x"}"#, r#"{"b":1}"#, r#"{"\u0061":"x"}"#]);
    let forbidden = json!({"type": "object", "properties": {"a": false}, "additionalProperties": true});
    check(&lab, &forbidden, &["{}", r#"{"b":[1,{"c":null}]}"#], &[r#"{"a":1}"#]);
    check(&lab, &json!({"type": "object"}), &["{}", r#"{"x":{"y":[]}}"#], &["[]"]);
    let both = json!({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "null"}}}], "type": "object"});
    check(&lab, &both, &[r#"{"a":1,"b":null}"#, r#"{"b":null}"#], &[r#"{"c":1}"#, r#"{"a":null}"#]);
    let required = json!({"type": "object", "properties": a, "required": ["z", "a"]});
    check(&lab, &required, &[r#"{"a":1,"z":[true]}"#], &[r#"{"a":1}"#, r#"{"z":1}"#]);
    let patterns = json!({"type": "object", "properties": {"x_a": {"maximum": 5}}, "patternProperties": {"^x_": {"type": "integer"}}});
    check(&lab, &patterns, &[r#"{"x_a":4,"x_b":7}"#], &[r#"{"x_a":7}"#, r#"{"x_a":"s"}"#, r#"{"y":1}"#]);
}

#[test]
fn property_counts_are_enforced() {
    let lab = Lab::new(byte_env());
    let three = |extra: Value| {
        let mut schema =
            json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 1}, "c": {"const": 1}}});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        schema
    };
    let (a, ab, abc) = (r#"{"a":1}"#, r#"{"a":1,"b":1}"#, r#"{"a":1,"b":1,"c":1}"#);
    check(&lab, &three(json!({"minProperties": 1})), &[a, ab, abc, r#"{"c":1}"#], &["{}"]);
    check(&lab, &three(json!({"maxProperties": 1})), &["{}", a], &[ab]);
    check(&lab, &three(json!({"minProperties": 1, "maxProperties": 1})), &[a, r#"{"b":1}"#], &["{}", ab]);
    check(&lab, &three(json!({"minProperties": 3})), &[abc], &[a, ab]);
    check(&lab, &three(json!({"maxProperties": 1, "required": ["b"]})), &[r#"{"b":1}"#], &[ab]);
    check(&lab, &three(json!({"maxProperties": 0})), &["{}"], &[a]);
    let map = json!({"type": "object", "additionalProperties": {"const": 1}, "minProperties": 1, "maxProperties": 2});
    check(&lab, &map, &[a, ab], &["{}", abc]);
    check(&lab, &three(json!({"minProperties": 2})), &[ab, abc, r#"{"a":1,"c":1}"#, r#"{"b":1,"c":1}"#], &["{}", a]);
    check(&lab, &three(json!({"maxProperties": 2})), &["{}", a, ab, r#"{"b":1,"c":1}"#], &[abc]);
    check(&lab, &three(json!({"minProperties": 2, "maxProperties": 2})), &[ab, r#"{"a":1,"c":1}"#], &["{}", a, abc]);
    let free = json!({"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"const": 1}});
    let with = |keyword: &str, bound: u64| {
        let mut schema = free.clone();
        schema[keyword] = json!(bound);
        schema
    };
    check(&lab, &with("minProperties", 1), &[a, ab, r#"{"z":1}"#], &["{}"]);
    check(&lab, &with("maxProperties", 1), &["{}", a, r#"{"z":1}"#], &[ab]);
    check(&lab, &with("maxProperties", 0), &["{}"], &[a, r#"{"z":1}"#]);
    let two = [ab, r#"{"z":1,"y":1}"#];
    check(&lab, &with("minProperties", 2), &two, &["{}", a, r#"{"z":1}"#, r#"{"z":1,"z":1}"#]);
    check(&lab, &json!({"type": "object", "minProperties": 2}), &two, &["{}", a, r#"{"z":1,"z":1}"#]);
    let pattern = json!({"type": "object", "patternProperties": {"^(a|b.*)$": {}}, "minProperties": 2});
    assert!(admit(&pattern).is_err(), "a pattern's names may run out");
}

#[test]
fn a_map_never_repeats_a_key() {
    let lab = Lab::new(byte_env());
    let inner = json!({"type": "object", "additionalProperties": {"const": 1}});
    let map = json!({"type": "object", "properties": {"a": inner}, "additionalProperties": inner});
    let nested = r#"{"a":{"x":1,"y":1},"x":{"x":1},"xx":{}}"#;
    let bad = [r#"{"a":{"x":1,"x":1}}"#, r#"{"a":{},"x":{},"x":{}}"#, r#"{"a":{},"a":{}}"#, r#"{"\"":{},"\"":{}}"#];
    check(&lab, &map, &[nested, r#"{"\\":{},"\"":{}}"#], &bad);
}

#[test]
fn a_pattern_of_few_names_is_a_list_of_names() {
    let lab = Lab::new(byte_env());
    let one = json!({"const": 1});
    let codes = json!({"type": "object", "patternProperties": {"^(de|en)$": one}, "additionalProperties": false});
    let both = r#"{"de":1,"en":1}"#;
    check(&lab, &codes, &["{}", both, r#"{"en":1}"#], &[r#"{"de":1,"de":1}"#, r#"{"fr":1}"#, r#"{"de":2}"#]);
    let named = json!({"type": "object", "propertyNames": {"pattern": "^(de|en)$"}, "additionalProperties": one});
    check(&lab, &named, &["{}", both], &[r#"{"de":1,"de":1}"#, r#"{"fr":1}"#]);
    let open = json!({"type": "object", "patternProperties": {"^(de|en)$": one}, "additionalProperties": {"const": 2}});
    check(&lab, &open, &[both, r#"{"en":1,"fr":2}"#], &[r#"{"de":2}"#, r#"{"fr":1}"#]);
    let three = json!({"type": "object", "patternProperties": {"^k\\d$": one}, "additionalProperties": false, "maxProperties": 3});
    let four = r#"{"k1":1,"k2":1,"k3":1,"k4":1}"#;
    check(&lab, &three, &["{}", r#"{"k9":1,"k1":1,"k5":1}"#], &[r#"{"k1":1,"k1":1}"#, four]);
    let overlapping = json!({"type": "object", "patternProperties": {"^(de|en)$": one, "^d": {"type": "integer"}}});
    check(&lab, &overlapping, &[both, r#"{"dx":5}"#], &[r#"{"de":2}"#]);
}

#[test]
fn arrays_have_tuples_and_lengths() {
    let lab = Lab::new(byte_env());
    let tuple =
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": {"type": "boolean"}});
    check(&lab, &tuple, &["[]", "[1]", "[1,null]", "[1,null,true,false]"], &["[null]", "[1,null,3]"]);
    let old = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "integer"}], "additionalItems": false});
    check(&lab, &old, &["[]", "[1]"], &["[1,2]", "[null]"]);
    check(
        &lab,
        &json!({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 3}),
        &["[1,1]", "[1,1,1]"],
        &["[1]", "[1,1,1,1]"],
    );
    check(&lab, &json!({"type": "array", "prefixItems": [true, false]}), &["[]", "[1]"], &["[1,2]"]);
}

#[test]
fn exclusive_one_of_is_offered_as_alternatives() {
    let lab = Lab::new(byte_env());
    let shape = |kind: &str, field: &str| json!({"type": "object", "properties": {"kind": {"const": kind}, field: {"type": "integer"}}, "required": ["kind"]});
    let tagged = json!({"oneOf": [shape("circle", "r"), shape("square", "side")]});
    check(
        &lab,
        &tagged,
        &[r#"{"kind":"circle","r":1}"#, r#"{"kind":"square","side":2}"#],
        &[r#"{"kind":"circle","side":1}"#, "{}"],
    );
    let types = json!({"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]});
    check(&lab, &types, &[r#""a""#, "1", "null"], &["true"]);
    let keys = json!({"type": "object", "oneOf": [
        {"properties": {"a": {"type": "null"}}, "required": ["a"]}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]});
    check(&lab, &keys, &[r#"{"a":null}"#, r#"{"b":null}"#], &[r#"{"a":null,"b":null}"#, "{}"]);
    let values = json!({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]});
    check(&lab, &values, &["1", "3"], &["2"]);
    check(&lab, &json!({"enum": [1, 2, 3], "oneOf": [{"maximum": 2}, {"minimum": 2}]}), &["1", "3"], &["2"]);
}

#[test]
fn references_combine_and_recurse() {
    let lab = Lab::new(byte_env());
    let tree = json!({"$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
        "required": ["v"]}}, "$ref": "#/$defs/node"});
    check(&lab, &tree, &[r#"{"v":1}"#, r#"{"v":1,"next":{"v":2,"next":{"v":3}}}"#], &["{}"]);
    let escaped =
        json!({"$defs": {"a/b~c d": {"const": 1}}, "items": {"$ref": "#/$defs/a~1b~0c%20d"}, "type": "array"});
    check(&lab, &escaped, &["[1]"], &["[2]"]);
    let beside = json!({"$defs": {"s": {"type": "string", "minLength": 2}}, "$ref": "#/$defs/s", "maxLength": 2});
    check(&lab, &beside, &[r#""ab""#], &[r#""a""#, r#""abc""#]);
}

#[test]
fn strings_never_hold_what_readers_refuse() {
    let lab = Lab::new(byte_env());
    let forbidden = ["\"\n\"", "\"\u{7f}\"", r#""\ud800""#, r#""\u0061""#, r#""\/""#, "\"\t\""];
    check(&lab, &json!({"type": "string"}), &[r#""""#, r#""\n\"\\""#, "\"é🙂\""], &forbidden);
    check(&lab, &json!({"type": "string", "maxLength": 1}), &["\"🙂\"", r#""\n""#], &["\"ab\""]);
}

#[test]
fn answers_of_recursive_schemas_have_bounded_nesting() {
    let lab = Lab::new(byte_env());
    for schema in [json!({}), json!({"type": "array", "items": {"$ref": "#"}})] {
        let constraint = lab.schema(&admit(&schema).unwrap()).unwrap();
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(lab.accepts(constraint.fork(), &nested(15)));
        assert!(!lab.accepts(constraint, &nested(100)));
    }
}
