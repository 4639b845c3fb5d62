//! One type with all its constraints: what an alternative leaves of each JSON type.

use super::super::GrammarError;
use super::array::{self, Array};
use super::document::{Document, Node};
use super::keywords::asserts;
use super::location::{Alternative, Chosen, Locations, alternatives};
use super::number::{self, Number};
use super::object::{self, Object};
use super::refuse;
use super::text::{self, Text};
use serde_json::Value;

/// The `type` names with the bits of their instances: a number is an integer or not.
pub(super) const TYPES: [(&str, u8); 7] =
    [("null", 1), ("boolean", 2), ("number", 12), ("integer", 4), ("string", 16), ("array", 32), ("object", 64)];
const FRACTION: u8 = 8;

/// Values of one JSON type, or some constants. Children are locations.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Atom<'a> {
    Null,
    Boolean,
    Number(Number),
    Text(Text),
    Array(Array),
    Object(Object),
    Constants(Vec<&'a Value>),
}

/// An atom with the `oneOf` branches that led to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice<'a> {
    pub(super) atom: Atom<'a>,
    pub(super) chosen: Vec<Chosen<'a>>,
}

/// For every location, the choices that make it up; location 0 is the root.
pub(super) fn definitions<'a>(document: &Document<'a>) -> Result<Vec<Vec<Choice<'a>>>, GrammarError> {
    let mut locations = Locations::default();
    locations.id([document.root]);
    let mut definitions = Vec::new();
    while let Some(nodes) = locations.get(definitions.len())? {
        let mut choices: Vec<Choice<'a>> = Vec::new();
        for alternative in alternatives(document, &nodes)? {
            for atom in atoms(document, &mut locations, &nodes, &alternative)? {
                let choice = Choice { atom, chosen: alternative.chosen.clone() };
                if !choices.contains(&choice) {
                    choices.push(choice);
                }
            }
        }
        definitions.push(choices);
    }
    Ok(definitions)
}

fn atoms<'a>(
    document: &Document<'a>,
    locations: &mut Locations<'a>,
    nodes: &[Node<'a>],
    alternative: &Alternative<'a>,
) -> Result<Vec<Atom<'a>>, GrammarError> {
    let parts = &alternative.parts;
    if let Some(values) = parts.iter().find_map(|part| constants(part)) {
        return Ok(filter(document, nodes, parts, values)?.map(Atom::Constants).into_iter().collect());
    }
    let types = parts.iter().map(|part| types_of(part)).fold(u8::MAX, |types, more| types & more);
    let has = |name: &str| types & bits(name) != 0;
    let mut found = Vec::new();
    let excluded = excluded(parts);
    found.extend((has("null") && !excluded.contains(&&Value::Null)).then_some(Atom::Null));
    if has("boolean") {
        found.extend(booleans(&excluded));
    }
    // Fractions alone are no type that could be written.
    if types & bits("integer") != 0 {
        let numbers = number::merge(parts, types & FRACTION == 0, &excluded);
        let numbers = numbers.map_err(|(node, message)| refuse(document.pointer(node), message))?;
        found.extend(numbers.into_iter().map(Atom::Number));
    }
    if has("string") {
        found.extend(text::merge(document, parts, &excluded)?.map(Atom::Text));
    }
    if has("array") {
        found.extend(array::merge(document, locations, parts).map(Atom::Array));
    }
    if has("object") {
        found.extend(object::merge(document, locations, parts)?.map(Atom::Object));
    }
    Ok(found)
}

static BOOLEANS: [Value; 2] = [Value::Bool(false), Value::Bool(true)];

fn booleans<'a>(excluded: &[&Value]) -> Option<Atom<'a>> {
    let left: Vec<&Value> = BOOLEANS.iter().filter(|value| !excluded.contains(value)).collect();
    match left.len() {
        0 => None,
        1 => Some(Atom::Constants(left)),
        _ => Some(Atom::Boolean),
    }
}

/// The scalars that the parts rule out; `rewrite` has left no other `not`.
fn excluded<'a>(parts: &[Node<'a>]) -> Vec<&'a Value> {
    let lists = parts.iter().filter_map(|part| part.get("not")?.get("enum")?.as_array());
    lists.flatten().collect()
}

/// The names of the types with these bits. There is no name for fractions alone.
pub(super) fn names_of(types: u8) -> Vec<&'static str> {
    let integer = bits("integer");
    let named = TYPES.iter().filter(|(_, own)| *own != integer && types & own == *own).map(|(name, _)| *name);
    named.chain((types & bits("number") == integer).then_some("integer")).collect()
}

/// The bits of a type name.
pub(super) fn bits(name: &str) -> u8 {
    TYPES.iter().find(|(known, _)| *known == name).map_or(0, |(_, bits)| *bits)
}

/// The bits that a schema's `type` allows.
pub(super) fn types_of(node: Node<'_>) -> u8 {
    match node.get("type") {
        Some(Value::String(name)) => bits(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(bits).fold(0, |all, more| all | more),
        _ => u8::MAX,
    }
}

/// The values that a schema's `const` or `enum` allows.
pub(super) fn constants<'a>(node: Node<'a>) -> Option<Vec<&'a Value>> {
    let constant = node.get("const").map(|value| vec![value]);
    constant.or_else(|| Some(node.get("enum")?.as_array()?.iter().collect()))
}

/// The values that all schemas of the location and of this way to satisfy it accept; `None` when there are none.
fn filter<'a>(
    document: &Document<'a>,
    nodes: &[Node<'a>],
    parts: &[Node<'a>],
    mut values: Vec<&'a Value>,
) -> Result<Option<Vec<&'a Value>>, GrammarError> {
    if let [part] = parts
        && only_constants(part)
    {
        return Ok(Some(values));
    }
    // Checking a nested value against alternatives can take a validator exponential time.
    if let Some(part) = parts.iter().find(|_| values.iter().any(|value| value.is_array() || value.is_object())) {
        let message = "list and object values in `enum`/`const` cannot be combined with other keywords";
        return Err(refuse(document.pointer(part), message));
    }
    for node in nodes.iter().chain(parts) {
        let verdicts: Option<Vec<bool>> = values.iter().map(|value| document.accepts(node, value)).collect();
        let verdicts = verdicts.ok_or_else(|| refuse(document.pointer(node), "its constants cannot be checked"))?;
        let mut verdicts = verdicts.into_iter();
        values.retain(|_| verdicts.next().unwrap_or(false));
    }
    Ok((!values.is_empty()).then_some(values))
}

/// Nothing but one of `const` and `enum` constrains the value.
fn only_constants(part: Node<'_>) -> bool {
    part.as_object().is_some_and(|map| map.keys().filter(|key| asserts(key)).count() == 1 && !map.contains_key("$ref"))
}

impl Atom<'_> {
    /// The bits of the types that the atom's values have.
    pub(super) fn types(&self) -> u8 {
        match self {
            Self::Null => bits("null"),
            Self::Boolean => bits("boolean"),
            Self::Number(number) => bits(if number.integer { "integer" } else { "number" }),
            Self::Text(_) => bits("string"),
            Self::Array(_) => bits("array"),
            Self::Object(_) => bits("object"),
            Self::Constants(_) => u8::MAX,
        }
    }
}
