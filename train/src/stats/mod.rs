//! What files of conversations hold, as a trainer sees them: lengths in tokens, calls, functions, values, kinds of answers,
//! classes. Answers that are not trained on are counted apart.
//!
//! All counts add up in any order, so files of any size are read on all cores and parts are merged. Memory is bounded by the
//! different names of functions and classes. Shown by [`Stats::table`] and on the page of [`page`].

mod bars;
mod histogram;
pub mod page;
mod table;

pub use histogram::Histogram;

use crate::data::lines::{self, Line};
use crate::data::{Dialogue, native};
use crate::dataset::encode::{Encoder, Weights};
use crate::error::Result;
use callsmith::chat::{Conversation, Message, Role, Tool, ToolCall};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Lines that cannot be used of which the reason is kept.
const REASONS: usize = 10;

/// What the assistant does in one of its turns; each turn is of exactly one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// One call, not after a result.
    Call,
    /// Several calls at once, not after a result.
    Parallel,
    /// Calls after a result.
    Dependent,
    /// Words after a result.
    ToolResult,
    /// Words although functions are offered.
    NoCall,
    /// Words where no function is offered.
    Plain,
}

impl Answer {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Call, Self::Parallel, Self::Dependent, Self::ToolResult, Self::NoCall, Self::Plain];

    /// For people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Parallel => "parallel calls",
            Self::Dependent => "dependent call",
            Self::ToolResult => "answer to a tool result",
            Self::NoCall => "no call",
            Self::Plain => "plain",
        }
    }

    fn of(message: &Message, before: Option<&Message>, tools: &[Tool]) -> Self {
        let after_result = before.is_some_and(|before| before.role == Role::Tool);
        match (message.tool_calls.len(), after_result) {
            (0, true) => Self::ToolResult,
            (0, false) if tools.is_empty() => Self::Plain,
            (0, false) => Self::NoCall,
            (_, true) => Self::Dependent,
            (1, false) => Self::Call,
            (_, false) => Self::Parallel,
        }
    }
}

/// How often a function occurs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uses {
    /// Dialogues that offer it.
    pub offered: u64,
    pub called: u64,
}

/// Everything that is counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Tokens of each dialogue that the model reads, writes (these are trained), and both together.
    pub prompt: Histogram,
    pub response: Histogram,
    pub whole: Histogram,
    /// The user's messages, the assistant's and its calls in each dialogue; of the assistant's those that are trained on, as
    /// in all that follows.
    pub user_turns: Histogram,
    pub answers: Histogram,
    pub calls: Histogram,
    /// By name.
    pub functions: BTreeMap<String, Uses>,
    /// Arguments by the JSON type of their value; strings that the schema enumerates apart.
    pub value_types: BTreeMap<&'static str, u64>,
    pub kinds: BTreeMap<Answer, u64>,
    /// Answers that are shown and not trained on, and the calls in them.
    pub untrained: u64,
    pub untrained_calls: u64,
    /// Dialogues by what they are examples of, where their source says.
    pub classes: BTreeMap<String, u64>,
    /// Lines that no trainer can use, and the first reasons.
    pub unusable: u64,
    pub reasons: Vec<String>,
}

impl Stats {
    /// Reads files on all cores; lines of more than `longest` bytes cannot be used.
    ///
    /// # Errors
    /// A file that cannot be read; lines that cannot be used are counted.
    pub fn of_files(files: &[PathBuf], longest: usize, encoder: &Encoder) -> Result<Self> {
        let mut stats = Self::default();
        for path in files {
            for batch in lines::batches(path, longest)? {
                let one = |mut stats: Self, line: Line| {
                    let place = format!("{}:{}", path.display(), line.number);
                    stats.line(line, &place, encoder).unwrap_or_else(|reason| stats.unusable(reason));
                    stats
                };
                let part = batch?.into_par_iter().fold(Self::default, one).reduce(Self::default, Self::merged);
                stats = stats.merged(part);
            }
        }
        Ok(stats)
    }

    fn line(&mut self, line: Line, place: &str, encoder: &Encoder) -> Result<(), String> {
        let text = line.text.map_err(|reason| format!("{place}: {reason}"))?;
        let dialogue = native::dialogue_from_line(&text, place).map_err(|error| error.to_string())?;
        let example = encoder.dialogue(&dialogue, Weights::default()).map_err(|error| format!("{place}: {error}"))?;
        let written = example.answers.iter().map(ExactSizeIterator::len).sum();
        self.prompt.add(example.tokens.len() - written);
        self.response.add(written);
        self.whole.add(example.tokens.len());
        self.dialogue(&dialogue);
        Ok(())
    }

    fn unusable(&mut self, reason: String) {
        self.unusable += 1;
        self.reasons.push(reason);
        self.reasons.truncate(REASONS);
    }

    fn dialogue(&mut self, dialogue: &Dialogue) {
        let Conversation { messages, tools, .. } = &dialogue.conversation;
        self.user_turns.add(messages.iter().filter(|message| message.role == Role::User).count());
        tools.iter().for_each(|tool| self.uses(&tool.name).offered += 1);
        let calls = |at: usize| messages[at].tool_calls.len();
        self.answers.add(dialogue.trained().count());
        self.calls.add(dialogue.trained().map(calls).sum());
        for at in dialogue.trained() {
            messages[at].tool_calls.iter().for_each(|call| self.call(call, tools));
            let before = at.checked_sub(1).map(|before| &messages[before]);
            *self.kinds.entry(Answer::of(&messages[at], before, tools)).or_default() += 1;
        }
        self.untrained += dialogue.untrained.len() as u64;
        self.untrained_calls += dialogue.untrained.iter().map(|&at| calls(at) as u64).sum::<u64>();
        if let Some(class) = &dialogue.class {
            *self.classes.entry(class.clone()).or_default() += 1;
        }
    }

    fn call(&mut self, call: &ToolCall, tools: &[Tool]) {
        self.uses(&call.name).called += 1;
        let parameters = tools.iter().find(|tool| tool.name == call.name).and_then(|tool| tool.parameters.as_ref());
        for (name, value) in call.arguments.as_object().into_iter().flatten() {
            let enumerated = parameters.is_some_and(|schema| schema["properties"][name].get("enum").is_some());
            *self.value_types.entry(value_type(value, enumerated)).or_default() += 1;
        }
    }

    fn uses(&mut self, function: &str) -> &mut Uses {
        self.functions.entry(function.to_owned()).or_default()
    }

    /// Both together; the reasons of the first come first.
    fn merged(mut self, other: Self) -> Self {
        self.prompt.merge(other.prompt);
        self.response.merge(other.response);
        self.whole.merge(other.whole);
        self.user_turns.merge(other.user_turns);
        self.answers.merge(other.answers);
        self.calls.merge(other.calls);
        for (name, Uses { offered, called }) in other.functions {
            let uses = self.functions.entry(name).or_default();
            (uses.offered, uses.called) = (uses.offered + offered, uses.called + called);
        }
        other.value_types.into_iter().for_each(|(kind, count)| *self.value_types.entry(kind).or_default() += count);
        other.kinds.into_iter().for_each(|(kind, count)| *self.kinds.entry(kind).or_default() += count);
        other.classes.into_iter().for_each(|(class, count)| *self.classes.entry(class).or_default() += count);
        self.untrained += other.untrained;
        self.untrained_calls += other.untrained_calls;
        self.unusable += other.unusable;
        self.reasons.extend(other.reasons);
        self.reasons.truncate(REASONS);
        self
    }

    /// Dialogues that can be trained on.
    pub fn dialogues(&self) -> u64 {
        self.whole.count()
    }

    /// Classes with their dialogues, the largest first, and those of none as "(none)"; nothing where no dialogue has a class.
    pub fn by_class(&self) -> Vec<(&str, u64)> {
        let mut classes: Vec<_> = self.classes.iter().map(|(class, &count)| (class.as_str(), count)).collect();
        classes.sort_by_key(|&(_, count)| Reverse(count));
        let rest = self.dialogues() - self.classes.values().sum::<u64>();
        if rest > 0 && !classes.is_empty() {
            classes.push(("(none)", rest));
        }
        classes
    }

    /// Functions that are called, the most used first.
    pub fn by_use(&self) -> Vec<(&str, Uses)> {
        self.sorted(|uses| (uses.called > 0).then_some(uses.called))
    }

    /// Functions that are offered and never called, the most offered first.
    pub fn never_called(&self) -> Vec<(&str, Uses)> {
        self.sorted(|uses| (uses.called == 0).then_some(uses.offered))
    }

    /// Those functions that `count` has a number for, the largest first; among equals by name.
    fn sorted(&self, count: impl Fn(&Uses) -> Option<u64>) -> Vec<(&str, Uses)> {
        let found = self.functions.iter().filter_map(|(name, uses)| Some((count(uses)?, name.as_str(), *uses)));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|&(count, name, _)| (Reverse(count), name));
        found.into_iter().map(|(_, name, uses)| (name, uses)).collect()
    }

    /// Functions that are called where nothing ever offers them.
    pub fn never_offered(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().filter(|(_, uses)| uses.offered == 0).map(|(name, _)| name.as_str())
    }

    /// Everything as one object.
    pub fn to_json(&self) -> Value {
        let functions = |found: Vec<(&str, Uses)>| -> Vec<Value> {
            let one = |(name, Uses { offered, called })| json!({"name": name, "offered": offered, "called": called});
            found.into_iter().map(one).collect()
        };
        let kinds = Answer::ALL.map(|kind| (kind.name().to_owned(), json!(self.kinds.get(&kind).unwrap_or(&0))));
        json!({
            "dialogues": self.dialogues(),
            "unusable": {"lines": self.unusable, "first": self.reasons},
            "tokens": {
                "prompt": self.prompt.to_json(),
                "response": self.response.to_json(),
                "whole": self.whole.to_json(),
                "total": self.whole.total(),
                "trained": self.response.total(),
            },
            "per_dialogue": {
                "user_turns": self.user_turns.to_json(),
                "answers": self.answers.to_json(),
                "calls": self.calls.to_json(),
            },
            "answers": Value::Object(kinds.into_iter().collect()),
            "untrained": {"answers": self.untrained, "calls": self.untrained_calls},
            "classes": self.classes,
            "value_types": self.value_types,
            "functions": {
                "count": self.functions.len(),
                "called": functions(self.by_use()),
                "never_called": functions(self.never_called()),
                "never_offered": self.never_offered().collect::<Vec<_>>(),
            },
        })
    }
}

/// The JSON type of an argument.
fn value_type(value: &Value, enumerated: bool) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) if enumerated => "string (enum)",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
