//! The graph as a schema for the grammar compiler, in the small part of JSON Schema that it enforces exactly.

use super::super::GrammarError;
use super::array::Array;
use super::atom::Atom;
use super::count::{self, Presence, Variant};
use super::graph::Graph;
use super::object::{Field, Object};
use super::{refuse, too_complex, unique};
use serde_json::{Map, Value, json};

/// Optional properties that may be open at once: each costs the compiler four of its 2,000 parser items in a row (500
/// compile, 501 do not).
const MAX_OPTIONAL: usize = 450;
/// Scalars up to this length are written where they are used.
const MAX_INLINE: usize = 256;

/// Compact JSON; no `\u` escapes, so that a key has one spelling.
fn options() -> Value {
    json!({"whitespace_flexible": false, "json_allowed_escapes": "nrbtf\\\""})
}

/// The compiler's schema for a graph.
pub(super) fn emit(graph: &Graph<'_>) -> Result<Value, GrammarError> {
    let written = Vec::with_capacity(graph.states.len());
    let mut emitter = Emitter { graph, written, optional: 0, ambiguous: false };
    for state in &graph.states {
        let schema = emitter.state(state)?;
        let small = state.iter().all(|atom| atom.children().is_empty()) && schema.to_string().len() <= MAX_INLINE;
        emitter.written.push(Written { schema, small });
    }
    if emitter.ambiguous && emitter.optional > MAX_OPTIONAL {
        let message = format!("more than {MAX_OPTIONAL} optional properties in a schema with alternative objects");
        return Err(too_complex("", message));
    }
    let root = emitter.written.last().map(|root| root.schema.clone());
    let Some(Value::Object(mut root)) = root else { return Err(refuse("", "no value can satisfy this schema")) };
    root.insert("$defs".into(), Value::Object(emitter.definitions()));
    root.insert("x-guidance".into(), options());
    Ok(Value::Object(root))
}

struct Written {
    schema: Value,
    small: bool,
}

struct Emitter<'g, 'a> {
    graph: &'g Graph<'a>,
    written: Vec<Written>,
    optional: usize,
    ambiguous: bool,
}

impl Emitter<'_, '_> {
    fn definitions(self) -> Map<String, Value> {
        let named = self.written.into_iter().enumerate().filter(|(_, written)| !written.small);
        named.map(|(id, written)| (format!("d{id}"), written.schema)).collect()
    }

    fn reference(&self, state: usize) -> Value {
        let written = &self.written[state];
        if written.small { written.schema.clone() } else { json!({"$ref": format!("#/$defs/d{state}")}) }
    }

    fn state(&mut self, atoms: &[Atom<'_>]) -> Result<Value, GrammarError> {
        let mut options = Vec::new();
        let mut containers = 0;
        for atom in atoms {
            let before = options.len();
            match atom {
                Atom::Null => options.push(json!({"type": "null"})),
                Atom::Boolean => options.push(json!({"type": "boolean"})),
                Atom::Number(number) => options.push(number.emit()),
                Atom::Text(text) => options.push(text.emit()),
                Atom::Constants(values) => options.push(json!({"enum": values})),
                Atom::Array(array) => options.push(self.array(array)?),
                Atom::Object(object) => options.extend(self.object(object)?),
            }
            containers += if matches!(atom, Atom::Array(_) | Atom::Object(_)) { options.len() - before } else { 0 };
        }
        self.ambiguous |= containers > 1;
        Ok(match options.len() {
            0 => Value::Bool(false),
            1 => options.swap_remove(0),
            _ => json!({"anyOf": options}),
        })
    }

    fn array(&self, array: &Array) -> Result<Value, GrammarError> {
        if let Some(pointer) = &array.unique
            && let Some(values) = unique::arrays(array, &self.graph.states, pointer)?
        {
            return Ok(json!({"enum": values}));
        }
        let rest = array.rest.map_or(Value::Bool(false), |rest| self.reference(rest));
        let mut schema = json!({"type": "array", "items": rest});
        if !array.prefix.is_empty() {
            schema["prefixItems"] = array.prefix.iter().map(|child| self.reference(*child)).collect();
        }
        if array.minimum > 0 {
            schema["minItems"] = json!(array.minimum);
        }
        if let Some(maximum) = array.maximum {
            schema["maxItems"] = json!(maximum);
        }
        Ok(schema)
    }

    /// The object, in as many variants as its property count needs.
    fn object(&mut self, object: &Object) -> Result<Vec<Value>, GrammarError> {
        let variants = count::variants(object, |field| self.is_optional(field))?;
        self.optional += variants.iter().map(|variant| variant.optional).sum::<usize>();
        Ok(variants.iter().map(|variant| self.variant(object, variant)).collect())
    }

    fn is_optional(&self, field: &Field) -> bool {
        !field.required && self.written[field.value].schema != Value::Bool(false)
    }

    fn variant(&self, object: &Object, variant: &Variant) -> Value {
        let value = |index: usize| match variant.presence[index] {
            Presence::Absent => Value::Bool(false),
            _ => self.reference(object.fields[index].value),
        };
        let open = variant.open && (object.additional.is_some() || !object.patterns.is_empty());
        let shown = |index: &usize| open || variant.presence[*index] != Presence::Absent;
        let indexes = (0..object.fields.len()).filter(shown);
        let properties: Map<String, Value> =
            indexes.map(|index| (object.fields[index].name.clone(), value(index))).collect();
        let named = object.fields.iter().zip(&variant.presence);
        let required: Vec<&str> = named
            .filter(|(_, presence)| **presence == Presence::Required)
            .map(|(field, _)| field.name.as_str())
            .collect();
        let additional = object.additional.filter(|_| open).map_or(Value::Bool(false), |value| self.reference(value));
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": additional});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if open && !object.patterns.is_empty() {
            let patterns = object.patterns.iter().map(|(regex, value)| (regex.clone(), self.reference(*value)));
            schema["patternProperties"] = Value::Object(patterns.collect());
        }
        for (keyword, bound) in [("minProperties", variant.minimum), ("maxProperties", variant.maximum)] {
            if let Some(bound) = bound.filter(|_| open) {
                schema[keyword] = json!(bound);
            }
        }
        schema
    }
}
