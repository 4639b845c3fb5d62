//! `unevaluatedProperties` and `unevaluatedItems`: which schemas beside them have seen a part of the instance.
//!
//! Only what certainly holds counts as seen, so that more is constrained than the keyword asks, never less.

use super::super::GrammarError;
use super::document::{Document, Node};
use super::{refuse, rewrite};
use serde_json::Value;

/// Refuses the keyword beside what rewriting would change: negated schemas see nothing.
pub(super) fn check(
    document: &Document<'_>,
    owner: &Value,
    keyword: &str,
    is_rewritten: impl Fn(&Value) -> bool,
) -> Result<(), GrammarError> {
    let mut open = vec![owner];
    let mut seen: Vec<&Value> = Vec::new();
    while let Some(node) = open.pop() {
        if seen.iter().any(|other| std::ptr::eq(*other, node)) {
            continue;
        }
        seen.push(node);
        let culprit = node.as_object().into_iter().flatten().find(|(key, value)| rewrite::replaces(key, value));
        let name = culprit.map(|(key, _)| key.as_str()).filter(|key| *key != "dependentRequired" && *key != "$id");
        let name = name.or_else(|| is_rewritten(node).then_some("oneOf"));
        if let Some(name) = name {
            let message = format!(
                "`{keyword}` cannot be enforced exactly beside `{name}`; list the properties or items in one schema"
            );
            return Err(refuse(format!("{}/{keyword}", document.pointer(owner)), message));
        }
        open.extend(in_place(document, node));
    }
    Ok(())
}

/// The schemas that `node` applies to the same instance.
fn in_place<'n, 'd: 'n>(document: &'n Document<'d>, node: &'n Value) -> impl Iterator<Item = &'n Value> {
    let target = node.get("$ref").and_then(Value::as_str).and_then(|text| document.resolve(text));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|keyword| node.get(keyword)?.as_array());
    target.map(|(_, node)| node).into_iter().chain(lists.flatten())
}

/// `owner` and the schemas under it that hold in this way to satisfy the place.
pub(super) fn seeing<'a>(document: &Document<'a>, parts: &[Node<'a>], owner: Node<'a>) -> Vec<Node<'a>> {
    let mut found = vec![owner];
    let mut next = 0;
    while let Some(node) = found.get(next).copied() {
        next += 1;
        for part in parts {
            let inside = in_place(document, node).any(|child| std::ptr::eq(child, *part));
            if inside && !found.iter().any(|known| std::ptr::eq(*known, *part)) {
                found.push(part);
            }
        }
    }
    found
}
