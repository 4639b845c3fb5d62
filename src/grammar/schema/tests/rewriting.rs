//! What rewriting makes of conditions, negations and the like, text by text.

use super::shapes::check;
use crate::grammar::testing::{Lab, byte_env};
use serde_json::json;

#[test]
fn a_negated_constant_is_never_written() {
    let lab = Lab::new(byte_env());
    let word = json!({"type": "string", "not": {"enum": ["a", "abc"]}});
    check(&lab, &word, &[r#""""#, r#""b""#, r#""ab""#, r#""abcd""#], &[r#""a""#, r#""abc""#]);
    let number = json!({"type": "integer", "minimum": 0, "maximum": 4, "not": {"enum": [1, 3, "x"]}});
    check(&lab, &number, &["0", "2", "4"], &["1", "3", "5"]);
    check(&lab, &json!({"type": ["boolean", "null"], "not": {"const": false}}), &["true", "null"], &["false"]);
    check(&lab, &json!({"type": "number", "not": {"const": 0.5}}), &["0.4", "0.51", "0"], &["0.5", "0.50"]);
    check(&lab, &json!({"enum": ["x", "y", 1], "not": {"enum": ["y", 1]}}), &[r#""x""#], &[r#""y""#, "1"]);
}

#[test]
fn negated_bounds_and_types_are_the_other_side() {
    let lab = Lab::new(byte_env());
    check(&lab, &json!({"type": "integer", "not": {"minimum": 5}}), &["4"], &["5", "6"]);
    check(&lab, &json!({"type": "string", "not": {"maxLength": 1}}), &[r#""ab""#], &[r#""a""#]);
    check(
        &lab,
        &json!({"not": {"type": ["string", "null", "object", "array"]}}),
        &["1", "true"],
        &[r#""a""#, "null", "{}"],
    );
    check(&lab, &json!({"type": "integer", "not": {"not": {"minimum": 2}}}), &["2"], &["1"]);
    check(
        &lab,
        &json!({"type": "integer", "not": {"anyOf": [{"minimum": 5}, {"const": 1}]}}),
        &["0", "4"],
        &["1", "5"],
    );
    check(&lab, &json!({"type": "array", "not": {"contains": {"const": 1}}}), &["[]", "[2]"], &["[1]", "[2,1]"]);
}

#[test]
fn a_negated_requirement_is_an_absent_property() {
    let lab = Lab::new(byte_env());
    let not_both = json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 1}}, "not": {"required": ["a", "b"]}});
    check(&lab, &not_both, &["{}", r#"{"a":1}"#, r#"{"b":1}"#], &[r#"{"a":1,"b":1}"#]);
    let open = json!({"type": "object", "not": {"required": ["a"]}});
    check(&lab, &open, &["{}", r#"{"b":[]}"#], &[r#"{"a":1}"#]);
}

#[test]
fn a_discriminator_decides_what_follows() {
    let lab = Lab::new(byte_env());
    let schema = json!({
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "x": {"type": "integer"}, "y": {"type": "null"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
        "then": {"required": ["x"]},
        "else": {"required": ["y"], "properties": {"x": false}},
    });
    let allowed = [r#"{"kind":"a","x":1}"#, r#"{"kind":"a","x":1,"y":null}"#, r#"{"kind":"b","y":null}"#];
    check(&lab, &schema, &allowed, &[r#"{"kind":"a"}"#, r#"{"kind":"b"}"#, r#"{"kind":"b","x":1,"y":null}"#, "{}"]);
    check(&lab, &json!({"if": {"type": "integer"}, "then": {"minimum": 3}}), &["3", r#""a""#], &["2"]);
    check(&lab, &json!({"then": false, "type": "null"}), &["null"], &["1"]);
}

#[test]
fn dependencies_bring_their_company() {
    let lab = Lab::new(byte_env());
    let with = |keyword: &str, rule: serde_json::Value| json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 1}}, keyword: {"a": rule}});
    let (allowed, forbidden) = (["{}", r#"{"b":1}"#, r#"{"a":1,"b":1}"#], [r#"{"a":1}"#]);
    check(&lab, &with("dependentRequired", json!(["b"])), &allowed, &forbidden);
    check(&lab, &with("dependentSchemas", json!({"required": ["b"]})), &allowed, &forbidden);
    let mut old = with("dependencies", json!(["b"]));
    old["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    check(&lab, &old, &allowed, &forbidden);
}

#[test]
fn overlapping_branches_hold_one_at_a_time() {
    let lab = Lab::new(byte_env());
    let ranges = json!({"type": "integer", "oneOf": [{"minimum": 3}, {"maximum": 5}]});
    check(&lab, &ranges, &["2", "6"], &["3", "5"]);
    let keys = json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 1}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    check(&lab, &keys, &[r#"{"a":1}"#, r#"{"b":1}"#], &["{}", r#"{"a":1,"b":1}"#]);
}

#[test]
fn names_are_held_to_their_schema() {
    let lab = Lab::new(byte_env());
    let listed = json!({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"const": 1}});
    check(&lab, &listed, &["{}", r#"{"a":1}"#, r#"{"a":1,"b":1}"#], &[r#"{"c":1}"#, r#"{"a":2}"#]);
    let short = json!({"type": "object", "propertyNames": {"maxLength": 2, "minLength": 1}});
    check(&lab, &short, &["{}", r#"{"ab":1}"#], &[r#"{"abc":1}"#, r#"{"":1}"#]);
    let declared = json!({"type": "object", "properties": {"a": {"const": 1}, "long": {"const": 1}}, "propertyNames": {"pattern": "^.$"}});
    check(&lab, &declared, &["{}", r#"{"a":1}"#], &[r#"{"long":1}"#]);
}

#[test]
fn unique_items_do_not_repeat() {
    let lab = Lab::new(byte_env());
    let few = json!({"type": "array", "items": {"enum": ["a", "b", 1]}, "uniqueItems": true});
    check(&lab, &few, &["[]", r#"["b","a"]"#, r#"[1,"b","a"]"#], &[r#"["a","a"]"#, r#"[1,1]"#]);
    let many = json!({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 7}, "uniqueItems": true, "minItems": 2});
    check(&lab, &many, &["[1,2]", "[1,2,3,4,5,6,7]"], &["[2,2]", "[1]", "[2,1]"]);
    let tuple = json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false, "uniqueItems": true});
    check(&lab, &tuple, &["[]", r#"["a",1]"#], &[r#"[1,1]"#]);
    check(&lab, &json!({"type": "array", "uniqueItems": true, "maxItems": 1}), &["[]", "[{}]"], &["[1,1]"]);
}

#[test]
fn what_an_array_must_contain_is_there() {
    let lab = Lab::new(byte_env());
    let one = json!({"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 5}});
    check(&lab, &one, &["[5]", "[1,6]", "[1,2,3,4,5,6,7,8]"], &["[]", "[1,2]"]);
    let exact = json!({"type": "array", "contains": {"const": 1}, "minContains": 2, "maxContains": 2, "maxItems": 4});
    check(&lab, &exact, &["[1,1]", "[1,2,1]"], &["[1]", "[1,1,1]"]);
    check(&lab, &json!({"type": "array", "contains": {"const": 1}, "minContains": 0}), &["[]", "[2]"], &["1"]);
}

#[test]
fn what_nothing_evaluates_is_held_to_the_rest() {
    let lab = Lab::new(byte_env());
    let object = json!({"type": "object", "allOf": [{"properties": {"a": {"const": 1}}}], "properties": {"b": {"const": 1}}, "unevaluatedProperties": {"const": 2}});
    check(&lab, &object, &[r#"{"b":1,"a":1}"#, r#"{"c":2}"#], &[r#"{"c":1}"#, r#"{"a":2}"#]);
    let chosen = json!({"type": "object", "anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 1}}}], "unevaluatedProperties": false});
    check(&lab, &chosen, &["{}", r#"{"a":1}"#, r#"{"b":1}"#], &[r#"{"c":1}"#, r#"{"a":2}"#]);
    let array = json!({"type": "array", "prefixItems": [{"const": 1}], "unevaluatedItems": false});
    check(&lab, &array, &["[]", "[1]"], &["[1,2]", "[2]"]);
}
