//! Refusals by name and place.

use crate::grammar::GrammarError;
use crate::grammar::schema::{admit, admit_parameters};
use serde_json::{Value, json};

/// The pointer and message of a refusal.
fn refusal(schema: &Value) -> (String, String) {
    match admit(schema) {
        Err(GrammarError::Schema { pointer, message }) => (pointer, message),
        other => panic!("{schema} gave {other:?}"),
    }
}

#[test]
fn keywords_that_cannot_be_enforced_are_refused_by_name_and_place() {
    let keywords = [
        ("$anchor", json!("a")),
        ("$dynamicRef", json!("#a")),
        ("$recursiveRef", json!("#")),
        ("nullable", json!(true)),
        ("x-guidance", json!({"lenient": true})),
    ];
    for (keyword, value) in keywords {
        let (pointer, message) = refusal(&json!({keyword: value}));
        assert_eq!(pointer, format!("/{keyword}"));
        assert!(message.contains(&format!("`{keyword}`")), "{message}");
        let (pointer, _) = refusal(&json!({"type": "object", "properties": {"a/b": {"items": {keyword: value}}}}));
        assert_eq!(pointer, format!("/properties/a~1b/items/{keyword}"));
    }
}

#[test]
fn what_cannot_be_negated_is_refused_where_it_stands() {
    let inner = [
        ("pattern", json!("a")),
        ("format", json!("date")),
        ("multipleOf", json!(2)),
        ("additionalProperties", json!(false)),
        ("patternProperties", json!({"a": false})),
        ("propertyNames", json!({"maxLength": 1})),
        ("uniqueItems", json!(true)),
        ("const", json!([1])),
        ("enum", json!([{}])),
    ];
    for (keyword, value) in inner {
        let schema = json!({keyword: value});
        assert_eq!(refusal(&json!({"not": schema})).0, format!("/not/{keyword}"));
        let condition = json!({"items": {"if": {"properties": {"a": schema}}, "then": {"required": ["b"]}}});
        assert_eq!(refusal(&condition).0, format!("/items/if/properties/a/{keyword}"));
        let reference = json!({"not": {"$ref": "#/$defs/d"}, "$defs": {"d": schema}});
        assert_eq!(refusal(&reference).0, format!("/$defs/d/{keyword}"));
    }
}

#[test]
fn a_refusal_inside_what_was_rewritten_points_into_the_callers_schema() {
    let list = json!({"type": "array", "uniqueItems": true});
    let schema = json!({"if": {"type": "string"}, "else": {"type": "object", "properties": {"x": list}}});
    assert_eq!(refusal(&schema).0, "/else/properties/x/uniqueItems");
    let schema = json!({"dependentSchemas": {"k": {"properties": {"a": {"minProperties": 300}}}}});
    assert_eq!(refusal(&schema).0, "/dependentSchemas/k/properties/a");
    let seen = json!({"type": "object", "unevaluatedProperties": false, "allOf": [{"not": {"required": ["a"]}}]});
    assert_eq!(refusal(&seen).0, "/unevaluatedProperties");
}

#[test]
fn negations_that_do_not_end_or_multiply_are_refused() {
    for schema in [
        json!({"not": {"$ref": "#"}}),
        json!({"not": {"properties": {"a": {"$ref": "#/not"}}}}),
        json!({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"if": {"$ref": "#/$defs/a"}, "then": true}}, "$ref": "#/$defs/a"}),
    ] {
        assert!(
            matches!(admit(&schema), Err(GrammarError::Schema { .. } | GrammarError::TooComplex { .. })),
            "{schema}"
        );
    }
    let doubled = (0..9).fold(json!({"required": ["a", "b"]}), |inner, _| json!({"if": inner, "then": inner}));
    assert!(matches!(admit(&doubled), Err(GrammarError::TooComplex { .. })));
}

#[test]
fn keywords_that_a_draft_does_not_know_are_refused() {
    for (draft, keyword, value) in [
        ("http://json-schema.org/draft-07/schema#", "dependentRequired", json!({"a": ["b"]})),
        ("http://json-schema.org/draft-07/schema#", "unevaluatedProperties", json!(false)),
        ("http://json-schema.org/draft-06/schema#", "if", json!({"const": 1})),
        ("http://json-schema.org/draft-04/schema#", "contains", json!({"type": "null"})),
    ] {
        let (pointer, message) =
            refusal(&json!({"$schema": draft, "type": "object", "properties": {"a": {keyword: value}}}));
        assert!(pointer == "/properties/a" && message.contains(keyword), "{pointer}: {message}");
    }
}

#[test]
fn unknown_keywords_are_refused_with_a_hint() {
    let (pointer, message) = refusal(&json!({"type": "string", "minLenght": 3}));
    assert_eq!(pointer, "/minLenght");
    assert!(message.contains("did you mean `minLength`?"), "{message}");
    let (_, message) = refusal(&json!({"frobnicate": 1}));
    assert_eq!(message, "unknown keyword `frobnicate`");
}

#[test]
fn malformed_values_are_refused_at_their_keyword() {
    let malformed = [
        json!({"type": "stsring"}),
        json!({"type": []}),
        json!({"type": 3}),
        json!({"enum": []}),
        json!({"enum": "a"}),
        json!({"required": true}),
        json!({"required": [1]}),
        json!({"properties": []}),
        json!({"patternProperties": {"(": {}}}),
        json!({"items": 3}),
        json!({"anyOf": []}),
        json!({"anyOf": {}}),
        json!({"minLength": -1}),
        json!({"maxItems": 1.5}),
        json!({"minimum": "1"}),
        json!({"exclusiveMinimum": true}),
        json!({"multipleOf": 0}),
        json!({"multipleOf": 0.000_000_1}),
        json!({"pattern": 1}),
        json!({"format": 1}),
        json!({"format": "regex"}),
        json!({"$ref": 1}),
        json!({"const": 9_007_199_254_740_993_u64}),
        json!({"const": 1e300}),
        json!({"enum": ["a\u{1}"]}),
        json!({"additionalItems": false}),
    ];
    for schema in malformed {
        let keyword = schema.as_object().unwrap().keys().next().unwrap();
        let (pointer, _) = refusal(&schema);
        assert!(pointer.starts_with(&format!("/{keyword}")) || pointer.is_empty(), "{schema}: {pointer}");
    }
}

#[test]
fn references_stay_inside_the_schema() {
    for target in
        ["http://127.0.0.1:9/a", "https://x", "file:///etc/passwd", "ftp://x", "other.json", "#name", "#/$defs/no"]
    {
        let (pointer, _) = refusal(&json!({"properties": {"a": {"$ref": target}}}));
        assert_eq!(pointer, "/properties/a/$ref", "{target}");
    }
    for schema in ["http://example.com/schema", "file:///etc/passwd", ""] {
        assert_eq!(refusal(&json!({"$schema": schema})).0, "/$schema");
    }
    assert_eq!(refusal(&json!({"items": {"$schema": "http://json-schema.org/draft-07/schema#"}})).0, "/items/$schema");
}

#[test]
fn patterns_that_read_differently_elsewhere_are_refused() {
    for pattern in [
        r"a(?=b)",
        r"(?!a)",
        r"(?<=a)b",
        r"(a)\1",
        r"\bword",
        r"(?i)a",
        r"(?P<stop>a)",
        r"[a&&b]",
        r"[[a]]",
        r"[]",
        r"\q",
        "a\\",
    ] {
        assert_eq!(refusal(&json!({"type": "string", "pattern": pattern})).0, "/pattern", "{pattern}");
    }
}

#[test]
fn overlapping_one_of_is_refused_and_exclusive_one_of_is_not() {
    let overlapping = [
        json!({"oneOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]}),
        json!({"oneOf": [{"type": "array", "uniqueItems": true, "maxItems": 1}, {"type": "array", "items": {"multipleOf": 2}}]}),
    ];
    for schema in overlapping {
        assert_eq!(refusal(&schema).0, "/oneOf", "{schema}");
    }
}

#[test]
fn what_nothing_satisfies_is_refused() {
    let unsatisfiable = [
        json!(false),
        json!({"type": "string", "enum": [1]}),
        json!({"allOf": [{"type": "string"}, {"type": "null"}]}),
        json!({"type": "integer", "minimum": 2, "maximum": 1}),
        json!({"type": "integer", "minimum": 1e17}),
        json!({"type": "number", "exclusiveMinimum": 1, "maximum": 1}),
        json!({"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5}),
        json!({"type": "array", "minItems": 2, "maxItems": 1}),
        json!({"type": "array", "items": false, "minItems": 1}),
        json!({"type": "string", "minLength": 2, "maxLength": 1}),
        json!({"type": "object", "properties": {"a": false}, "required": ["a"]}),
        json!({"type": "object", "properties": {}, "minProperties": 1}),
    ];
    for schema in unsatisfiable {
        assert_eq!(refusal(&schema).1, "no value can satisfy this schema", "{schema}");
    }
}

#[test]
fn annotations_and_vendor_keys_are_accepted() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "title": "t", "description": "d", "$comment": "c", "x-order": 1,
        "type": "object", "properties": {"a": {"type": "string", "default": "x", "examples": ["y"], "deprecated": true}},
    });
    admit(&schema).unwrap();
}

#[test]
fn parameters_must_be_an_object() {
    for parameters in [None, Some(Value::Null), Some(json!({})), Some(json!({"type": "object"}))] {
        let admitted = admit_parameters(&parameters).unwrap();
        assert_eq!(admitted["type"], "object");
        assert_eq!(admitted["additionalProperties"], false);
    }
    assert_eq!(admit_parameters(&Some(json!({"properties": {"a": {"type": "null"}}}))).unwrap()["type"], "object");
    for parameters in
        [json!(true), json!([]), json!("x"), json!({"type": "array"}), json!({"type": ["object", "null"]})]
    {
        assert!(matches!(admit_parameters(&Some(parameters)), Err(GrammarError::Schema { .. })));
    }
}

#[test]
fn messages_are_short() {
    let long = "x".repeat(5_000);
    for schema in [json!({&long: 1}), json!({"format": long}), json!({"type": long}), json!({"$schema": long})] {
        assert!(refusal(&schema).1.len() <= 300);
    }
}
