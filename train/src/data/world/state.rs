//! What exists in the world: the records of each family, and the faults that are going to happen. Knows no functions.

use super::families::{Deed, Family, Field, Op, Part};
use super::ids::Ids;
use super::kind::Kind;
use crate::data::synth::dice::Dice;
use crate::data::synth::values;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// The fields of one record, the id first.
pub(super) type Record = Map<String, Json>;

/// Why a call fails although it is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    RateLimit,
    Timeout,
    Permission,
}

/// The records of one family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Store {
    /// In the order in which they were made.
    pub(super) records: Vec<Record>,
    /// Number of the next id.
    pub(super) next: i64,
}

/// Everything that functions work on.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    stores: BTreeMap<&'static str, Store>,
    /// How ids are written.
    pub(super) ids: Ids,
    /// By the number of the call that fails.
    pub(super) faults: BTreeMap<usize, Fault>,
    /// Calls so far.
    pub(super) calls: usize,
}

impl World {
    /// Empty.
    pub(super) fn new(ids: Ids) -> Self {
        Self { ids, ..Self::default() }
    }

    /// Whether the same things exist.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.stores == other.stores
    }

    /// The records of a family that was let in.
    pub(super) fn store(&mut self, family: &Family) -> &mut Store {
        self.stores.entry(family.many).or_insert_with(|| Store { records: Vec::new(), next: 1 })
    }

    /// The records of a family, to look at.
    pub(super) fn records(&self, family: &Family) -> &[Record] {
        self.stores.get(family.many).map_or(&[], |store| &store.records)
    }

    /// The same records of a family as in another world, unless there are some.
    pub(super) fn adopt(&mut self, other: &Self, family: &Family) {
        if let Some(store) = other.stores.get(family.many) {
            self.stores.entry(family.many).or_insert_with(|| store.clone());
        }
    }

    /// Lets a family in, with `count` records, unless it is there.
    pub(super) fn let_in(&mut self, family: &Family, count: usize, dice: &mut Dice) {
        if self.stores.contains_key(family.many) {
            return;
        }
        let mut store = Store { records: Vec::new(), next: dice.between(100, 4000) };
        for _ in 0..count * 4 {
            let record = store.draw(family, self.ids, dice);
            let title = family.title().name;
            let told_apart = store.records.iter().all(|other| !alike(&other[title], &record[title]));
            if store.records.len() < count && told_apart {
                store.add(record);
            }
        }
        self.stores.insert(family.many, store);
    }
}

impl Store {
    /// A record with all its fields, which is not in the store yet.
    fn draw(&self, family: &Family, ids: Ids, dice: &mut Dice) -> Record {
        let value = |field: &Field, dice: &mut Dice| match (field.part, &field.kind) {
            (Part::Key, _) => json!(ids.write(family.prefix, self.next)),
            (_, Kind::Flag) => json!(dice.chance(0.4)),
            // The usual state more often than the others.
            (Part::State, Kind::Plain(values::Kind::Enum(choices))) if dice.chance(0.5) => json!(choices[0]),
            _ => field.kind.draw(dice, 0.0),
        };
        family.stored().map(|field| (field.name.to_owned(), value(field, dice))).collect()
    }

    /// Puts a record in that has the next number in its id.
    pub(super) fn add(&mut self, record: Record) {
        self.next += 1;
        self.records.push(record);
    }
}

/// Equality as searches have it: case does not matter, a list matches by any item.
pub(super) fn alike(held: &Json, wanted: &Json) -> bool {
    match (held, wanted) {
        (Json::String(held), Json::String(wanted)) => held.to_lowercase() == wanted.to_lowercase(),
        (Json::Array(items), wanted) => items.iter().any(|item| alike(item, wanted)),
        _ => held == wanted,
    }
}

/// The record that a function of this kind can work on, if there is any, as its place in the family's records.
pub(super) fn workable(records: &[Record], deed: Deed, dice: &mut Dice) -> Option<usize> {
    let holds = |record: &Record, field: usize, states: &[&str]| {
        record.get(deed.family.fields[field].name).is_some_and(|held| is_one_of(held, states))
    };
    let works = |record: &Record| {
        let needs = deed.function.needs.as_ref();
        let ready = needs.is_none_or(|(field, states)| holds(record, *field, states));
        match &deed.function.op {
            Op::Set { field, from, .. } => ready && holds(record, *field, from),
            _ => ready,
        }
    };
    let places: Vec<usize> = (0..records.len()).filter(|&at| works(&records[at])).collect();
    (!places.is_empty()).then(|| dice.pick(&places))
}

/// Whether a state is among some, as the family tables write them.
pub(super) fn is_one_of(held: &Json, states: &[&str]) -> bool {
    let text = held.as_str().map_or_else(|| held.to_string(), str::to_owned);
    states.contains(&text.as_str())
}
