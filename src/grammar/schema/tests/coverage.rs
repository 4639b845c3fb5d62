//! Which keywords are enforced, in words and by trial; the table of `grammars/SCHEMA.md`.

use super::ratchet::{Counts, Ratchet};
use crate::grammar::schema::admit;
use crate::grammar::testing::{Lab, byte_env};
use serde_json::Value;

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

/// A keyword, how it is enforced, the limits of that, a schema, and an instance that it accepts and one that it does not.
/// Schemas that are refused say why a keyword is not covered.
type Row = (String, String, String, Value, Value, Value);

pub(super) fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("keywords.json")).unwrap()
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
        let file = match keyword.as_str() {
            "$ref" => "ref",
            "$anchor" => "anchor",
            "$dynamicRef" => "dynamicRef",
            // Its file says it in a metaschema, and the test puts a standard `$schema` in that one's place.
            "$vocabulary" => "",
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
