//! Arrays: a tuple, a type for the rest, and how many.

use super::document::{Document, Node};
use super::evaluated;
use super::keywords;
use super::location::Locations;
use super::number::clamp_count;
use serde_json::Value;

/// Items by position, then all others. Children are locations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) minimum: u64,
    pub(super) maximum: Option<u64>,
    pub(super) prefix: Vec<usize>,
    /// `None` allows no further items.
    pub(super) rest: Option<usize>,
    /// Where `uniqueItems` stands, if it does.
    pub(super) unique: Option<String>,
}

/// What the array keywords of all parts leave; `None` when nothing.
pub(super) fn merge<'a>(document: &Document<'a>, locations: &mut Locations<'a>, parts: &[Node<'a>]) -> Option<Array> {
    let count = |part: &Node<'a>, keyword: &str| part.get(keyword).cloned();
    let minimum = parts.iter().filter_map(|part| keywords::count(&count(part, "minItems")?)).max().unwrap_or(0);
    let maximum = parts.iter().filter_map(|part| clamp_count(&count(part, "maxItems")?)).min();
    if maximum.is_some_and(|maximum| minimum > maximum) {
        return None;
    }
    let rests: Vec<Rest<'a>> = parts.iter().map(|part| Rest::of(document, parts, part)).collect();
    let length = rests.iter().map(|rest| rest.after.max(tuple(rest.part).len())).max().unwrap_or(0);
    let prefix = (0..length).map(|index| locations.id(rests.iter().flat_map(|rest| rest.at(index)))).collect();
    let others = Some(locations.id(rests.iter().flat_map(|rest| rest.at(length))));
    let unique = parts.iter().find(|part| part.get("uniqueItems") == Some(&Value::Bool(true)));
    let unique = unique.map(|part| format!("{}/uniqueItems", document.pointer(part)));
    Some(Array { minimum, maximum, prefix, rest: others, unique })
}

/// What one part says of items by position.
struct Rest<'a> {
    part: Node<'a>,
    unevaluated: Option<Node<'a>>,
    /// The first unevaluated position.
    after: usize,
}

impl<'a> Rest<'a> {
    fn of(document: &Document<'a>, parts: &[Node<'a>], part: Node<'a>) -> Self {
        let Some(unevaluated) = part.get("unevaluatedItems") else { return Self { part, unevaluated: None, after: 0 } };
        let seeing = evaluated::seeing(document, parts, part);
        let inner = |node: &Node<'a>| !std::ptr::eq(*node, part) && node.get("unevaluatedItems").is_some();
        let all = seeing.iter().any(|node| rest(node).is_some() || inner(node));
        let after = seeing.iter().map(|node| tuple(node).len()).max().unwrap_or(0);
        Self { part, unevaluated: (!all).then_some(unevaluated), after }
    }

    fn at(&self, index: usize) -> impl Iterator<Item = Node<'a>> {
        let own = tuple(self.part).get(index).or_else(|| rest(self.part));
        own.into_iter().chain(self.unevaluated.filter(|_| index >= self.after))
    }
}

/// The schemas by position, in the new spelling or the old.
fn tuple<'a>(part: Node<'a>) -> &'a [Value] {
    let list = part.get("prefixItems").or_else(|| part.get("items")).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// The schema of the items after the tuple.
fn rest<'a>(part: Node<'a>) -> Option<Node<'a>> {
    match part.get("items") {
        Some(Value::Array(_)) => part.get("additionalItems"),
        items => items,
    }
}
