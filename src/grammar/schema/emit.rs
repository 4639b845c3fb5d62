//! The graph as a schema for the grammar compiler, in the small part of JSON Schema that it enforces exactly.

use super::super::GrammarError;
use super::array::Array;
use super::atom::Atom;
use super::graph::Graph;
use super::object::{Field, Object};
use super::{refuse, too_complex};
use serde_json::{Map, Value, json};

/// Optional properties that may be open at once: each costs the compiler four of its 2,000 parser items in a row (500
/// compile, 501 do not).
const MAX_OPTIONAL: usize = 450;
/// Optional properties of an object that must have at least, or at most, one of them.
const MAX_VARIANTS: usize = 64;
/// Scalars up to this length are written where they are used.
const MAX_INLINE: usize = 256;

/// Compact JSON; no `\u` escapes, so that a key has one spelling.
fn options() -> Value {
    json!({"whitespace_flexible": false, "json_allowed_escapes": "nrbtf\\\""})
}

/// The compiler's schema for a graph.
pub(super) fn emit(graph: &Graph<'_>) -> Result<Value, GrammarError> {
    let mut emitter = Emitter { written: Vec::with_capacity(graph.states.len()), optional: 0, ambiguous: false };
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

struct Emitter {
    written: Vec<Written>,
    optional: usize,
    ambiguous: bool,
}

impl Emitter {
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
                Atom::Array(array) => options.push(self.array(array)),
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

    fn array(&self, array: &Array) -> Value {
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
        schema
    }

    /// The object, in as many variants as its property count needs.
    fn object(&mut self, object: &Object) -> Result<Vec<Value>, GrammarError> {
        let required = object.fields.iter().filter(|field| field.required).count() as u64;
        let optional: Vec<usize> =
            (0..object.fields.len()).filter(|index| self.is_optional(&object.fields[*index])).collect();
        self.optional += optional.len();
        let spare = optional.len() as u64;
        let least = object.minimum.saturating_sub(required);
        let most = object.maximum.map(|maximum| maximum.saturating_sub(required));
        let open = object.additional.is_some() || !object.patterns.is_empty();
        let most = most.filter(|most| open || *most < spare);
        let variants = match (open, least, most) {
            (_, 0, None) => vec![self.plain(object, &object.fields)],
            (_, 0, Some(0)) => vec![self.only(object, None)],
            (true, 0 | 1, _) if spare == 0 => vec![self.counted(object)],
            (false, _, None) if least == spare => vec![self.plain(object, &all_required(&object.fields))],
            (false, 1, None) if optional.len() <= MAX_VARIANTS => {
                optional.iter().map(|index| self.plain(object, &first_present(&object.fields, *index))).collect()
            }
            (false, 0 | 1, Some(1)) if optional.len() <= MAX_VARIANTS => {
                let none = (least == 0).then_some(None);
                none.into_iter().chain(optional.into_iter().map(Some)).map(|index| self.only(object, index)).collect()
            }
            _ => {
                let message =
                    "`minProperties`/`maxProperties` cannot be enforced exactly beside these optional properties";
                return Err(refuse(&object.pointer, message));
            }
        };
        Ok(variants)
    }

    fn is_optional(&self, field: &Field) -> bool {
        !field.required && self.written[field.value].schema != Value::Bool(false)
    }

    fn plain(&self, object: &Object, fields: &[Field]) -> Value {
        let properties: Map<String, Value> =
            fields.iter().map(|field| (field.name.clone(), self.reference(field.value))).collect();
        let required: Vec<&str> =
            fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        let patterns: Map<String, Value> =
            object.patterns.iter().map(|(regex, value)| (regex.clone(), self.reference(*value))).collect();
        let additional = object.additional.map_or(Value::Bool(false), |value| self.reference(value));
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": additional});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if !patterns.is_empty() {
            schema["patternProperties"] = Value::Object(patterns);
        }
        schema
    }

    /// The required properties and one more, and nothing else.
    fn only(&self, object: &Object, extra: Option<usize>) -> Value {
        let kept = object.fields.iter().enumerate().filter(|(index, field)| field.required || Some(*index) == extra);
        let fields = kept.map(|(_, field)| Field { required: true, ..field.clone() }).collect::<Vec<_>>();
        let closed = Object { patterns: Vec::new(), additional: None, ..object.clone() };
        self.plain(&closed, &fields)
    }

    fn counted(&self, object: &Object) -> Value {
        let mut schema = self.plain(object, &object.fields);
        if object.minimum > 0 {
            schema["minProperties"] = json!(object.minimum);
        }
        if let Some(maximum) = object.maximum {
            schema["maxProperties"] = json!(maximum);
        }
        schema
    }
}

fn all_required(fields: &[Field]) -> Vec<Field> {
    fields.iter().map(|field| Field { required: true, ..field.clone() }).collect()
}

/// The optional property `index` is there, those before it are not: one variant for each first optional property.
fn first_present(fields: &[Field], index: usize) -> Vec<Field> {
    let kept = fields.iter().enumerate().filter(|(at, field)| field.required || *at >= index);
    kept.map(|(at, field)| Field { required: field.required || at == index, ..field.clone() }).collect()
}
