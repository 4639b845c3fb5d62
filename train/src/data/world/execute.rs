//! Calls carried out: what each kind of function does to the records, what it returns and when it refuses.
//!
//! Knows the functions' own names of parameters, not the ones on offer, and no sentences.

use super::families::{Deed, Family, ID, Op};
use super::kind::Kind;
use super::state::{Fault, Record, World, alike, is_one_of};
use serde_json::{Map, Value as Json, json};

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument,
    NotFound,
    Conflict,
    Permission,
    RateLimit,
    Timeout,
}

/// A refused call. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

/// A function with what it is called with, by the names of the family's fields.
#[derive(Debug, Clone)]
pub(super) struct Act {
    pub(super) deed: Deed,
    pub(super) arguments: Map<String, Json>,
}

/// What a call returns.
pub(super) type Outcome = Result<Json, Refusal>;

impl Refusal {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// As functions return it.
    pub(super) fn to_json(&self) -> Json {
        let code = match self.code {
            Code::InvalidArgument => "invalid_argument",
            Code::NotFound => "not_found",
            Code::Conflict => "conflict",
            Code::Permission => "permission_denied",
            Code::RateLimit => "rate_limited",
            Code::Timeout => "timeout",
        };
        json!({"error": {"code": code, "message": self.message}})
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::RateLimit => Self::new(Code::RateLimit, "Too many requests. Try again in 2 seconds."),
            Fault::Timeout => Self::new(Code::Timeout, "The service did not answer within 10 seconds."),
            Fault::Permission => Self::new(Code::Permission, "This user is not allowed to call this function."),
        }
    }
}

impl World {
    /// Carries a call out, unless a fault is due.
    pub(super) fn execute(&mut self, act: &Act) -> Outcome {
        let number = self.calls;
        self.calls += 1;
        match self.faults.get(&number) {
            Some(&fault) => Err(fault.into()),
            None => self.carry_out(act),
        }
    }

    fn carry_out(&mut self, Act { deed, arguments }: &Act) -> Outcome {
        let Deed { family, function } = *deed;
        for (field, _, required) in deed.takes() {
            if required && !arguments.contains_key(field.name) {
                return Err(Refusal::new(Code::InvalidArgument, format!("{} is missing.", field.name)));
            }
        }
        match &function.op {
            Op::Create => self.create(family, arguments),
            Op::Find => Ok(listed(family, self.records(family), |record| matches(record, arguments), Record::clone)),
            Op::List(filter) => Ok(listed(family, self.records(family), |record| passes(family, record, *filter), {
                |record| brief(family, record)
            })),
            Op::Count => Ok(json!({"count": self.records(family).len()})),
            Op::Last => match self.records(family).last() {
                Some(record) => Ok(json!(record)),
                None => Err(Refusal::new(Code::NotFound, format!("There is no {}.", family.one))),
            },
            Op::Get => {
                let at = self.place(family, &arguments[ID])?;
                Ok(json!(self.records(family)[at]))
            }
            Op::Delete => {
                let at = self.place(family, &arguments[ID])?;
                self.store(family).records.remove(at);
                Ok(json!({"deleted": arguments[ID]}))
            }
            Op::Move { field, to, amount } => {
                self.ready(*deed, &arguments[ID])?;
                self.move_amount(family, arguments, [*field, *to, *amount])
            }
            _ => {
                let at = self.ready(*deed, &arguments[ID])?;
                change(family, &function.op, &mut self.store(family).records[at], arguments)
            }
        }
    }

    fn create(&mut self, family: &Family, arguments: &Map<String, Json>) -> Outcome {
        let ids = self.ids;
        let store = self.store(family);
        let mut record = Record::new();
        for field in family.stored() {
            let value = match (field.name, arguments.get(field.name)) {
                (ID, _) => json!(ids.write(family.prefix, store.next)),
                (_, Some(value)) => value.clone(),
                (_, None) => field.kind.initial(),
            };
            if !value.is_null() {
                record.insert(field.name.to_owned(), value);
            }
        }
        store.add(record.clone());
        Ok(Json::Object(record))
    }

    /// Where the record with an id is.
    fn place(&self, family: &Family, id: &Json) -> Result<usize, Refusal> {
        let found = self.records(family).iter().position(|record| record.get(ID) == Some(id));
        let text = id.as_str().unwrap_or_default();
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("There is no {} {text}.", family.one)))
    }

    /// The same of a record in a state that the function works on.
    fn ready(&self, Deed { family, function }: Deed, id: &Json) -> Result<usize, Refusal> {
        let at = self.place(family, id)?;
        let Some((field, states)) = &function.needs else { return Ok(at) };
        let field = &family.fields[*field];
        let held = &self.records(family)[at][field.name];
        if is_one_of(held, states) {
            return Ok(at);
        }
        let message = format!("{} is {}.", id.as_str().unwrap_or_default(), field.being(held));
        Err(Refusal::new(Code::Conflict, message))
    }

    fn move_amount(&mut self, family: &Family, arguments: &Map<String, Json>, places: [usize; 3]) -> Outcome {
        let [name, to, amount] = places.map(|place| family.fields[place].name);
        let (from, to) = (self.place(family, &arguments[ID])?, self.place(family, &arguments[to])?);
        if from == to {
            return Err(Refusal::new(Code::Conflict, "Both ids are the same."));
        }
        let records = &mut self.store(family).records;
        shift(&mut records[from], name, -number(&arguments[amount]))?;
        shift(&mut records[to], name, number(&arguments[amount]))?;
        let state = |at: usize| json!({ID: records[at][ID], name: records[at][name]});
        Ok(json!({"from": state(from), "to": state(to)}))
    }
}

/// What a function with one record does to it; returns the id and what is new.
fn change(family: &Family, op: &Op, record: &mut Record, arguments: &Map<String, Json>) -> Outcome {
    let mut changed = vec![];
    match op {
        Op::Set { field, value, from } => {
            let field = &family.fields[*field];
            let held = record.get(field.name).cloned().unwrap_or_default();
            if !is_one_of(&held, from) {
                let id = record[ID].as_str().unwrap_or_default();
                let message = format!("{id} is already {}.", field.being(&held));
                return Err(Refusal::new(Code::Conflict, message));
            }
            record.insert(field.name.to_owned(), state(&field.kind, value));
            changed.push(field.name);
        }
        Op::Add { field, amount } | Op::Take { field, amount } => {
            let sign = if matches!(op, Op::Add { .. }) { 1.0 } else { -1.0 };
            let name = family.fields[*field].name;
            shift(record, name, sign * number(&arguments[family.fields[*amount].name]))?;
            changed.push(name);
        }
        Op::Append { field } => {
            let name = family.fields[*field].name;
            let held = record.entry(name).or_insert_with(|| json!([]));
            if let (Json::Array(held), Json::Array(new)) = (held, &arguments[name]) {
                held.extend(new.iter().cloned());
            }
            changed.push(name);
        }
        _ => {
            for field in family.fields.iter().filter(|field| field.name != ID) {
                if let Some(value) = arguments.get(field.name) {
                    record.insert(field.name.to_owned(), value.clone());
                    changed.push(field.name);
                }
            }
        }
    }
    let fields = std::iter::once(ID).chain(changed).map(|name| (name.to_owned(), record[name].clone()));
    Ok(Json::Object(fields.collect()))
}

/// A state as the tables write it.
fn state(kind: &Kind, text: &str) -> Json {
    if *kind == Kind::Flag { json!(text == "true") } else { json!(text) }
}

fn number(value: &Json) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Adds to a number that cannot fall below zero.
fn shift(record: &mut Record, name: &str, by: f64) -> Result<(), Refusal> {
    let held = record.get(name).map_or(0.0, number);
    let cents = ((held + by) * 100.0).round();
    if cents < 0.0 {
        let message = format!("{} has only {name} {held}.", record[ID].as_str().unwrap_or_default());
        return Err(Refusal::new(Code::Conflict, message));
    }
    let whole = cents % 100.0 == 0.0;
    record.insert(name.to_owned(), if whole { json!((cents / 100.0) as i64) } else { json!(cents / 100.0) });
    Ok(())
}

fn matches(record: &Record, wanted: &Map<String, Json>) -> bool {
    wanted.iter().all(|(name, wanted)| record.get(name).is_some_and(|held| alike(held, wanted)))
}

fn passes(family: &Family, record: &Record, filter: Option<(usize, &str)>) -> bool {
    filter.is_none_or(|(field, value)| {
        record.get(family.fields[field].name).is_some_and(|held| is_one_of(held, &[value]))
    })
}

fn listed(
    family: &Family,
    records: &[Record],
    wanted: impl Fn(&Record) -> bool,
    shown: impl Fn(&Record) -> Record,
) -> Json {
    let found: Vec<Record> = records.iter().filter(|record| wanted(record)).map(shown).collect();
    json!({"count": found.len(), family.many: found})
}

/// What lists show of a record: its id and what people know it by.
fn brief(family: &Family, record: &Record) -> Record {
    [ID, family.title().name].iter().filter_map(|name| Some(((*name).to_owned(), record.get(*name)?.clone()))).collect()
}
