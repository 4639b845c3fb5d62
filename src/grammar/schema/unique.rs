//! `uniqueItems` over items of which there are few: every array written out.
//!
//! In any order while the arrays are few; narrower beyond that: in the order in which the values are listed.

use super::super::GrammarError;
use super::array::Array;
use super::atom::Atom;
use super::refuse;
use serde_json::{Value, json};

/// Arrays that are written out.
const MAX_ARRAYS: usize = 1_000;
/// Values that one item may take.
const MAX_VALUES: usize = 64;

/// All arrays without a repeated item; `None` when nothing can repeat.
pub(super) fn arrays(
    array: &Array,
    states: &[Vec<Atom<'_>>],
    pointer: &str,
) -> Result<Option<Vec<Value>>, GrammarError> {
    if array.maximum.is_some_and(|maximum| maximum <= 1) || cannot_repeat(array, states) {
        return Ok(None);
    }
    let values = |state: &usize| values(&states[*state]);
    let listed: Option<Vec<Vec<Value>>> = array.prefix.iter().chain(&array.rest).map(values).collect();
    let all = listed.and_then(|positions| {
        let items = Items { array, positions };
        items.arrays(false).or_else(|| items.arrays(true))
    });
    let message = format!(
        "`uniqueItems` is enforced for items from a short `enum` (up to {MAX_ARRAYS} arrays), for tuples of different types, \
         and with `\"maxItems\": 1`"
    );
    match all {
        Some(found) if found.is_empty() => Err(refuse(pointer, "no array without repeated items has this length")),
        found => found.map(Some).ok_or_else(|| refuse(pointer, message)),
    }
}

/// A tuple whose items differ in type.
fn cannot_repeat(array: &Array, states: &[Vec<Atom<'_>>]) -> bool {
    let types = |state: &usize| states[*state].iter().fold(0, |types, atom| types | atom.types());
    let mut seen = 0;
    array.rest.is_none()
        && array.prefix.iter().all(|state| {
            let fresh = seen & types(state) == 0;
            seen |= types(state);
            fresh
        })
}

/// The values of a place, when they are few.
fn values(atoms: &[Atom<'_>]) -> Option<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    for atom in atoms {
        let more = match atom {
            Atom::Null => vec![Value::Null],
            Atom::Boolean => vec![json!(false), json!(true)],
            Atom::Constants(values) => values.iter().map(|value| (*value).clone()).collect(),
            Atom::Number(number) => number.values(MAX_VALUES)?,
            _ => return None,
        };
        found.extend(more);
    }
    let mut different: Vec<Value> = Vec::new();
    for value in found {
        if !different.iter().any(|other| same(other, &value)) {
            different.push(value);
        }
    }
    (different.len() <= MAX_VALUES).then_some(different)
}

/// Equality as JSON Schema has it: 1 and 1.0 are the same number.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        // Numbers inside lists and objects may be written in two ways.
        _ if one.is_array() || one.is_object() => {
            one.is_array() == other.is_array() && one.is_object() == other.is_object()
        }
        _ => one == other,
    }
}

struct Items<'r> {
    array: &'r Array,
    /// Values by position, the last ones for the rest.
    positions: Vec<Vec<Value>>,
}

impl Items<'_> {
    fn at(&self, index: usize) -> &[Value] {
        let tuple = self.array.prefix.len();
        if index < tuple || self.array.rest.is_some() { &self.positions[index.min(tuple)] } else { &[] }
    }

    /// Every array, shorter ones first; `None` when there are too many.
    fn arrays(&self, in_order: bool) -> Option<Vec<Value>> {
        if in_order && !self.array.prefix.is_empty() {
            return None;
        }
        let (mut found, mut layer) = (Vec::new(), vec![Vec::new()]);
        while !layer.is_empty() {
            let length = layer[0].len();
            if length as u64 >= self.array.minimum {
                found.extend(layer.iter().cloned().map(Value::Array));
            }
            if found.len() + layer.len() > MAX_ARRAYS {
                return None;
            }
            if self.array.maximum.is_some_and(|maximum| length as u64 >= maximum) {
                break;
            }
            layer = layer.iter().flat_map(|array| self.longer(array, in_order)).take(MAX_ARRAYS + 1).collect();
        }
        Some(found)
    }

    fn longer<'s>(&'s self, array: &'s [Value], in_order: bool) -> impl Iterator<Item = Vec<Value>> + 's {
        let values = self.at(array.len());
        let last = array.last().filter(|_| in_order);
        let start = last.and_then(|last| values.iter().position(|value| value == last)).map_or(0, |last| last + 1);
        let fresh = values[start..].iter().filter(|value| !array.iter().any(|item| same(item, value)));
        fresh.map(|value| array.iter().cloned().chain([value.clone()]).collect())
    }
}
