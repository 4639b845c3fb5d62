//! What the assistant says of results. Knows one result at a time.

use super::class::Move;
use super::execute::{Code, Outcome, Refusal};
use super::families::{Family, Field, ID, Op, Part};
use super::kind::Kind;
use super::offer::fill;
use super::scene::{Scene, Step};
use crate::data::synth::values::{self, join};
use serde_json::{Map, Value as Json};

/// Most records that an answer lists by name.
const LISTED: usize = 5;

impl Scene<'_> {
    /// Says what came of calls.
    pub(super) fn answer(&mut self, steps: &[Step], outcomes: &[Outcome]) {
        let all_refused = outcomes.iter().all(Result::is_err);
        let text: Vec<String> = steps.iter().zip(outcomes).map(|(step, outcome)| self.outcome(step, outcome)).collect();
        self.say(if all_refused { Move::Report } else { Move::Answer }, text.join(" "));
    }

    fn outcome(&mut self, step: &Step, outcome: &Outcome) -> String {
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
            Code::Timeout if step.deed.function.is_repeatable() => "refused_timeout",
            Code::Timeout => "refused_timeout_once",
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
                let title = family.title();
                let title =
                    result.get(title.name).map_or_else(String::new, |value| title.say[0].replace("{}", &plain(value)));
                self.about("created", family, &[("id", &id), ("title", &title)])
            }
            Op::Get | Op::Last => match self.asked_of(family) {
                Some(field) => self.field_told(family, field, result),
                None => {
                    let what = self.some_fields(family, result);
                    self.about("shown", family, &[("id", &id), ("what", &what)])
                }
            },
            Op::Find | Op::List(_) => self.records(step, result),
            Op::Count => {
                let count = &result["count"];
                self.about(if *count == 1 { "count_one" } else { "count" }, family, &[("n", &plain(count))])
            }
            Op::Delete => self.about("deleted", family, &[("id", &id)]),
            Op::Move { to, amount, .. } => {
                let value = |place: &usize| step.value(family.fields[*place].name).map(plain).unwrap_or_default();
                self.about("moved", family, &[("id", &id), ("to", &value(to)), ("amount", &value(amount))])
            }
            Op::Set { field, .. } => {
                let field = &family.fields[*field];
                let what = field.being(&result[field.name]);
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

    /// The field of the family that a request has asked for.
    fn asked_of(&self, family: &Family) -> Option<&'static Field> {
        let own = |field: &Field| family.fields.iter().any(|own| std::ptr::eq(own, field));
        self.asked.iter().copied().find(|field| own(field))
    }

    /// A question for a field of a record.
    pub(super) fn question_about(&mut self, family: &Family, field: &Field, record: &Map<String, Json>) -> String {
        if field.kind == Kind::Flag {
            return field.question.to_owned();
        }
        self.about_field("about_field", family, field, &record[ID])
    }

    /// What a record holds in a field.
    pub(super) fn field_told(&mut self, family: &Family, field: &Field, record: &Map<String, Json>) -> String {
        match record.get(field.name).filter(|value| !is_empty(value)) {
            Some(Json::Bool(yes)) => self.phrase(if *yes { "flag_yes" } else { "flag_no" }, &[]),
            Some(value) => {
                let text = self.about_field("about_field_answer", family, field, &record[ID]);
                text.replace("{value}", &told(field, value))
            }
            None => self.about_field("unlike", family, field, &record[ID]),
        }
    }

    /// A sentence about a field of the record with an id; a place for the value is left open.
    fn about_field(&mut self, section: &str, family: &Family, field: &Field, id: &Json) -> String {
        let [is, it] = is_and_it(field.name);
        self.about(section, family, &[("field", &words(field.name)), ("id", &plain(id)), ("is", is), ("it", it)])
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
        let section = match (records.len(), searched) {
            (0, true) => "none_found",
            (0, false) => "none_listed",
            (1, true) => "found_one",
            (1, false) => "listed_one",
            (_, true) => "found",
            (_, false) => "listed",
        };
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
        Json::Object(fields) => parts(fields),
        other => other.to_string(),
    }
}

/// The words of a field's name.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A request in the words of the one who is asked: "my" becomes "your".
pub(super) fn to_user(request: &str) -> String {
    let turned = |word| match word {
        "my" => "your",
        "me" | "I" => "you",
        other => other,
    };
    request.split(' ').map(turned).collect::<Vec<_>>().join(" ")
}

/// "12 Park Road, Oslo", "3 x tent", "length 20 cm, weight 4.5 kg".
fn parts(fields: &Map<String, Json>) -> String {
    let values: Vec<String> = fields.values().map(plain).collect();
    let numbers: Vec<bool> = fields.values().map(Json::is_number).collect();
    match numbers[..] {
        [true, false] => values.join(" x "),
        [false, true] => format!("{} x {}", values[1], values[0]),
        _ if !numbers.contains(&true) => values.join(", "),
        _ => fields.keys().zip(&values).map(|(name, value)| measure(name, value)).collect::<Vec<_>>().join(", "),
    }
}

/// "length 20 cm" of `length_cm`.
fn measure(name: &str, value: &str) -> String {
    match name.rsplit_once('_') {
        Some((name, unit @ ("cm" | "kg"))) => format!("{} {value} {unit}", words(name)),
        _ => format!("{} {value}", words(name)),
    }
}

/// The value of a field as answers say it.
fn told(field: &Field, value: &Json) -> String {
    match field.kind {
        Kind::Minutes => format!("{value} minutes"),
        Kind::Plain(values::Kind::Pool("message")) => format!("\"{}\"", plain(value)),
        _ => plain(value),
    }
}

/// The verb and the pronoun that go with a field's name.
fn is_and_it(name: &str) -> [&'static str; 2] {
    let many = name.ends_with('s') && !["address", "status", "species"].contains(&name);
    if many { ["are", "They"] } else { ["is", "It"] }
}

fn is_empty(value: &Json) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// "the date 2026-05-03" for each field with a value but the id. Flags have no words for it.
fn described<'a>(family: &'a Family, record: &'a Map<String, Json>) -> impl Iterator<Item = String> + 'a {
    let fields = family.fields.iter().filter(|field| field.part != Part::Key && field.kind != Kind::Flag);
    fields.filter_map(move |field| {
        let value = record.get(field.name).filter(|value| !is_empty(value))?;
        Some(format!("the {} {}", words(field.name), told(field, value)))
    })
}
