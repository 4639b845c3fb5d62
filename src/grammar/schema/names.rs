//! `propertyNames`: which of the known names stay, and which free names there may be.

use super::super::GrammarError;
use super::document::{Document, Node};
use super::keywords::{asserts, count};
use super::{atom, refuse};
use serde_json::{Value, json};

/// Names that are not declared.
pub(super) enum Free<'a> {
    Any,
    /// These and no others.
    Only(Vec<String>),
    /// Those that match, in the compiler's syntax; and where it says so.
    Matching(String, Node<'a>),
}

fn rules<'a>(parts: &[Node<'a>]) -> impl Iterator<Item = Node<'a>> {
    parts.iter().filter_map(|part| part.get("propertyNames"))
}

/// Whether every `propertyNames` takes this name.
pub(super) fn allows<'a>(document: &Document<'a>, parts: &[Node<'a>], name: &str) -> bool {
    rules(parts).all(|rule| document.accepts(rule, &json!(name)) == Some(true))
}

/// The names that all `propertyNames` leave, for properties that nothing declares.
pub(super) fn free<'a>(document: &Document<'a>, parts: &[Node<'a>]) -> Result<Free<'a>, GrammarError> {
    let mut rules: Vec<Node<'a>> = rules(parts).map(|rule| resolved(document, rule)).collect();
    rules.retain(|rule| rule != &&Value::Bool(true) && says_something(rule));
    if let Some(values) = rules.iter().find_map(|rule| atom::constants(rule)) {
        let names = values.into_iter().filter_map(Value::as_str).filter(|name| allows(document, parts, name));
        return Ok(Free::Only(names.map(str::to_owned).collect()));
    }
    match rules.as_slice() {
        [] => Ok(Free::Any),
        rules if rules.contains(&&Value::Bool(false)) => Ok(Free::Only(Vec::new())),
        [rule] => Ok(Free::Matching(pattern(document, rule)?, rule)),
        [rule, ..] => Err(refuse(document.pointer(rule), "several `propertyNames` cannot be combined here")),
    }
}

fn resolved<'a>(document: &Document<'a>, mut rule: Node<'a>) -> Node<'a> {
    while let Some(target) = only_reference(rule).and_then(|text| document.resolve(text)) {
        rule = target.1;
    }
    rule
}

fn only_reference(rule: Node<'_>) -> Option<&str> {
    let text = rule.get("$ref")?.as_str()?;
    rule.as_object().is_some_and(|map| !map.keys().any(|key| asserts(key))).then_some(text)
}

fn says_something(rule: Node<'_>) -> bool {
    rule.as_object().is_none_or(|map| map.keys().any(|key| asserts(key) || key == "$ref"))
}

/// One pattern, or two lengths.
fn pattern<'a>(document: &Document<'a>, rule: Node<'a>) -> Result<String, GrammarError> {
    let length = |keyword: &str| rule.get(keyword).and_then(count);
    let mut keys: Vec<&str> = rule.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys.retain(|key| (asserts(key) || *key == "$ref") && !(*key == "type" && takes_strings(rule)));
    match keys.as_slice() {
        ["pattern"] => document.translate(rule["pattern"].as_str().unwrap_or_default(), rule, "pattern"),
        [] => Ok("(?s:.)*".into()),
        lengths if lengths.iter().all(|key| matches!(*key, "minLength" | "maxLength")) => {
            let most = length("maxLength").map_or(String::new(), |most| most.to_string());
            Ok(format!("^(?s:.){{{},{most}}}$", length("minLength").unwrap_or(0)))
        }
        _ => {
            let message = "`propertyNames` is enforced as an `enum`, one `pattern`, or `minLength` with `maxLength`";
            Err(refuse(document.pointer(rule), message))
        }
    }
}

fn takes_strings(rule: Node<'_>) -> bool {
    atom::types_of(rule) & atom::bits("string") != 0
}
