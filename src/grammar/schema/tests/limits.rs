//! Hostile sizes and shapes.

use crate::grammar::GrammarError;
use crate::grammar::schema::admit;
use crate::grammar::testing::{Lab, byte_env};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Runs on a small stack: an overflow would kill the test process.
fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap().join().unwrap()
}

fn nested(levels: usize, inner: Value) -> Value {
    (0..levels).fold(inner, |schema, _| json!({"type": "array", "items": schema}))
}

/// The forms in which a definition can refer to the next one.
fn link(form: usize, next: Value) -> Value {
    match form {
        0 => next,
        1 => json!({"properties": {"a": next}}),
        2 => json!({"type": "object", "properties": {"a": next}}),
        3 => json!({"items": next}),
        4 => json!({"anyOf": [next]}),
        5 => json!({"anyOf": [next, {"type": "null"}]}),
        6 => json!({"allOf": [next]}),
        7 => json!({"$ref": next["$ref"], "type": "integer"}),
        8 => json!({"additionalProperties": next}),
        9 => json!({"patternProperties": {"^a": next}}),
        10 => nested(3, next),
        _ => nested(20, next),
    }
}

fn chain(form: usize, depth: usize) -> Value {
    let mut definitions = Map::new();
    for level in 0..depth {
        definitions.insert(level.to_string(), link(form, json!({"$ref": format!("#/$defs/{}", level + 1)})));
    }
    definitions.insert(depth.to_string(), json!({"type": "integer"}));
    json!({"$ref": "#/$defs/0", "$defs": definitions})
}

#[test]
fn reference_chains_of_any_form_and_depth_are_refused_at_once() {
    on_small_stack(|| {
        for form in 0..12 {
            for depth in [70, if form < 3 { 100_000 } else { 6_000 }] {
                let schema = chain(form, depth);
                let start = Instant::now();
                let refused = admit(&schema);
                assert!(start.elapsed() < Duration::from_secs(1), "form {form}, depth {depth}: {:?}", start.elapsed());
                assert!(
                    matches!(refused, Err(GrammarError::TooComplex { .. })),
                    "form {form}, depth {depth}: {refused:?}"
                );
            }
        }
    });
}

#[test]
fn the_deepest_admitted_chains_compile() {
    let lab = Lab::new(byte_env());
    for form in 0..12 {
        let deepest = (1..64).rev().find_map(|depth| admit(&chain(form, depth)).ok());
        lab.schema(&deepest.unwrap()).unwrap();
    }
}

#[test]
fn deep_json_is_refused() {
    on_small_stack(|| {
        for levels in [40, 400] {
            assert!(matches!(admit(&nested(levels, json!(true))), Err(GrammarError::TooComplex { .. })));
            let constant = (0..levels).fold(json!(1), |value, _| json!([value]));
            assert!(matches!(admit(&json!({"const": constant})), Err(GrammarError::TooComplex { .. })));
        }
    });
}

#[test]
fn sizes_are_limited() {
    let many = |count: usize| (0..count).map(|index| (format!("p{index}"), json!(true))).collect::<Map<_, _>>();
    let patterns = |count: usize| (0..count).map(|index| (format!("^p{index}_"), json!(true))).collect::<Map<_, _>>();
    let fork = |count: usize| json!({"anyOf": (0..4).map(|i| json!({"minLength": count + i})).collect::<Vec<_>>()});
    let costly = [
        json!({"description": "x".repeat(70_000)}),
        json!({"properties": many(257)}),
        json!({"patternProperties": patterns(17)}),
        json!({"patternProperties": patterns(400)}),
        json!({"enum": (0..1_001).collect::<Vec<_>>()}),
        json!({"enum": (0..20_000).collect::<Vec<_>>()}),
        json!({"type": "array", "minItems": 10_000_000}),
        json!({"type": "string", "minLength": 10_001}),
        json!({"type": "string", "pattern": "a".repeat(1_025)}),
        json!({"allOf": (0..6).map(|i| fork(4 * i)).collect::<Vec<_>>()}),
    ];
    for schema in costly {
        let refused = admit(&schema);
        assert!(matches!(refused, Err(GrammarError::TooComplex { .. })), "{refused:?}");
    }
}

#[test]
fn everything_admitted_compiles_within_a_second() {
    let lab = Lab::new(byte_env());
    let properties =
        |count: usize| (0..count).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect::<Map<_, _>>();
    let patterns = (0..16).map(|i| (format!("^p{i}_[a-z]+$"), json!({"type": "integer"}))).collect::<Map<_, _>>();
    let words: Vec<String> = (0..1_000).map(|index| format!("value number {index}")).collect();
    let tree = json!({"type": "object", "properties": properties(100), "patternProperties": patterns});
    let branch = |i: usize| json!({"type": "object", "properties": {format!("k{i}"): {"$ref": "#"}}});
    let costly = [
        json!({"type": "object", "properties": properties(256)}),
        json!({"type": "object", "patternProperties": patterns}),
        json!({"enum": words}),
        json!({"type": "array", "items": {"type": "number"}, "maxItems": 10_000_000}),
        json!({"type": "array", "items": tree, "minItems": 10_000}),
        json!({"type": "string", "maxLength": 1_000_000}),
        json!({"type": "string", "pattern": r"[ab]*a[ab]{60}"}),
        json!({"type": "string", "pattern": r"\w{2000}"}),
        json!({"type": "string", "pattern": r"(.{1,50}x){1,50}"}),
        json!({"type": "string", "pattern": r"(a+)+b"}),
        json!({"anyOf": (0..60).map(branch).collect::<Vec<_>>()}),
        json!({"type": "object", "properties": properties(64), "minProperties": 1}),
        json!({"type": "integer", "multipleOf": 9_973}),
        json!({}),
        json!({"type": "array", "items": {"enum": words[..10]}, "uniqueItems": true, "maxItems": 3}),
        json!({"type": "array", "items": {"enum": words[..9]}, "uniqueItems": true}),
        json!({"type": "string", "not": {"enum": words[..100]}}),
        json!({"type": "string", "not": {"const": "long ".repeat(20)}}),
        json!({"type": "integer", "not": {"enum": (0..60).map(|index| 3 * index).collect::<Vec<_>>()}}),
        json!({"type": "object", "properties": properties(8), "minProperties": 3}),
        json!({"type": "object", "properties": properties(12), "dependentRequired": {"p0": ["p1"], "p2": ["p3"], "p4": ["p5"], "p6": ["p7"]}}),
        json!({"type": "array", "contains": {"type": "object", "properties": properties(20)}}),
        json!({"type": "object", "oneOf": (0..4).map(|i| json!({"required": [format!("p{i}")]})).collect::<Vec<_>>(), "properties": properties(20)}),
    ];
    for schema in costly {
        let attempt = || {
            let start = Instant::now();
            let compiled = admit(&schema).and_then(|admitted| lab.schema(&admitted));
            (start.elapsed(), compiled)
        };
        // The best of three: a busy neighbour on the machine is not our cost.
        let limit = Duration::from_secs(1);
        let (mut took, compiled) = attempt();
        for _ in 0..2 {
            took = if took < limit { took } else { took.min(attempt().0) };
        }
        assert!(took < limit, "{took:?} {schema}");
        let fair = matches!(&compiled, Ok(_) | Err(GrammarError::Compile(_) | GrammarError::TooComplex { .. }));
        assert!(fair, "{:?}", compiled.err());
    }
}

#[test]
fn the_limit_of_optional_properties_is_under_the_parsers_own() {
    let lab = Lab::new(byte_env());
    let raw = |count: usize| {
        let properties = (0..count).map(|i| (format!("p{i}"), json!({"type": "null"}))).collect::<Map<_, _>>();
        lab.schema(&json!({"type": "object", "properties": properties, "additionalProperties": false}))
    };
    assert!(raw(500).is_ok() && raw(501).is_err(), "the parser's limit has moved; see emit::MAX_OPTIONAL");
    let half = |tag: &str| {
        let properties = (0..250).map(|i| (format!("{tag}{i}"), json!({"type": "null"}))).collect::<Map<_, _>>();
        json!({"type": "object", "properties": properties})
    };
    let refused = admit(&json!({"anyOf": [half("a"), half("b")]}));
    assert!(matches!(refused, Err(GrammarError::TooComplex { .. })), "{refused:?}");
}

#[test]
fn recursion_without_a_step_or_an_end_is_refused() {
    let endless = [
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"anyOf": [{"type": "null"}, {"$ref": "#"}]}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
    ];
    for schema in endless {
        assert!(matches!(admit(&schema), Err(GrammarError::Schema { .. })), "{schema}");
    }
}

/// Definitions that each use the next one twice.
fn diamonds(depth: usize, twice: impl Fn(Value) -> Value, end: Value) -> Value {
    let mut definitions = Map::new();
    for level in 0..depth {
        definitions.insert(level.to_string(), twice(json!({"$ref": format!("#/$defs/{}", level + 1)})));
    }
    definitions.insert(depth.to_string(), end);
    json!({"$ref": "#/$defs/0", "$defs": definitions})
}

#[test]
fn what_doubles_at_every_level_is_linear_or_refused_at_once() {
    let lab = Lab::new(byte_env());
    let linear =
        diamonds(30, |next| json!({"type": "object", "properties": {"a": next, "b": next}}), json!({"type": "null"}));
    let start = Instant::now();
    lab.schema(&admit(&linear).unwrap()).unwrap();
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for end in [json!(false), json!({"type": "null"}), json!({"enum": [1, 2]})] {
            let mut schema = diamonds(30, |next| json!({keyword: [next, next]}), end);
            assert!(matches!(admit(&schema), Err(GrammarError::TooComplex { .. })));
            schema["enum"] = json!([1]);
            assert!(matches!(admit(&schema), Err(GrammarError::TooComplex { .. })));
        }
    }
    let nested =
        |next: Value| json!({"anyOf": [{"properties": {"a": next}}, {"properties": {"a": next}, "minProperties": 0}]});
    let value = (0..15).fold(json!(1), |value, _| json!({"a": value}));
    let mut schema = diamonds(15, nested, json!(false));
    schema["enum"] = json!([value]);
    assert!(matches!(admit(&schema), Err(GrammarError::Schema { .. })));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn the_largest_schemas_are_judged_within_a_second() {
    let wide = |count: usize, leaf: &dyn Fn(usize) -> Value| {
        let groups = (0..count / 50).map(|group| {
            let fields = (0..50).map(|field| (format!("{group}_{field}"), leaf(field))).collect::<Map<_, _>>();
            (format!("g{group}"), json!({"type": "object", "properties": fields}))
        });
        json!({"type": "object", "properties": groups.collect::<Map<_, _>>()})
    };
    for schema in [
        wide(2_000, &|_| json!({"minLength": 1})),
        wide(1_400, &|field| json!({"type": "integer", "enum": [field]})),
        wide(1_200, &|_| json!({"type": "number", "minimum": 0.1})),
        wide(1_000, &|_| json!({"type": "array", "items": {"$ref": "#"}})),
    ] {
        let start = Instant::now();
        let verdict = admit(&schema);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(matches!(verdict, Ok(_) | Err(GrammarError::TooComplex { .. })), "{verdict:?}");
    }
}
