//! What the assistant says of results. Knows one result at a time.

use super::class::Move;
use super::execute::{Code, Outcome, Refusal};
use super::families::{Family, Field, ID, Op, Part};
use super::offer::fill;
use super::scene::{Scene, Step};
use crate::data::synth::values::join;
use serde_json::{Map, Value as Json};

/// Most records that an answer lists by name.
const LISTED: usize = 5;

impl Scene<'_> {
    /// Says what came of calls.
    pub(super) fn answer(&mut self, steps: &[Step], outcomes: &[Outcome]) {
        let all_refused = outcomes.iter().all(Result::is_err);
        let text: Vec<String> = steps.iter().zip(outcomes).map(|(step, outcome)| self.told(step, outcome)).collect();
        self.say(if all_refused { Move::Report } else { Move::Answer }, text.join(" "));
    }

    fn told(&mut self, step: &Step, outcome: &Outcome) -> String {
        match outcome {
            Ok(Json::Object(result)) => self.success(step, result),
            Ok(other) => other.to_string(),
            Err(refusal) => self.refusal(step, refusal),
        }
    }

    fn refusal(&mut self, step: &Step, refusal: &Refusal) -> String {
        let id = step.value(ID).map(plain).unwrap_or_default();
        let section = match refusal.code {
            // Without an id it is not one record that is missing.
            Code::NotFound if !id.is_empty() => "refused_not_found",
            Code::NotFound | Code::InvalidArgument => "refused_invalid_argument",
            Code::Conflict => "refused_conflict",
            Code::Permission => "refused_permission_denied",
            Code::RateLimit => "refused_rate_limited",
            Code::Timeout => "refused_timeout",
        };
        self.about(section, step.deed.family, &[("id", &id), ("message", &refusal.message)])
    }

    /// A sentence about a thing of a family.
    pub(super) fn about(&mut self, section: &str, family: &Family, places: &[(&str, &str)]) -> String {
        let text = self.phrase(section, places);
        fill(&text, family)
    }

    fn success(&mut self, step: &Step, result: &Map<String, Json>) -> String {
        let family = step.deed.family;
        let id = step.value(ID).or_else(|| result.get(ID)).map(plain).unwrap_or_default();
        match &step.deed.function.op {
            Op::Create => {
                let title =
                    result.get(family.title().name).map_or_else(String::new, |title| format!(" {}", plain(title)));
                self.about("created", family, &[("id", &id), ("title", &title)])
            }
            Op::Get | Op::Last => {
                let what = self.some_fields(family, result);
                self.about("shown", family, &[("id", &id), ("what", &what)])
            }
            Op::Find | Op::List(_) => self.records(step, result),
            Op::Count => self.about("count", family, &[("n", &result.get("count").map(plain).unwrap_or_default())]),
            Op::Delete => self.about("deleted", family, &[("id", &id)]),
            Op::Move { to, amount, .. } => {
                let value = |place: &usize| step.value(family.fields[*place].name).map(plain).unwrap_or_default();
                self.about("moved", family, &[("id", &id), ("to", &value(to)), ("amount", &value(amount))])
            }
            Op::Set { field, value, .. } => {
                let field = &family.fields[*field];
                let what = if *value == "true" { words(field.name) } else { (*value).replace('_', " ") };
                self.about("set", family, &[("id", &id), ("what", &what)])
            }
            _ => {
                let changed: Vec<String> = described(family, result).collect();
                self.about("changed", family, &[("id", &id), ("what", &join(&changed))])
            }
        }
    }

    /// Two to four fields of a record.
    fn some_fields(&mut self, family: &Family, record: &Map<String, Json>) -> String {
        let mut all: Vec<String> = described(family, record).collect();
        let count = 2 + self.dice.below(3);
        // The title and the state, at least.
        while all.len() > count {
            let middle = 1 + self.dice.below(all.len() - 2);
            all.remove(middle);
        }
        join(&all)
    }

    fn records(&mut self, step: &Step, result: &Map<String, Json>) -> String {
        let family = step.deed.family;
        let searched = step.deed.function.op == Op::Find;
        let records = result.get(family.many).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let named = records.iter().take(LISTED).map(|record| named(family, record));
        let mut what: Vec<String> = named.collect();
        if records.len() > LISTED {
            what.push(format!("{} more", records.len() - LISTED));
        }
        let (section, none) = if searched { ("found", "none_found") } else { ("listed", "none_listed") };
        let section = if records.is_empty() { none } else { section };
        self.about(section, family, &[("what", &join(&what)), ("n", &records.len().to_string())])
    }
}

/// "Dentist (EVT-7)".
pub(super) fn named(family: &Family, record: &Json) -> String {
    format!("{} ({})", plain(&record[family.title().name]), plain(&record[ID]))
}

/// A value as answers say it.
pub(super) fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Bool(true) => "yes".to_owned(),
        Json::Bool(false) => "no".to_owned(),
        Json::Array(items) => join(&items.iter().map(plain).collect::<Vec<_>>()),
        Json::Object(fields) => fields.values().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The words of a field's name.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// "date 2026-05-03" for each field with a value but the id.
fn described<'a>(family: &'a Family, record: &'a Map<String, Json>) -> impl Iterator<Item = String> + 'a {
    let empty = |value: &Json| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let fields = family.fields.iter().filter(|field: &&Field| field.part != Part::Key);
    fields.filter_map(move |field| {
        let value = record.get(field.name).filter(|value| !empty(value))?;
        Some(format!("the {} {}", words(field.name), plain(value)))
    })
}
