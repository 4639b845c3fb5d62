//! OpenAI's strict subset.

use crate::grammar::GrammarError;
use crate::grammar::schema::{admit, check_strict};
use serde_json::{Value, json};

fn refusal(schema: &Value) -> (String, String) {
    match check_strict(schema) {
        Err(GrammarError::Schema { pointer, message } | GrammarError::TooComplex { pointer, message }) => {
            (pointer, message)
        }
        other => panic!("{schema} gave {other:?}"),
    }
}

/// An object as strict mode wants it.
#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn closed(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
    json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
}

#[test]
fn conforming_schemas_pass() {
    let conforming = [
        closed(json!({})),
        closed(
            json!({"city": {"type": "string", "title": "City", "description": "d"}, "days": {"type": ["integer", "null"], "minimum": 1}}),
        ),
        closed(json!({"list": {"type": "array", "items": closed(json!({"a": {"enum": ["x", 1]}})), "minItems": 1}})),
        closed(json!({"either": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}})),
    ];
    for mut schema in conforming {
        schema["$defs"] = json!({"a": closed(json!({"b": {"const": "c"}}))});
        check_strict(&schema).unwrap();
        admit(&schema).unwrap();
    }
}

#[test]
fn a_property_that_is_not_required_is_named() {
    let mut schema = closed(json!({"a": {"type": "string"}, "b": {"type": "string"}}));
    schema["required"] = json!(["a"]);
    let outer = json!({"type": "object", "properties": {"x": {"anyOf": [schema]}}, "required": ["x"], "additionalProperties": false});
    let (pointer, message) = refusal(&outer);
    assert_eq!(pointer, "/properties/x/anyOf/0");
    assert_eq!(
        message,
        "'required' is required to be supplied and to be an array including every key in properties. Missing 'b'."
    );
    schema["required"] = json!(["a", "b", "c"]);
    assert_eq!(refusal(&schema).1, "Extra required key 'c' supplied.");
}

#[test]
fn an_open_object_is_refused_wherever_it_stands() {
    let open = json!({"type": ["object", "null"], "properties": {}});
    for (schema, place) in [
        (json!({"type": "object", "properties": {}}), ""),
        (closed(json!({"a": {"type": "array", "items": open}})), "/properties/a/items"),
    ] {
        let (pointer, message) = refusal(&schema);
        assert_eq!(pointer, place);
        assert_eq!(message, "'additionalProperties' is required to be supplied and to be false.");
    }
    let mut unused = closed(json!({}));
    unused["$defs"] = json!({"u": open});
    assert_eq!(refusal(&unused).0, "/$defs/u");
}

#[test]
fn the_root_is_a_plain_object() {
    for schema in [json!({"type": "string"}), json!({"anyOf": [closed(json!({}))]}), json!(true)] {
        assert!(refusal(&schema).1.starts_with("schema must have type 'object'"));
    }
}

#[test]
fn unsupported_keywords_are_named() {
    for keyword in
        ["allOf", "oneOf", "not", "if", "dependentRequired", "patternProperties", "uniqueItems", "minProperties"]
    {
        let mut inner = closed(json!({}));
        inner[keyword] = json!({});
        let (pointer, message) = refusal(&closed(json!({"a": inner})));
        assert_eq!((pointer.as_str(), message), ("/properties/a", format!("'{keyword}' is not permitted.")));
    }
}

#[test]
fn the_limits_hold() {
    let nested = |levels: usize| (1..levels).fold(closed(json!({})), |inner, _| closed(json!({"a": inner})));
    check_strict(&nested(10)).unwrap();
    assert!(refusal(&nested(11)).1.contains("nested deeper than 10"));
    let values = |count: usize, text: &str| (0..count).map(|index| format!("{text}{index}")).collect::<Vec<_>>();
    check_strict(&closed(json!({"a": {"enum": values(1_000, "")}}))).unwrap();
    assert!(
        refusal(&closed(json!({"a": {"enum": values(600, "")}, "b": {"enum": values(600, "")}})))
            .1
            .contains("enum values")
    );
    let long = "x".repeat(60);
    check_strict(&closed(json!({"a": {"enum": values(250, &long)}}))).unwrap();
    assert!(refusal(&closed(json!({"a": {"enum": values(251, &long)}}))).1.contains("one long enum"));
}
