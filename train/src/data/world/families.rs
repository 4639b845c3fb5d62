//! The function families of the world: records with fields, and functions on them, parsed once from `families/*.txt`.
//!
//! A file begins with `[-]family ONE/MANY PREFIX`; the dash holds it out of training. Then come fields, `NAME KIND | phrases |
//! other names | description | question`, after `field` (the user gives it), `state` (the world keeps it) or `arg` (no record
//! holds it); the first is what people know a record by. A flag's phrases that deny it stand after a `!`. Then functions:
//! `fn` with what it does, and below it `names`, `about` (descriptions), `takes` (fields, `!` = required), `ask` (requests
//! without values, with `[FIELD]` where they ask for a single field), `say FIELD | phrases` (where a field is said in another
//! way), `needs FIELD=STATE,…` (the states of a record that it works on).
//!
//! Knows the syntax of those files; what a function does is in [`super::execute`].

use super::kind::Kind;
use crate::data::synth::Split;
use crate::data::synth::tables::{Words, flagged, lines, split};
use serde_json::Value as Json;
use std::sync::LazyLock;

/// The name of the field that tells records apart.
pub(super) const ID: &str = "id";

/// What part a field has in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The id.
    Key,
    /// Given by the user.
    Given,
    /// Kept by the world.
    State,
    /// An argument that no record holds.
    Argument,
}

/// A field of a record, or an argument.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) part: Part,
    pub(super) kind: Kind,
    /// How requests say it, with `{}` for the value; of a flag, the words that set it.
    pub(super) say: Words,
    /// Of a flag, the words that say that it is not so.
    pub(super) deny: Words,
    /// Other names of the parameter.
    pub(super) others: Words,
    pub(super) about: &'static str,
    pub(super) question: &'static str,
}

impl Field {
    /// What a record is that holds this state: "locked", "a favourite".
    pub(super) fn being(&self, state: &Json) -> String {
        match state {
            Json::Bool(true) => self.say[0].trim_start_matches("that is ").to_owned(),
            Json::String(text) => text.replace('_', " "),
            other => format!("{}: {other}", self.name),
        }
    }
}

/// What a function does to the records of its family. The numbers are places in the family's fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Create,
    Find,
    Get,
    Update,
    Delete,
    /// Sets a field to a value, from one of some others.
    Set {
        field: usize,
        value: &'static str,
        from: Words,
    },
    /// Adds an amount to a field.
    Add {
        field: usize,
        amount: usize,
    },
    /// Takes an amount off a field that holds as much.
    Take {
        field: usize,
        amount: usize,
    },
    /// Takes an amount off a field of one record and adds it to another's.
    Move {
        field: usize,
        to: usize,
        amount: usize,
    },
    /// Adds items to a list.
    Append {
        field: usize,
    },
    /// All records, or those where a field has a value.
    List(Option<(usize, &'static str)>),
    Count,
    /// The newest record.
    Last,
}

/// A parameter of a function.
#[derive(Debug)]
pub(super) struct Take {
    /// Place in the family's fields.
    pub(super) field: usize,
    pub(super) required: bool,
    /// How requests to this function say it, where not as usual.
    pub(super) say: Words,
}

/// A request without its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) text: &'static str,
    /// Place of the field that it asks for, where it is a single one.
    pub(super) about: Option<usize>,
}

impl Ask {
    pub(super) fn is_question(&self) -> bool {
        is_question(self.text)
    }
}

/// Whether a request asks, where others order.
pub(super) fn is_question(request: &str) -> bool {
    const WORDS: [&str; 6] = ["which", "how", "what", "who", "where", "when"];
    // "in which folder …" as well.
    request.split(' ').take(2).any(|word| WORDS.contains(&word))
}

/// A function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) op: Op,
    pub(super) names: Words,
    pub(super) about: Words,
    pub(super) takes: Vec<Take>,
    pub(super) ask: Vec<Ask>,
    /// The states of a field in which it works on a record.
    pub(super) needs: Option<(usize, Words)>,
}

impl Function {
    /// Whether it changes anything.
    pub(super) fn writes(&self) -> bool {
        !matches!(self.op, Op::Find | Op::Get | Op::List(_) | Op::Count | Op::Last)
    }

    /// Whether doing it twice does no more than doing it once.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self.op, Op::Create | Op::Append { .. } | Op::Add { .. } | Op::Take { .. } | Op::Move { .. })
    }

    /// Whether it works on one record, found by its id.
    pub(super) fn is_keyed(&self) -> bool {
        self.takes.first().is_some_and(|take| take.field == 0)
    }
}

/// A kind of record, with all that can be done to it.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) held_out: bool,
    pub(super) one: &'static str,
    pub(super) many: &'static str,
    /// What ids begin with, in most of the ways in which they are written.
    pub(super) prefix: &'static str,
    /// The id, then the field that people know a record by, then the rest.
    pub(super) fields: Vec<Field>,
    pub(super) functions: Vec<Function>,
}

/// A function of a family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) family: &'static Family,
    pub(super) function: &'static Function,
}

impl PartialEq for Deed {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.function, other.function)
    }
}

impl Deed {
    /// The fields it takes, with how requests say them and whether they are required.
    pub(super) fn takes(self) -> impl Iterator<Item = (&'static Field, &'static Words, bool)> {
        self.function.takes.iter().map(move |take| {
            let field = &self.family.fields[take.field];
            (field, if take.say.is_empty() { &field.say } else { &take.say }, take.required)
        })
    }
}

impl Family {
    /// The field that people know a record by.
    pub(super) fn title(&self) -> &Field {
        &self.fields[1]
    }

    /// The fields that a record holds, the id first.
    pub(super) fn stored(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.part != Part::Argument)
    }

    /// Its functions of one kind.
    pub(super) fn deeds(&'static self, wanted: impl Fn(&Function) -> bool) -> Vec<Deed> {
        let fitting = self.functions.iter().filter(|function| wanted(function));
        fitting.map(|function| Deed { family: self, function }).collect()
    }
}

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| SOURCES.iter().map(|text| parse(text)).collect());

const SOURCES: [&str; 17] = [
    include_str!("families/bank.txt"),
    include_str!("families/calendar.txt"),
    include_str!("families/contacts.txt"),
    include_str!("families/courses.txt"),
    include_str!("families/files.txt"),
    include_str!("families/fitness.txt"),
    include_str!("families/fleet.txt"),
    include_str!("families/home.txt"),
    include_str!("families/hotel.txt"),
    include_str!("families/library.txt"),
    include_str!("families/music.txt"),
    include_str!("families/notes.txt"),
    include_str!("families/shop.txt"),
    include_str!("families/stock.txt"),
    include_str!("families/support.txt"),
    include_str!("families/tasks.txt"),
    include_str!("families/vet.txt"),
];

/// The families of a split.
pub(super) fn families(split: Split) -> Vec<&'static Family> {
    FAMILIES.iter().filter(|family| family.held_out == (split == Split::HeldOut)).collect()
}

/// The tables are part of the program and a unit test walks through all of them.
fn bad(line: &str) -> ! {
    panic!("built-in family table is malformed at `{line}`")
}

fn parse(text: &'static str) -> Family {
    let mut lines = lines(text);
    let mut family = header(lines.next().unwrap_or_default());
    for line in lines {
        let (word, rest) = line.split_once(' ').unwrap_or_else(|| bad(line));
        let part = match word {
            "field" => Part::Given,
            "state" => Part::State,
            "arg" => Part::Argument,
            "fn" => {
                let op = op(&family, rest).unwrap_or_else(|| bad(line));
                family.functions.push(Function {
                    op,
                    names: vec![],
                    about: vec![],
                    takes: vec![],
                    ask: vec![],
                    needs: None,
                });
                continue;
            }
            _ => {
                function_line(&mut family, word, rest).unwrap_or_else(|| bad(line));
                continue;
            }
        };
        family.fields.push(field(part, rest).unwrap_or_else(|| bad(line)));
    }
    family
}

/// `[-]family ONE/MANY PREFIX`; the dash holds it out of training.
fn header(line: &'static str) -> Family {
    let held_out = line.starts_with('-');
    let ["family", nouns, prefix] = split(line.trim_start_matches('-'), ' ')[..] else { bad(line) };
    let (one, many) = nouns.split_once('/').unwrap_or_else(|| bad(line));
    let key = Field {
        name: ID,
        part: Part::Key,
        kind: Kind::Key,
        say: vec!["{}", "with the id {}", "number {}", "{}"],
        deny: vec![],
        others: vec!["{one}_id", "{one}_id", "{one}_number", "{one}_ref"],
        about: "Id of the {one}, such as {example}.",
        question: "Which {one} do you mean? Please give me its id.",
    };
    Family { held_out, one, many, prefix, fields: vec![key], functions: vec![] }
}

/// `NAME KIND | phrases | other names | description | question`.
fn field(part: Part, rest: &'static str) -> Option<Field> {
    let columns: Words = rest.split('|').map(str::trim).collect();
    let [head, say, others, about, question] = columns[..] else { return None };
    let (name, kind) = head.split_once(' ')?;
    let (say, deny) = say.split_once('!').unwrap_or((say, ""));
    Some(Field {
        name,
        part,
        kind: Kind::parse(kind)?,
        say: split(say, ';'),
        deny: split(deny, ';'),
        others: split(others, ','),
        about,
        question,
    })
}

fn op(family: &Family, text: &'static str) -> Option<Op> {
    let place = |name: &str| family.fields.iter().position(|field| field.name == name);
    let pair = |text: &'static str| {
        let (name, value) = text.split_once('=')?;
        Some((place(name)?, value))
    };
    Some(match split(text, ' ')[..] {
        ["create"] => Op::Create,
        ["find"] => Op::Find,
        ["get"] => Op::Get,
        ["update"] => Op::Update,
        ["delete"] => Op::Delete,
        ["count"] => Op::Count,
        ["last"] => Op::Last,
        ["list"] => Op::List(None),
        ["list", filter] => Op::List(Some(pair(filter)?)),
        ["append", field] => Op::Append { field: place(field)? },
        ["add", field, amount] => Op::Add { field: place(field)?, amount: place(amount)? },
        ["take", field, amount] => Op::Take { field: place(field)?, amount: place(amount)? },
        ["move", field, to, amount] => Op::Move { field: place(field)?, to: place(to)?, amount: place(amount)? },
        ["set", change, from] => {
            let (field, value) = pair(change)?;
            Op::Set { field, value, from: split(from.strip_prefix("from=")?, ',') }
        }
        _ => return None,
    })
}

fn function_line(family: &mut Family, word: &str, rest: &'static str) -> Option<()> {
    let function = family.functions.last_mut()?;
    let place = |name: &str| family.fields.iter().position(|field| field.name == name);
    match word {
        "names" => function.names = split(rest, ' '),
        "about" => function.about = split(rest, ';'),
        "ask" => function.ask = split(rest, ';').into_iter().map(|text| ask(text, place)).collect::<Option<_>>()?,
        "needs" => {
            let (name, states) = rest.split_once('=')?;
            function.needs = Some((place(name)?, split(states, ',')));
        }
        "takes" => {
            let take = |word| {
                let (name, required) = flagged(word);
                Some(Take { field: place(name)?, required, say: vec![] })
            };
            function.takes = split(rest, ' ').into_iter().map(take).collect::<Option<_>>()?;
        }
        "say" => {
            let (name, phrases) = rest.split_once('|')?;
            let field = place(name.trim())?;
            function.takes.iter_mut().find(|take| take.field == field)?.say = split(phrases, ';');
        }
        _ => return None,
    }
    Some(())
}

/// `how much is on the account [balance]`.
fn ask(text: &'static str, place: impl Fn(&str) -> Option<usize>) -> Option<Ask> {
    let Some((text, field)) = text.split_once(" [") else { return Some(Ask { text, about: None }) };
    Some(Ask { text, about: Some(place(field.strip_suffix(']')?)?) })
}
