//! Objects: named properties, properties by pattern, all others, and how many.

use super::super::GrammarError;
use super::document::{Document, Node};
use super::keywords::{self, MAX_PROPERTIES};
use super::location::Locations;
use super::number::clamp_count;
use super::too_complex;
use serde_json::Value;
use std::collections::HashSet;

/// Children are locations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) fields: Vec<Field>,
    /// Pattern in the compiler's syntax, and what it covers.
    pub(super) patterns: Vec<(String, usize)>,
    /// `None` allows no further properties.
    pub(super) additional: Option<usize>,
    pub(super) minimum: u64,
    pub(super) maximum: Option<u64>,
    /// Where the schema stands, for refusals.
    pub(super) pointer: String,
}

/// A property known by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: usize,
    pub(super) required: bool,
}

/// What the object keywords of all parts leave; `None` when nothing.
pub(super) fn merge<'a>(
    document: &Document<'a>,
    locations: &mut Locations<'a>,
    parts: &[Node<'a>],
) -> Result<Option<Object>, GrammarError> {
    let minimum = parts.iter().filter_map(|part| keywords::count(part.get("minProperties")?)).max().unwrap_or(0);
    let maximum = parts.iter().filter_map(|part| clamp_count(part.get("maxProperties")?)).min();
    let pointer = parts.first().map_or("", |part| document.pointer(part)).to_owned();
    let required: HashSet<&str> = parts.iter().flat_map(|part| required(part)).collect();
    let names = names(parts);
    if names.len() > MAX_PROPERTIES {
        return Err(too_complex(pointer, format!("more than {MAX_PROPERTIES} properties meet in one object")));
    }
    let field = |name: &'a str| Field {
        name: name.to_owned(),
        value: locations.id(parts.iter().flat_map(|part| schemas_for(document, part, name))),
        required: required.contains(name),
    };
    let fields = names.into_iter().map(field).collect();
    let patterns = patterns(document, locations, parts)?;
    let additional = additional(locations, parts);
    Ok(Some(Object { fields, patterns, additional, minimum, maximum, pointer }))
}

fn map<'a>(part: Node<'a>, keyword: &str) -> impl Iterator<Item = (&'a String, Node<'a>)> {
    part.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

fn required<'a>(part: Node<'a>) -> impl Iterator<Item = &'a str> {
    part.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Names in the order of declaration, then those that are only required.
fn names<'a>(parts: &[Node<'a>]) -> Vec<&'a str> {
    let declared = parts.iter().flat_map(|part| map(part, "properties").map(|(name, _)| name.as_str()));
    let demanded = parts.iter().flat_map(|part| required(part));
    let mut seen = HashSet::new();
    declared.chain(demanded).filter(|name| seen.insert(*name)).collect()
}

/// The schemas that one part applies to the property `name`.
fn schemas_for<'a>(document: &Document<'a>, part: Node<'a>, name: &str) -> Vec<Node<'a>> {
    let declared = map(part, "properties").filter(|(key, _)| *key == name).map(|(_, node)| node);
    let matching = map(part, "patternProperties").filter(|(regex, _)| document.name_matches(regex, name));
    let mut found: Vec<Node<'a>> = declared.chain(matching.map(|(_, node)| node)).collect();
    if found.is_empty() {
        found.extend(part.get("additionalProperties"));
    }
    found
}

/// Patterns of all parts. The compiler refuses overlapping patterns, so a name under one is under no other.
fn patterns<'a>(
    document: &Document<'a>,
    locations: &mut Locations<'a>,
    parts: &[Node<'a>],
) -> Result<Vec<(String, usize)>, GrammarError> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for owner in parts {
        for (regex, _) in map(owner, "patternProperties") {
            if !seen.insert(regex) {
                continue;
            }
            let covering = |part: &Node<'a>| {
                let own = map(part, "patternProperties").find(|(other, _)| *other == regex).map(|(_, node)| node);
                own.or_else(|| part.get("additionalProperties"))
            };
            let id = locations.id(parts.iter().filter_map(covering));
            found.push((document.translate(regex, owner, "patternProperties")?, id));
        }
    }
    Ok(found)
}

/// What further properties hold: as the parts say; nothing when they say nothing but declare some; else anything.
fn additional<'a>(locations: &mut Locations<'a>, parts: &[Node<'a>]) -> Option<usize> {
    let said: Vec<Node<'a>> = parts.iter().filter_map(|part| part.get("additionalProperties")).collect();
    let declares =
        |part: &Node<'a>| ["properties", "patternProperties", "required"].iter().any(|key| part.get(key).is_some());
    (!said.is_empty() || !parts.iter().any(declares)).then(|| locations.id(said))
}
