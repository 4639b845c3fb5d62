//! Which keywords are enforced, in words and by trial; the table of `grammars/SCHEMA.md`.

use super::ratchet::{Counts, Ratchet};
use crate::grammar::schema::admit;
use crate::grammar::testing::{Lab, byte_env};
use serde_json::{Value, json};

/// Keywords of every draft that say nothing about an instance.
pub(super) const ANNOTATIONS: [&str; 15] = [
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "contentSchema",
];

/// A keyword: how it is enforced, the limits of that, and a schema with an instance that it accepts and one that it does not.
/// Schemas that are refused say why a keyword is not covered.
type Row = (&'static str, &'static str, &'static str, Value, Value, Value);

pub(super) fn rows() -> Vec<Row> {
    let object = |keyword: &str, value: Value| json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, keyword: value});
    let array = |keyword: &str, value: Value| json!({"type": "array", "items": {"enum": [1, 2]}, keyword: value});
    let (a, b, ab) = (json!({"a": 1}), json!({"b": 1}), json!({"a": 1, "b": 1}));
    let full = "enforced";
    let part = "partly";
    let old = |schema: Value| {
        let mut schema = schema;
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        schema
    };
    vec![
        (
            "type",
            full,
            "`number` is written within ±1e15, `integer` within ±(2^53 − 1)",
            json!({"type": "null"}),
            json!(null),
            json!(1),
        ),
        ("enum", full, "lists and objects only as the sole keyword", json!({"enum": ["a", 1]}), json!(1), json!(2)),
        ("const", full, "as `enum`", json!({"const": "a"}), json!("a"), json!("b")),
        ("minimum", full, "", json!({"type": "integer", "minimum": 3}), json!(3), json!(2)),
        ("maximum", full, "", json!({"type": "integer", "maximum": 3}), json!(3), json!(4)),
        (
            "exclusiveMinimum",
            full,
            "as a number",
            json!({"type": "integer", "exclusiveMinimum": 3}),
            json!(4),
            json!(3),
        ),
        (
            "exclusiveMaximum",
            full,
            "as a number",
            json!({"type": "integer", "exclusiveMaximum": 3}),
            json!(2),
            json!(3),
        ),
        (
            "multipleOf",
            part,
            "up to 6 decimals and 10,000 as digits",
            json!({"type": "integer", "multipleOf": 3}),
            json!(6),
            json!(7),
        ),
        ("minLength", full, "up to 10,000", json!({"type": "string", "minLength": 2}), json!("ab"), json!("a")),
        ("maxLength", full, "", json!({"type": "string", "maxLength": 1}), json!("a"), json!("ab")),
        (
            "pattern",
            part,
            "without look-around, back-references and word boundaries",
            json!({"type": "string", "pattern": "^a"}),
            json!("ab"),
            json!("b"),
        ),
        (
            "format",
            part,
            "as a plain subset of: date, time, date-time, duration, uuid, ipv4, ipv6, email, hostname, uri, int32, int64, uint32, uint64, float, double, password",
            json!({"type": "string", "format": "date"}),
            json!("2024-02-29"),
            json!("2023-02-29"),
        ),
        ("items", full, "", json!({"type": "array", "items": {"type": "null"}}), json!([null]), json!([1])),
        (
            "prefixItems",
            full,
            "",
            json!({"type": "array", "prefixItems": [{"type": "null"}]}),
            json!([null, 1]),
            json!([1]),
        ),
        (
            "additionalItems",
            full,
            "beside a list of `items` (drafts before 2020-12)",
            old(json!({"type": "array", "items": [true], "additionalItems": false})),
            json!([1]),
            json!([1, 2]),
        ),
        ("minItems", full, "up to 10,000", array("minItems", json!(1)), json!([1]), json!([])),
        ("maxItems", full, "", array("maxItems", json!(1)), json!([1]), json!([1, 1])),
        (
            "uniqueItems",
            part,
            "over items from a short `enum` (up to 1,000 arrays; beyond that in the order of the `enum`), tuples of different types, `maxItems` 1",
            array("uniqueItems", json!(true)),
            json!([1, 2]),
            json!([1, 1]),
        ),
        (
            "contains",
            part,
            "the items that count are among the first 8",
            array("contains", json!({"const": 2})),
            json!([1, 2]),
            json!([1]),
        ),
        (
            "minContains",
            part,
            "as `contains`",
            json!({"type": "array", "contains": {"const": 2}, "minContains": 2}),
            json!([2, 2]),
            json!([2]),
        ),
        (
            "maxContains",
            part,
            "as `contains`",
            json!({"type": "array", "contains": {"const": 2}, "maxContains": 1}),
            json!([2]),
            json!([2, 2]),
        ),
        (
            "properties",
            full,
            "an object that declares properties is closed unless it says otherwise; they come in the order of the schema",
            object("title", json!("")),
            a.clone(),
            json!({"a": "x"}),
        ),
        ("required", full, "", object("required", json!(["a"])), a.clone(), b.clone()),
        (
            "additionalProperties",
            full,
            "",
            object("additionalProperties", json!({"type": "null"})),
            json!({"c": null}),
            json!({"c": 1}),
        ),
        (
            "patternProperties",
            part,
            "up to 16 patterns that do not overlap",
            json!({"type": "object", "patternProperties": {"^a": {"type": "null"}}}),
            json!({"ab": null}),
            json!({"ab": 1}),
        ),
        (
            "propertyNames",
            part,
            "as `enum`, one `pattern`, or lengths where names are free; anything where they are declared",
            object("propertyNames", json!({"const": "a"})),
            a.clone(),
            b.clone(),
        ),
        (
            "minProperties",
            part,
            "up to 64 combinations of optional properties; 1 where names are free",
            object("minProperties", json!(2)),
            ab.clone(),
            a.clone(),
        ),
        (
            "maxProperties",
            part,
            "up to 64 combinations of optional properties",
            object("maxProperties", json!(1)),
            a.clone(),
            ab.clone(),
        ),
        ("dependentRequired", full, "", object("dependentRequired", json!({"a": ["b"]})), ab.clone(), a.clone()),
        (
            "dependentSchemas",
            full,
            "",
            object("dependentSchemas", json!({"a": {"required": ["b"]}})),
            ab.clone(),
            a.clone(),
        ),
        ("dependencies", full, "", old(object("dependencies", json!({"a": ["b"]}))), ab.clone(), a.clone()),
        (
            "unevaluatedProperties",
            part,
            "not beside `not`, `if`, `dependentSchemas`, `contains` or a `oneOf` with overlapping branches",
            object("unevaluatedProperties", json!(false)),
            a.clone(),
            json!({"c": 1}),
        ),
        (
            "unevaluatedItems",
            part,
            "as `unevaluatedProperties`",
            json!({"type": "array", "prefixItems": [true], "unevaluatedItems": false}),
            json!([1]),
            json!([1, 2]),
        ),
        ("allOf", full, "", json!({"allOf": [{"type": "integer"}, {"minimum": 3}]}), json!(3), json!(2)),
        (
            "anyOf",
            full,
            "up to 256 combinations",
            json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            json!(null),
            json!("a"),
        ),
        (
            "oneOf",
            part,
            "branches that exclude each other, or that can be negated (see `not`)",
            json!({"type": "integer", "oneOf": [{"minimum": 3}, {"maximum": 5}]}),
            json!(2),
            json!(4),
        ),
        (
            "not",
            part,
            "over types, constants, bounds, lengths, counts, `required`, `properties`, items, `contains`, and combinations and references to these; not over `pattern`, `format`, `multipleOf`, `additionalProperties`, `patternProperties`, `propertyNames`, `uniqueItems`, lists and objects in `enum`",
            json!({"type": "integer", "not": {"const": 1}}),
            json!(2),
            json!(1),
        ),
        (
            "if",
            part,
            "conditions that can be negated (see `not`)",
            json!({"type": "integer", "if": {"minimum": 3}, "then": {"const": 4}}),
            json!(4),
            json!(5),
        ),
        (
            "then",
            part,
            "as `if`",
            json!({"type": "integer", "if": {"minimum": 3}, "then": {"const": 4}}),
            json!(1),
            json!(5),
        ),
        (
            "else",
            part,
            "as `if`",
            json!({"type": "integer", "if": {"minimum": 3}, "else": {"const": 1}}),
            json!(1),
            json!(2),
        ),
        (
            "$ref",
            part,
            "inside the schema, as a JSON pointer; recursion up to 16 levels",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}),
            json!(null),
            json!(1),
        ),
        ("$anchor", "refused", "", json!({"$anchor": "a"}), json!(1), json!(1)),
        ("$dynamicRef", "refused", "", json!({"$dynamicRef": "#a"}), json!(1), json!(1)),
        ("$dynamicAnchor", "refused", "", json!({"$dynamicAnchor": "a"}), json!(1), json!(1)),
        ("$vocabulary", "refused", "", json!({"$vocabulary": {}}), json!(1), json!(1)),
    ]
}

#[test]
fn every_keyword_does_what_the_table_says() {
    let lab = Lab::new(byte_env());
    for (keyword, how, _, schema, fits, breaks) in rows() {
        let copy = admit(&schema);
        assert_eq!(copy.is_err(), how == "refused", "{keyword}: {:?}", copy.err());
        let Ok(copy) = copy else { continue };
        let constraint = lab.schema(&copy).unwrap();
        assert!(lab.accepts(constraint.fork(), &fits.to_string()), "{keyword} must allow {fits}");
        assert!(!lab.accepts(constraint, &breaks.to_string()), "{keyword} must forbid {breaks}");
        assert!(!jsonschema::is_valid(&schema, &breaks) || keyword == "format", "{keyword}: a bad probe");
    }
}

/// The table in Markdown; counts are the cases of the keyword's file in JSON-Schema-Test-Suite, both drafts together.
pub(super) fn table(ratchet: &Ratchet) -> String {
    let mut text = String::from(
        "# JSON Schema coverage\n\n\
         What callsmith enforces while an answer is generated. A schema is either enforced or refused with 400, the keyword and \
         its place; nothing is ignored. *Narrowed* cases are valid instances that are never generated, which keeps an answer \
         valid. The counts are the cases of JSON-Schema-Test-Suite (drafts 7 and 2020-12, required files) under the file of \
         that name.\n\n\
         This file is generated: `CALLSMITH_UPDATE_RATCHET=1 cargo test -p callsmith --lib schema::tests::ratchet -- --test-threads=1`.\n\n\
         | keyword | enforced | limits | right | narrowed | refused |\n|---|---|---|---:|---:|---:|\n",
    );
    for (keyword, how, limits, ..) in rows() {
        let file = match keyword {
            "$ref" => "ref",
            "$anchor" => "anchor",
            "$dynamicRef" => "dynamicRef",
            "$vocabulary" => "vocabulary",
            "if" => "if-then-else",
            other => other,
        };
        let all = ["draft2020-12", "draft7"].map(|draft| ratchet.get(&format!("{draft}/{file}")));
        let sum = |count: fn(&Counts) -> usize| all.iter().flatten().map(|counts| count(counts)).sum::<usize>();
        let counts = [sum(|counts| counts.right), sum(|counts| counts.narrowed), sum(|counts| counts.refused)];
        let shown = if counts == [0; 3] {
            "– | – | –".to_owned()
        } else {
            counts.map(|count| count.to_string()).join(" | ")
        };
        text.push_str(&format!("| `{keyword}` | {how} | {limits} | {shown} |\n"));
    }
    text.push_str(&format!(
        "\nAnnotations are accepted and say nothing about an answer: `{}`, and any key that starts with `x-`.\n",
        ANNOTATIONS.join("`, `")
    ));
    text.push_str("Unknown keywords are refused. `nullable`, and type names of Python, Java and JavaScript, are read in tools as what they mean.\n\n");
    text.push_str("Functions of real catalogues, as tools:\n\n| catalogue | admitted | refused |\n|---|---:|---:|\n");
    for (name, counts) in
        ratchet.iter().filter(|(name, _)| name.starts_with("bfcl/") || name.starts_with("seal-tools/"))
    {
        text.push_str(&format!("| {name} | {} | {} |\n", counts.right, counts.refused));
    }
    text
}
