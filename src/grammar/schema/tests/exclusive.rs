//! `oneOf` and negation where rewriting says less than the caller: what is left out of a rival must not be let in elsewhere.

use super::shapes::check;
use crate::grammar::schema::admit;
use crate::grammar::testing::{Lab, Random, byte_env, complaint};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// The schema is refused, or it does not allow these texts.
fn never(lab: &Lab, schema: &Value, forbidden: &[&str]) {
    let Ok(constraint) = admit(schema).and_then(|copy| lab.schema(&copy)) else { return };
    for text in forbidden {
        assert!(complaint(schema, text.as_bytes()).is_some(), "a bad probe: {schema} accepts {text}");
        assert!(!lab.accepts(constraint.fork(), text), "{schema} must forbid {text}");
    }
}

fn fraction() -> Value {
    json!({"type": "number", "not": {"type": "integer"}})
}

#[test]
fn a_narrowed_rival_proves_nothing() {
    let lab = Lab::new(byte_env());
    never(&lab, &json!({"oneOf": [{"type": "number"}, fraction()]}), &["1.5", "-0.5"]);
    check(&lab, &json!({"oneOf": [{"enum": [1.5, 2]}, fraction()]}), &["2"], &["1.5"]);
    never(&lab, &json!({"$id": "x", "oneOf": [{"enum": [1.5, 2]}, fraction()]}), &["1.5"]);
    let tuple = json!({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 9});
    let strings = json!({"type": "array", "contains": {"type": "string"}, "minContains": 8});
    let both = format!("[1{}]", r#","a""#.repeat(8));
    never(&lab, &json!({"oneOf": [tuple, strings]}), &[&both]);
    let deep = json!({"$defs": {"f": {"allOf": [fraction()]}}, "oneOf": [{"enum": [0.5, 3]}, {"$ref": "#/$defs/f"}]});
    check(&lab, &deep, &["3"], &["0.5"]);
    let held = |inner: Value| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]});
    let nested = json!({"oneOf": [held(json!({"enum": [1.5, 2]})), held(fraction())]});
    check(&lab, &nested, &[r#"{"a":2}"#], &[r#"{"a":1.5}"#]);
}

#[test]
fn negations_are_of_what_the_caller_wrote() {
    let lab = Lab::new(byte_env());
    never(&lab, &json!({"type": "number", "not": fraction()}), &["1.5", "0.5"]);
    check(&lab, &json!({"enum": [1.5, 2], "not": fraction()}), &["2"], &["1.5"]);
    check(&lab, &json!({"enum": [1, 1.5], "not": {"not": {"type": "integer"}}}), &["1"], &["1.5"]);
    never(&lab, &json!({"enum": [1, 1.5], "not": {"not": {"not": {"type": "integer"}}}}), &["1"]);
    let twice = json!({"type": "array", "contains": {"const": 1}, "minContains": 8});
    let nine = format!("[0{}]", ",1".repeat(8));
    never(&lab, &json!({"type": "array", "minItems": 9, "not": twice}), &[&nine]);
    never(&lab, &json!({"type": "array", "minItems": 9, "not": {"contains": {"const": 1}}}), &[&nine]);
    never(&lab, &json!({"type": "array", "not": {"not": {"contains": {"const": 1}}}}), &["[]", "[0]"]);
    let exactly = json!({"oneOf": [{"enum": [1.5, 2]}, fraction()]});
    never(&lab, &json!({"enum": [1.5, 2, 2.5, "a"], "not": exactly}), &["2", "2.5"]);
    never(&lab, &json!({"enum": [1.5, 2], "oneOf": [exactly, {"const": 2}, {"const": 1.5}]}), &["2"]);
    let chosen = json!({"if": fraction(), "then": {"enum": [1.5]}, "else": {"enum": [2]}});
    never(&lab, &json!({"enum": [1.5, 2, 2.5], "not": chosen}), &["2", "1.5"]);
    never(&lab, &json!({"enum": [1.5, 2, 3], "oneOf": [chosen, {"type": "integer"}]}), &["2"]);
}

#[test]
fn a_refused_overlap_is_named_also_when_nothing_is_left() {
    let error = admit(&json!({"oneOf": [{"type": "integer"}, {"type": "number"}]})).unwrap_err().to_string();
    assert!(error.contains("/oneOf") && error.contains("branches 0 and 1 may both hold"), "{error}");
}

/// Definitions of three uses of the next one, under something that negates.
fn fan(levels: usize, head: impl Fn(Value) -> Value, uses: impl Fn(Value) -> Value) -> Value {
    let target = |level: usize| json!({"$ref": format!("#/$defs/d{level}")});
    let mut definitions: Map<String, Value> =
        (0..levels).map(|level| (format!("d{level}"), uses(target(level + 1)))).collect();
    definitions.insert(format!("d{levels}"), json!({}));
    let mut schema = head(target(0));
    schema["$defs"] = Value::Object(definitions);
    schema
}

#[test]
fn negations_that_multiply_without_a_schema_are_bounded() {
    let heads: [fn(Value) -> Value; 6] = [
        |next| json!({"not": next}),
        |next| json!({"if": next, "then": {"type": "null"}}),
        |next| json!({"dependentSchemas": {"a": {"not": next}}}),
        |next| json!({"oneOf": [next, {"type": "object"}]}),
        |next| json!({"type": "array", "contains": next, "maxContains": 2}),
        |next| json!({"type": "array", "contains": {"not": next}}),
    ];
    let uses: [fn(Value) -> Value; 6] = [
        |next| json!({"properties": {"a": next, "b": next, "c": next}}),
        |next| json!({"dependentSchemas": {"a": next, "b": next, "c": next}}),
        |next| json!({"prefixItems": [next, next, next]}),
        |next| json!({"items": {"if": next, "then": next, "else": next}}),
        |next| json!({"items": {"oneOf": [next, next, next]}}),
        |next| json!({"contains": {"contains": next, "maxContains": 2}}),
    ];
    for head in heads {
        for (index, uses) in uses.into_iter().enumerate() {
            for levels in [9, 27] {
                let schema = fan(levels, head, uses);
                let start = Instant::now();
                let verdict = admit(&schema);
                assert!(start.elapsed() < Duration::from_secs(1), "{:?} {index} {levels} {schema}", start.elapsed());
                let _ = verdict;
            }
        }
    }
    let nested = (0..14).fold(json!({"const": 1}), |schema, _| json!({"type": "array", "contains": schema}));
    let start = Instant::now();
    assert!(admit(&nested).is_err());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn only_the_own_parts_of_a_schema_count() {
    let leaves: Map<String, Value> = (0..200).map(|index| (format!("p{index}"), json!({"type": "null"}))).collect();
    let groups: Map<String, Value> =
        (0..8).map(|group| (format!("g{group}"), json!({"type": "object", "properties": leaves}))).collect();
    let path = |schema: Value, _| json!({"type": "object", "properties": {"x".repeat(150): schema}});
    let schema = (0..8).fold(json!({"type": "object", "properties": groups}), path);
    let error = admit(&schema).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(!error.contains("multiply"), "{error}");
}

/// A schema over few numbers, with fractions; every negation, condition and choice may stand in every other.
fn numeric(random: &mut Random, depth: usize) -> Value {
    let numbers = [json!(0), json!(1), json!(1.5), json!(2), json!(2.5), json!("a")];
    let mut one = |limit: usize| random.below(limit);
    let kind = one(if depth == 0 { 4 } else { 13 });
    let (first, second) = (one(6), one(6));
    let bound = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"][one(4)];
    let mut inner = || numeric(random, depth.saturating_sub(1));
    match kind {
        0 => json!({"type": (["integer", "number", "string"][first % 3])}),
        1 => json!({"enum": [numbers[first], numbers[second]]}),
        2 => json!({bound: numbers[first % 5]}),
        3 => json!({"const": numbers[first]}),
        4 | 5 => json!({"not": inner()}),
        6 => json!({"oneOf": [inner(), inner()]}),
        7 => json!({"oneOf": [{"enum": numbers[..3]}, {"type": "number", "not": inner()}, inner()]}),
        8 => json!({"allOf": [inner(), inner()]}),
        9 => json!({"anyOf": [inner(), inner()]}),
        10 => json!({"if": inner(), "then": inner(), "else": inner()}),
        11 => json!({"enum": numbers, "oneOf": [inner(), inner()]}),
        _ => json!({"enum": numbers, "not": inner()}),
    }
}

/// Beside random decoding: exactly what is tried here shows every widening, not only what chance writes.
#[test]
fn random_choices_over_numbers_allow_nothing_more() {
    let trials = std::env::var("CALLSMITH_TRIALS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let lab = Lab::new(byte_env());
    let probes = ["0", "1", "1.5", "2", "2.5", "3", "0.5", "-1", r#""a""#, r#""b""#];
    let mut random = Random::new(trials);
    let (mut admitted, mut allowed, mut arrays) = (0, 0, 0);
    for trial in 0..trials {
        let item = numeric(&mut random, 3);
        let schema = if trial % 4 == 0 { json!({"type": "array", "contains": item, "maxItems": 2}) } else { item };
        let Ok(constraint) = admit(&schema).and_then(|copy| lab.schema(&copy)) else { continue };
        admitted += 1;
        arrays += u64::from(trial % 4 == 0);
        for probe in probes {
            let text = if trial % 4 == 0 { format!("[{probe}]") } else { probe.to_owned() };
            if lab.accepts(constraint.fork(), &text) {
                allowed += 1;
                assert_eq!(complaint(&schema, text.as_bytes()), None, "{schema} allows {text}");
            }
        }
    }
    println!("{admitted} of {trials} schemas admitted ({arrays} with `contains`), {allowed} probes allowed");
    assert!(admitted > trials / 10 && allowed > admitted, "{admitted} admitted, {allowed} allowed");
}
