//! Arrays: a tuple, a type for the rest, and how many.

use super::document::Node;
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
}

/// What the array keywords of all parts leave; `None` when nothing.
pub(super) fn merge<'a>(locations: &mut Locations<'a>, parts: &[Node<'a>]) -> Option<Array> {
    let count = |part: &Node<'a>, keyword: &str| part.get(keyword).cloned();
    let minimum = parts.iter().filter_map(|part| keywords::count(&count(part, "minItems")?)).max().unwrap_or(0);
    let maximum = parts.iter().filter_map(|part| clamp_count(&count(part, "maxItems")?)).min();
    if maximum.is_some_and(|maximum| minimum > maximum) {
        return None;
    }
    let length = parts.iter().map(|part| tuple(part).len()).max().unwrap_or(0);
    let prefix = (0..length)
        .map(|index| locations.id(parts.iter().filter_map(|part| tuple(part).get(index).or_else(|| rest(part)))))
        .collect();
    let rest = Some(locations.id(parts.iter().filter_map(|part| rest(part))));
    Some(Array { minimum, maximum, prefix, rest })
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
