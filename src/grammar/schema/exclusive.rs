//! Proofs for `oneOf`: what is generated for one branch can never satisfy another.
//!
//! Then the branches may be offered as plain alternatives. The generated side is the narrowed one (closed objects, bounded
//! numbers, rewritten negations); the other side is the caller's own document, since what a narrowed rival excludes the
//! rival itself may accept. What cannot be proved is left to `rewrite`, or refused.

use super::super::GrammarError;
use super::array::Array;
use super::atom::{Atom, Choice, constants, types_of};
use super::document::{Document, Node};
use super::object::Object;
use super::refuse;
use serde_json::{Map, Value};
use std::cell::Cell;

/// How deep a proof looks; the only recursion over a schema, and this bounds it.
const MAX_DEPTH: u32 = 12;
const MAX_STEPS: u32 = 100_000;

struct Prover<'d, 'c, 'a> {
    /// As the caller wrote it. Keywords that no proof knows only make it narrower.
    caller: &'d Document<'c>,
    definitions: &'d [Vec<Choice<'a>>],
    steps: Cell<u32>,
}

/// Two branches of a `oneOf` that may hold together.
pub(super) struct Overlap {
    /// Where the caller wrote the owner of the `oneOf`.
    pub(super) owner: String,
    one: usize,
    other: usize,
}

impl Overlap {
    /// The refusal, for lack of a better way.
    pub(super) fn refusal(&self, cause: &str) -> GrammarError {
        let message = format!(
            "branches {} and {} may both hold; make them exclusive (a required property with different constants) or use \
             `anyOf`{cause}",
            self.one, self.other
        );
        refuse(format!("{}/oneOf", self.owner), message)
    }
}

/// Every `oneOf` of the rewritten `document` that is not proved exclusive, once.
pub(super) fn overlaps<'a>(
    caller: &Document<'_>,
    document: &Document<'a>,
    definitions: &[Vec<Choice<'a>>],
) -> Vec<Overlap> {
    let prover = Prover { caller, definitions, steps: Cell::new(0) };
    let mut found: Vec<Overlap> = Vec::new();
    for choice in definitions.iter().flatten() {
        for chosen in &choice.chosen {
            let owner = document.pointer(chosen.owner);
            if found.iter().any(|overlap| overlap.owner == owner) {
                continue;
            }
            let other = prover.unproved(&choice.atom, owner, chosen.branch);
            found.extend(other.map(|other| Overlap { owner: owner.to_owned(), one: chosen.branch, other }));
        }
    }
    found
}

impl<'c, 'a> Prover<'_, 'c, 'a> {
    /// A rival of a branch that is not proved to exclude `atom`; the `oneOf` is named by its owner's place.
    fn unproved(&self, atom: &Atom<'a>, owner: &str, branch: usize) -> Option<usize> {
        let written = self.caller.root.pointer(owner).and_then(|owner| owner.get("oneOf")?.as_array());
        let Some(branches) = written else { return Some(branch) };
        let mut rivals = branches.iter().enumerate().filter(|(index, _)| *index != branch);
        rivals.find(|(_, rival)| !self.excludes(atom, rival, MAX_DEPTH)).map(|(index, _)| index)
    }

    /// Whether no value of `atom` satisfies `schema`. False also means "not proved".
    fn excludes(&self, atom: &Atom<'a>, schema: Node<'c>, depth: u32) -> bool {
        self.steps.set(self.steps.get() + 1);
        if depth == 0 || self.steps.get() > MAX_STEPS {
            return false;
        }
        let map = match schema {
            Value::Object(map) => map,
            other => return other == &Value::Bool(false),
        };
        if let Atom::Constants(values) = atom {
            self.steps.set(self.steps.get().saturating_add(values.len() as u32));
            return values.iter().all(|value| self.excludes_value(value, schema));
        }
        let constants = constants(schema);
        atom.types() & types_of(schema) == 0
            || constants.is_some_and(|values| values.iter().all(|value| atom.types() & value_bits(value) == 0))
            || self.excluded_by_keywords(atom, map, depth - 1)
            || self.excluded_by_branches(atom, map, depth - 1)
    }

    /// Scalars are tried; nested values could take exponential time.
    fn excludes_value(&self, value: &Value, schema: Node<'c>) -> bool {
        let scalar = !value.is_array() && !value.is_object();
        value_bits(value) & types_of(schema) == 0 || (scalar && self.caller.accepts(schema, value) == Some(false))
    }

    fn excluded_by_keywords(&self, atom: &Atom<'a>, map: &'c Map<String, Value>, depth: u32) -> bool {
        match atom {
            Atom::Number(number) => number.misses(map),
            Atom::Text(text) => text.misses(map),
            Atom::Array(array) => self.excluded_array(array, map, depth),
            Atom::Object(object) => self.excluded_object(object, map, depth),
            _ => false,
        }
    }

    fn excluded_by_branches(&self, atom: &Atom<'a>, map: &'c Map<String, Value>, depth: u32) -> bool {
        let list = |keyword: &str| map.get(keyword).and_then(Value::as_array);
        let target = map.get("$ref").and_then(Value::as_str).and_then(|text| self.caller.resolve(text));
        let all = |list: &'c Vec<Value>| list.iter().all(|node| self.excludes(atom, node, depth));
        target.is_some_and(|(_, node)| self.excludes(atom, node, depth))
            || list("allOf").is_some_and(|list| list.iter().any(|node| self.excludes(atom, node, depth)))
            || list("anyOf").is_some_and(all)
            || list("oneOf").is_some_and(all)
    }

    /// By the first item, when there always is one.
    fn excluded_array(&self, array: &Array, map: &'c Map<String, Value>, depth: u32) -> bool {
        let tuple = map.get("prefixItems").or_else(|| map.get("items")).and_then(Value::as_array);
        let theirs = tuple.and_then(|list| list.first()).or_else(|| map.get("items").filter(|items| !items.is_array()));
        let own = array.prefix.first().copied().or(array.rest);
        match (own, theirs) {
            (Some(own), Some(theirs)) if array.minimum > 0 => self.excluded_at(own, theirs, depth),
            _ => false,
        }
    }

    /// By a property that one side has for certain and the other cannot have, or not with that value.
    fn excluded_object(&self, object: &Object, map: &'c Map<String, Value>, depth: u32) -> bool {
        let required: Vec<&str> =
            map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let closed = object.additional.is_none() && object.patterns.is_empty();
        let has = |name: &str| object.fields.iter().any(|field| field.name == name);
        if closed && required.iter().any(|name| !has(name)) {
            return true;
        }
        let certain = object.fields.iter().filter(|field| field.required || required.contains(&field.name.as_str()));
        certain.into_iter().any(|field| {
            let theirs = self.property_schema(map, &field.name);
            theirs.is_some_and(|theirs| self.excluded_at(field.value, theirs, depth))
        })
    }

    /// A schema that certainly applies to a property.
    fn property_schema(&self, map: &'c Map<String, Value>, name: &str) -> Option<Node<'c>> {
        let declared = map.get("properties").and_then(|properties| properties.get(name));
        let mut patterns = map.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        declared.or_else(|| {
            let covered = patterns.any(|(regex, _)| self.caller.name_matches(regex, name));
            if covered { None } else { map.get("additionalProperties") }
        })
    }

    fn excluded_at(&self, location: usize, schema: Node<'c>, depth: u32) -> bool {
        depth > 0 && self.definitions[location].iter().all(|choice| self.excludes(&choice.atom, schema, depth - 1))
    }
}

fn value_bits(value: &Value) -> u8 {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    super::atom::bits(name)
}
