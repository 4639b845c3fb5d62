//! Values of fields: how they are drawn, checked, described by a schema and said. Knows no function and no sentence.

use super::text::phrases;
use crate::data::synth::dice::Dice;
use crate::data::synth::tables::Words;
use crate::data::synth::values::{self, join};
use serde_json::{Map, Value as Json, json};

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// The id of a record.
    Key,
    /// A value of the simple generator: text, a number, a choice, a list of words.
    Plain(values::Kind),
    /// A day, `YYYY-MM-DD`.
    Date,
    /// A day of the last century, or not long after.
    Birthday,
    /// A time of day, `HH:MM`.
    Clock,
    /// A number of minutes.
    Minutes,
    /// True or false, by phrases of the field's own.
    Flag,
    Object(Vec<(&'static str, Self)>),
    /// A list of objects.
    Rows(Vec<(&'static str, Self)>),
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WORDS: [&str; 13] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
const CLOCK: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";

impl Kind {
    /// `date`, `object(street:street city:city)`, or a kind of the simple generator.
    pub(super) fn parse(text: &'static str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix("object(") {
            return Some(Self::Object(parts(inner.strip_suffix(')')?)?));
        }
        if let Some(inner) = text.strip_prefix("rows(") {
            return Some(Self::Rows(parts(inner.strip_suffix(')')?)?));
        }
        Some(match text {
            "key" => Self::Key,
            "date" => Self::Date,
            "birthday" => Self::Birthday,
            "clock" => Self::Clock,
            "minutes" => Self::Minutes,
            "flag" => Self::Flag,
            other => Self::Plain(values::Kind::parse(other)?),
        })
    }

    /// A new value; with probability `unicode`, names and titles are in other scripts. Ids are not drawn: `null`.
    pub(super) fn draw(&self, dice: &mut Dice, unicode: f64) -> Json {
        match self {
            Self::Key => Json::Null,
            Self::Plain(kind) => match foreign(kind).filter(|_| unicode > 0.0 && dice.chance(unicode)) {
                Some(section) => json!(dice.pick(phrases(section))),
                None => kind.draw(dice, false).json,
            },
            Self::Date => day(2021, 2032, dice),
            Self::Birthday => day(1940, 2015, dice),
            Self::Clock => {
                let minute = if dice.chance(0.7) { dice.between(0, 3) * 15 } else { dice.between(0, 59) };
                json!(format!("{:02}:{minute:02}", dice.between(0, 23)))
            }
            Self::Minutes if dice.chance(0.3) => json!(dice.between(1, 60) * 5),
            Self::Minutes => json!(dice.pick(&[10, 15, 20, 25, 30, 40, 45, 60, 75, 90, 120, 180, 240])),
            Self::Flag => json!(dice.chance(0.6)),
            Self::Object(parts) => object(parts, dice, unicode),
            Self::Rows(parts) => (0..1 + dice.below(3)).map(|_| object(parts, dice, unicode)).collect(),
        }
    }

    /// What a new record holds before anybody has given it: the first choice, nothing, no items.
    pub(super) fn initial(&self) -> Json {
        match self {
            Self::Plain(values::Kind::Enum(choices)) => json!(choices.first()),
            Self::Plain(values::Kind::Int(..) | values::Kind::Num(..) | values::Kind::Money) => json!(0),
            Self::Plain(values::Kind::List(_)) | Self::Rows(_) => json!([]),
            Self::Flag => json!(false),
            _ => Json::Null,
        }
    }

    /// The JSON Schema of the values; `ids` is the pattern of ids.
    pub(super) fn schema(&self, ids: &str) -> Json {
        match self {
            Self::Key => json!({"type": "string", "pattern": ids}),
            Self::Date | Self::Birthday => json!({"type": "string", "format": "date"}),
            Self::Clock => json!({"type": "string", "pattern": CLOCK}),
            Self::Minutes => json!({"type": "integer", "minimum": 1, "maximum": 1440}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Object(parts) => object_schema(parts, ids),
            Self::Rows(parts) => json!({"type": "array", "items": object_schema(parts, ids), "minItems": 1}),
            Self::Plain(kind) => match kind {
                values::Kind::Int(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
                values::Kind::Num(..) => json!({"type": "number", "minimum": 0}),
                values::Kind::Money => json!({"type": "number", "minimum": 0.01}),
                values::Kind::Enum(choices) => json!({"type": "string", "enum": choices}),
                values::Kind::List(_) => json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
                values::Kind::Email => json!({"type": "string", "format": "email"}),
                _ => json!({"type": "string"}),
            },
        }
    }

    /// A value that a hurried person might give and that cannot be, with what is wrong about it.
    pub(super) fn impossible(&self, dice: &mut Dice) -> Option<(String, String)> {
        Some(match self {
            Self::Date | Self::Birthday => {
                let (month, day) = dice.pick(&[("February", 30), ("April", 31), ("June", 31), ("November", 31)]);
                let drawn = self.draw(dice, 0.0);
                let year = drawn.as_str()?.split_once('-')?.0;
                (format!("{day} {month} {year}"), format!("{month} has no day {day}"))
            }
            Self::Clock => {
                let said = format!("{}:{:02}", dice.between(25, 39), dice.between(0, 59));
                (said.clone(), format!("{said} is not a time of day"))
            }
            Self::Plain(values::Kind::Int(low, high)) => {
                let said = (high + dice.between(1, 60)).to_string();
                (said.clone(), format!("{said} is not from {low} to {high}"))
            }
            Self::Plain(values::Kind::Enum(choices)) => {
                let said = dice.pick(phrases("no_choice")).to_owned();
                let choices: Vec<String> = choices.iter().map(|choice| (*choice).to_owned()).collect();
                (said.clone(), format!("\"{said}\" is not among {}", join(&choices)))
            }
            Self::Plain(values::Kind::Email) => {
                let said = self.draw(dice, 0.0).as_str()?.replace('@', dice.pick(&[" at ", "#", "."]));
                (said.clone(), format!("\"{said}\" is not an e-mail address"))
            }
            Self::Plain(values::Kind::Money) => {
                let said = format!("-{}", dice.between(5, 400));
                (said.clone(), "an amount has to be more than zero".to_owned())
            }
            _ => return None,
        })
    }

    /// Whether requests say it best at the end or in quotes: free text.
    fn is_free(&self) -> bool {
        matches!(self, Self::Plain(values::Kind::Title | values::Kind::Pool("message" | "todo" | "phrase")))
    }

    /// All ways in which a single value is said; the first is the plainest. Lists and objects have none of their own.
    fn ways(&self, value: &Json) -> Vec<String> {
        match (self, value) {
            (Self::Date | Self::Birthday, Json::String(date)) => dates(date),
            (Self::Clock, Json::String(clock)) => clocks(clock),
            (Self::Minutes, Json::Number(number)) => durations(number.as_i64().unwrap_or(0)),
            (Self::Key, Json::String(id)) => vec![id.clone()],
            (_, Json::String(text)) if text.contains('_') => vec![text.clone(), text.replace('_', " ")],
            (_, Json::String(text)) => vec![text.clone()],
            (_, Json::Number(number)) => {
                let word = number.as_u64().and_then(|n| WORDS.get(n as usize)).filter(|_| number.as_u64() > Some(1));
                std::iter::once(number.to_string()).chain(word.map(|word| (*word).to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The words of a request for a value.
    pub(super) fn said(&self, value: &Json, dice: &mut Dice) -> String {
        match (self, value) {
            (Self::Rows(parts), Json::Array(rows)) => {
                join(&rows.iter().map(|row| row_said(parts, row, dice)).collect::<Vec<_>>())
            }
            (Self::Object(parts), Json::Object(_)) => {
                parts.iter().map(|(name, kind)| kind.said(&value[name], dice)).collect::<Vec<_>>().join(", ")
            }
            (_, Json::Array(items)) => join(&items.iter().map(|item| self.said(item, dice)).collect::<Vec<_>>()),
            _ => {
                let ways = self.ways(value);
                let at = if ways.len() > 1 && dice.chance(0.4) { 1 + dice.below(ways.len() - 1) } else { 0 };
                let way = ways.get(at).cloned().unwrap_or_default();
                if self.is_free() && dice.chance(0.5) { format!("\"{way}\"") } else { way }
            }
        }
    }

    /// Whether every part of the value is said in the text, in one of its ways. A flag is not said by its value.
    pub(super) fn is_said(&self, value: &Json, text: &str) -> bool {
        match (self, value) {
            (Self::Rows(_), Json::Array(rows)) => rows.iter().all(|row| self.is_said(row, text)),
            (Self::Object(parts) | Self::Rows(parts), Json::Object(fields)) => {
                parts.iter().all(|(name, kind)| fields.get(*name).is_none_or(|value| kind.is_said(value, text)))
            }
            (_, Json::Array(items)) => items.iter().all(|item| self.is_said(item, text)),
            _ => self.ways(value).iter().any(|way| occurs(way, text)),
        }
    }
}

/// Whether a text occurs in another, ignoring case and not inside a longer number or word.
pub(super) fn occurs(wanted: &str, text: &str) -> bool {
    let (wanted, text) = (wanted.to_lowercase(), text.to_lowercase());
    let inside = |c: Option<char>, edge: Option<char>| {
        c.is_some_and(char::is_alphanumeric) && edge.is_some_and(char::is_alphanumeric)
    };
    !wanted.is_empty()
        && text.match_indices(&wanted).any(|(at, _)| {
            let (before, after) = (text[..at].chars().next_back(), text[at + wanted.len()..].chars().next());
            !inside(before, wanted.chars().next()) && !inside(after, wanted.chars().next_back())
        })
}

fn parts(text: &'static str) -> Option<Vec<(&'static str, Kind)>> {
    let part = |part: &'static str| {
        let (name, kind) = part.split_once(':')?;
        Some((name, Kind::parse(kind)?))
    };
    let parts: Words = text.split(' ').collect();
    parts.into_iter().map(part).collect()
}

fn object(parts: &[(&'static str, Kind)], dice: &mut Dice, unicode: f64) -> Json {
    let fields = parts.iter().map(|(name, kind)| ((*name).to_owned(), kind.draw(dice, unicode)));
    Json::Object(fields.collect())
}

fn object_schema(parts: &[(&'static str, Kind)], ids: &str) -> Json {
    let properties: Map<String, Json> =
        parts.iter().map(|(name, kind)| ((*name).to_owned(), kind.schema(ids))).collect();
    let required: Words = parts.iter().map(|(name, _)| *name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// "3 tents": the number first.
fn row_said(parts: &[(&'static str, Kind)], row: &Json, dice: &mut Dice) -> String {
    let mut said: Vec<(bool, String)> =
        parts.iter().map(|(name, kind)| (row[name].is_number(), kind.said(&row[name], dice))).collect();
    said.sort_by_key(|(number, _)| !number);
    let glue = if said.iter().all(|(number, _)| *number) { " times " } else { " x " };
    said.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(glue)
}

/// The phrases in other scripts that can stand for values of a kind.
fn foreign(kind: &values::Kind) -> Option<&'static str> {
    match kind {
        values::Kind::Person | values::Kind::Pool("first") => Some("unicode_person"),
        values::Kind::Pool("city") => Some("unicode_city"),
        values::Kind::Title | values::Kind::Pool("message" | "todo") => Some("unicode_title"),
        _ => None,
    }
}

/// A day of one of these years.
fn day(first: i64, last: i64, dice: &mut Dice) -> Json {
    let (year, month) = (dice.between(first, last), dice.between(1, 12));
    let days = match month {
        2 if year % 4 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    json!(format!("{year}-{month:02}-{:02}", dice.between(1, days)))
}

fn dates(date: &str) -> Vec<String> {
    let mut ways = vec![date.to_owned()];
    let numbers: Vec<usize> = date.split('-').filter_map(|part| part.parse().ok()).collect();
    if let [year, month, day] = numbers[..]
        && let Some(month) = month.checked_sub(1).and_then(|at| MONTHS.get(at))
    {
        ways.extend([format!("{day} {month} {year}"), format!("{month} {day}, {year}")]);
    }
    ways
}

fn clocks(clock: &str) -> Vec<String> {
    let mut ways = vec![clock.to_owned()];
    if let Some((hour, minute)) = clock.split_once(':')
        && let Ok(hour) = hour.parse::<u32>()
    {
        let half = if hour < 12 { "am" } else { "pm" };
        let hour = if hour % 12 == 0 { 12 } else { hour % 12 };
        ways.push(format!("{hour}:{minute} {half}"));
        if minute == "00" {
            ways.push(format!("{hour} {half}"));
        }
    }
    ways
}

fn durations(minutes: i64) -> Vec<String> {
    let mut ways = vec![format!("{minutes} minutes")];
    match minutes {
        30 => ways.push("half an hour".to_owned()),
        60 => ways.push("one hour".to_owned()),
        90 => ways.push("an hour and a half".to_owned()),
        _ if minutes % 60 == 0 => ways.push(format!("{} hours", minutes / 60)),
        _ => {}
    }
    ways
}
