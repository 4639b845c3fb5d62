//! Limits: what is refused before anything expensive or recursive sees the schema. Judges size and shape, not meaning.

use super::super::GrammarError;
use super::document::{Document, Draft, Node, Place, escape};
use super::{keywords, refuse, too_complex};
use serde_json::Value;
use std::collections::HashMap;

/// Bytes of the schema as compact JSON.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Nesting of the JSON text.
pub(super) const MAX_JSON_DEPTH: usize = 32;
/// Nesting with every `$ref` followed once, in the order of a depth-first compiler.
pub(super) const MAX_EXPANDED_DEPTH: usize = 64;
/// Schemas that can be reached.
pub(super) const MAX_SCHEMAS: usize = 5_000;
/// Schemas that apply to one place of an instance, with repetitions.
const MAX_COMBINATIONS: usize = 2_000;

/// Refuses JSON that is too big or too deep. Safe on any nesting.
pub(super) fn check_json(root: &Value) -> Result<(), GrammarError> {
    let mut bytes = 0;
    let mut stack = vec![(root, 1)];
    while let Some((value, depth)) = stack.pop() {
        if depth > MAX_JSON_DEPTH {
            return Err(too_complex("", format!("JSON nested deeper than {MAX_JSON_DEPTH} levels")));
        }
        bytes += own_bytes(value);
        if bytes > MAX_BYTES {
            return Err(too_complex("", format!("larger than {MAX_BYTES} bytes")));
        }
        match value {
            Value::Array(items) => stack.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => stack.extend(map.values().map(|item| (item, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes that a value adds to the text, without its children.
fn own_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(number) => number.to_string().len() + 1,
        Value::String(text) => text.len() + 3,
        Value::Array(_) => 3,
        Value::Object(map) => 3 + map.keys().map(|key| key.len() + 3).sum::<usize>(),
    }
}

/// Visits every reachable schema once, as a depth-first compiler would, and checks it. Fills the document's pointers.
pub(super) fn check_schemas<'a>(document: &mut Document<'a>) -> Result<(), GrammarError> {
    let mut visited = Vec::new();
    let mut stack = vec![(Place::default(), document.root, 1)];
    while let Some((mut place, node, depth)) = stack.pop() {
        if let Some(origin) = document.origin(node) {
            origin.clone_into(&mut place.caller);
        }
        if depth > MAX_EXPANDED_DEPTH {
            let message = format!("schemas and references nested deeper than {MAX_EXPANDED_DEPTH} levels");
            return Err(too_complex(place.caller, message));
        }
        if !document.note(node, &place) {
            continue;
        }
        visited.push(node);
        if visited.len() > MAX_SCHEMAS {
            return Err(too_complex(place.caller, format!("more than {MAX_SCHEMAS} schemas")));
        }
        keywords::check(document, node, &place.caller)?;
        let children = children(document, node, &place)?;
        stack.extend(children.into_iter().rev().map(|(place, child)| (place, child, depth + 1)));
    }
    check_progress(document, &visited)
}

/// The schemas directly inside a schema (not the unused definitions), with their places.
fn children<'a>(
    document: &Document<'a>,
    node: Node<'a>,
    place: &Place,
) -> Result<Vec<(Place, Node<'a>)>, GrammarError> {
    let mut found = Vec::new();
    for (keyword, value) in node.as_object().into_iter().flatten() {
        let at = place.child(&escape(keyword));
        match (keyword.as_str(), value) {
            ("$ref", _) => found.push(reference(document, value, at.caller)?),
            (keyword, Value::Array(items)) if holds_list(keyword) => {
                found.extend(items.iter().enumerate().map(|(index, item)| (at.child(&index.to_string()), item)));
            }
            (keyword, Value::Object(map)) if holds_map(keyword) => {
                let schemas = map.iter().filter(|(_, item)| !item.is_array());
                found.extend(schemas.map(|(name, item)| (at.child(&escape(name)), item)));
            }
            (keyword, _) if holds_schema(keyword) => found.push((at, value)),
            _ => {}
        }
    }
    Ok(found)
}

/// Keywords whose value is a list of schemas; `items` may be one or a list.
pub(super) fn holds_list(keyword: &str) -> bool {
    matches!(keyword, "allOf" | "anyOf" | "oneOf" | "prefixItems" | "items")
}

/// Keywords whose value is an object of schemas; in `dependencies` some are lists of names. Definitions are not among them.
pub(super) fn holds_map(keyword: &str) -> bool {
    matches!(keyword, "properties" | "patternProperties" | "dependentSchemas" | "dependencies")
}

/// The same with definitions.
pub(super) fn holds_named(keyword: &str) -> bool {
    holds_map(keyword) || matches!(keyword, "$defs" | "definitions")
}

/// Keywords whose value is a schema.
pub(super) fn holds_schema(keyword: &str) -> bool {
    matches!(keyword, "items" | "additionalItems" | "additionalProperties" | "propertyNames" | "contains")
        || matches!(keyword, "not" | "if" | "then" | "else" | "unevaluatedProperties" | "unevaluatedItems")
}

fn reference<'a>(document: &Document<'a>, value: &Value, at: String) -> Result<(Place, Node<'a>), GrammarError> {
    let text = value.as_str().unwrap_or_default();
    if !text.starts_with('#') {
        return Err(refuse(at, "`$ref` must point into this schema (`#/…`); nothing is fetched"));
    }
    if !(text == "#" || text.starts_with("#/")) {
        return Err(refuse(at, "`$ref` must be a JSON pointer (`#/…`); anchors are not supported"));
    }
    let target = document.resolve(text).map(|(pointer, node)| (Place::target(pointer), node));
    target.ok_or_else(|| refuse(at, "`$ref` points to nothing in this schema"))
}

/// Refuses references that come back to themselves without consuming any part of an instance, and combinations whose parts
/// are too many once multiplied out: a validator visits each for every scalar.
fn check_progress<'a>(document: &Document<'a>, visited: &[Node<'a>]) -> Result<(), GrammarError> {
    let mut costs: HashMap<*const Value, usize> = HashMap::new();
    let mut open: HashMap<*const Value, usize> = HashMap::new();
    let mut parents: HashMap<*const Value, Vec<Node<'a>>> = HashMap::new();
    let mut free = Vec::new();
    for node in visited {
        let inner = in_place(document, node);
        open.insert(std::ptr::from_ref(*node), inner.len());
        free.extend(inner.is_empty().then_some(*node));
        for child in inner {
            parents.entry(std::ptr::from_ref(child)).or_default().push(node);
        }
    }
    while let Some(node) = free.pop() {
        let cost = *costs.entry(std::ptr::from_ref(node)).or_default() + 1;
        if cost > MAX_COMBINATIONS {
            let message = format!("`allOf`/`anyOf`/`oneOf`/`$ref` multiply to more than {MAX_COMBINATIONS} schemas");
            return Err(too_complex(document.pointer(node), message));
        }
        open.remove(&std::ptr::from_ref(node));
        for parent in parents.remove(&std::ptr::from_ref(node)).into_iter().flatten() {
            *costs.entry(std::ptr::from_ref(parent)).or_default() += cost;
            let Some(left) = open.get_mut(&std::ptr::from_ref(parent)) else { continue };
            *left -= 1;
            free.extend((*left == 0).then_some(parent));
        }
    }
    let stuck = visited.iter().find(|node| open.contains_key(&std::ptr::from_ref(**node)));
    stuck.map_or(Ok(()), |node| Err(refuse(document.pointer(node), "this schema refers to itself without end")))
}

/// The schemas that apply to the same instance as `node`.
fn in_place<'a>(document: &Document<'a>, node: Node<'a>) -> Vec<Node<'a>> {
    let mut found = Vec::new();
    let Some(map) = node.as_object() else { return found };
    let target = map.get("$ref").and_then(Value::as_str).and_then(|text| document.resolve(text));
    found.extend(target.map(|(_, node)| node));
    for keyword in ["allOf", "anyOf", "oneOf"] {
        found.extend(map.get(keyword).and_then(Value::as_array).into_iter().flatten());
    }
    found.extend(["not", "if", "then", "else"].iter().filter_map(|keyword| map.get(*keyword)));
    for keyword in ["dependentSchemas", "dependencies"] {
        let named = map.get(keyword).and_then(Value::as_object).into_iter().flatten();
        found.extend(named.map(|(_, value)| value).filter(|value| !value.is_array()));
    }
    found
}

/// Keywords that older drafts do not know and hence ignore.
const NEWER: [(&str, Draft, &str); 9] = [
    ("contains", Draft::Six, "draft 4 has no `contains`"),
    ("propertyNames", Draft::Six, "draft 4 has no `propertyNames`"),
    ("if", Draft::Seven, "`if` needs draft 7"),
    ("minContains", Draft::Nineteen, "`minContains` needs draft 2019-09"),
    ("maxContains", Draft::Nineteen, "`maxContains` needs draft 2019-09"),
    ("dependentRequired", Draft::Nineteen, "`dependentRequired` needs draft 2019-09; this one writes `dependencies`"),
    ("dependentSchemas", Draft::Nineteen, "`dependentSchemas` needs draft 2019-09; this one writes `dependencies`"),
    ("unevaluatedProperties", Draft::Nineteen, "`unevaluatedProperties` needs draft 2019-09"),
    ("unevaluatedItems", Draft::Nineteen, "`unevaluatedItems` needs draft 2019-09"),
];

/// Refuses what a draft reads differently from the way it is enforced here.
pub(super) fn check_draft(draft: Draft, node: Node<'_>) -> Result<(), &'static str> {
    let has = |keyword: &str| node.get(keyword).is_some();
    let tuple = node.get("items").is_some_and(Value::is_array);
    if draft == Draft::Twenty && tuple {
        return Err("a list of `items` is the old form; write it as `prefixItems`");
    }
    if draft < Draft::Twenty && has("prefixItems") {
        return Err("`prefixItems` needs draft 2020-12; this `$schema` writes it as a list of `items`");
    }
    if draft == Draft::Four && has("const") {
        return Err("draft 4 has no `const`; write it as an `enum` of one value");
    }
    if let Some((_, _, message)) = NEWER.iter().find(|(keyword, since, _)| draft < *since && has(keyword)) {
        return Err(message);
    }
    if has("additionalItems") && !tuple {
        return Err("`additionalItems` has a meaning only beside a list of `items` (draft 2019-09 and older)");
    }
    if draft <= Draft::Seven
        && has("$ref")
        && node.as_object().is_some_and(|map| map.keys().any(|key| keywords::asserts(key)))
    {
        return Err("this draft ignores keywords beside `$ref`; combine them with `allOf`");
    }
    Ok(())
}
