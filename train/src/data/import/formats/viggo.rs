//! ViGGO: a sentence (`ref`) and its meaning (`mr`), `request(release_year[2014], specifier[terrible])`, as a user turn and a
//! call that the dialect `viggo` writes back to the letter.
//!
//! Every conversation offers the functions of [`viggo`], and is one that they can say: a row that says something else is flawed.

use super::super::fields::text;
use super::{Format, Read, Rules};
use crate::data::rows::{Flaw, Reason};
use crate::data::viggo;
use crate::random;
use callsmith::chat::{Conversation, Message, Role, Tool, ToolCall};
use rand::seq::SliceRandom;
use serde_json::{Map, Value as Json, json};
use std::collections::VecDeque;
use std::num::NonZeroUsize;

/// Rows that are shuffled together.
const BLOCK: usize = 1 << 16;
/// Bytes of text after which fewer are; as values meanings are several times as large.
const BLOCK_BYTES: usize = 16 << 20;

/// How ViGGO is imported.
#[derive(Debug, Clone, Copy)]
pub struct ViggoSwitches {
    /// Rows that share a conversation and so its declaration of the functions. One row each keeps the order of the file;
    /// several are drawn at random, because neighbours have the same meaning.
    pub turns: NonZeroUsize,
}

impl Default for ViggoSwitches {
    fn default() -> Self {
        Self { turns: NonZeroUsize::MIN }
    }
}

/// Reads the rows of ViGGO.
pub(in super::super) struct Viggo {
    turns: usize,
    seed: u64,
    tools: Vec<Tool>,
    waiting: Vec<Turn>,
    bytes: usize,
    blocks: u64,
    shuffled: VecDeque<Turn>,
}

/// A sentence and its meaning.
struct Turn {
    sentence: String,
    function: String,
    arguments: Json,
}

impl Viggo {
    pub(in super::super) fn new(switches: ViggoSwitches, seed: u64) -> Self {
        let (waiting, shuffled) = (Vec::new(), VecDeque::new());
        Self { turns: switches.turns.get(), seed, tools: viggo::tools(), waiting, bytes: 0, blocks: 0, shuffled }
    }

    fn shuffle(&mut self) {
        let mut block = std::mem::take(&mut self.waiting);
        block.shuffle(&mut random::stream(self.seed, "viggo turns", self.blocks));
        self.shuffled = block.into();
        (self.bytes, self.blocks) = (0, self.blocks + 1);
    }

    fn conversation(&self, turns: impl Iterator<Item = Turn>) -> Conversation {
        let turn = |(index, turn): (usize, Turn)| {
            let call = ToolCall { id: format!("call_{}", index + 1), name: turn.function, arguments: turn.arguments };
            let answer = Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") };
            [Message::text(Role::User, turn.sentence), answer]
        };
        viggo::conversation(&self.tools, turns.enumerate().flat_map(turn).collect())
    }
}

impl Format for Viggo {
    fn row(&mut self, row: &Json, _rules: &mut Rules) -> Read {
        let mr = text(row, "mr")?;
        let (function, arguments) = meaning(&self.tools, mr)?;
        let turn = Turn { sentence: text(row, "ref")?.to_owned(), function, arguments };
        if self.turns == 1 {
            return Ok(Some(self.conversation(std::iter::once(turn)).into()));
        }
        self.bytes += turn.sentence.len() + mr.len();
        self.waiting.push(turn);
        if self.waiting.len() >= BLOCK || self.bytes >= BLOCK_BYTES {
            self.shuffle();
        }
        Ok(None)
    }

    fn grouped(&mut self, end: bool) -> Option<Conversation> {
        if end && self.shuffled.is_empty() {
            self.shuffle();
        }
        let count = self.turns.min(self.shuffled.len());
        let turns: Vec<_> = self.shuffled.drain(..count).collect();
        (count > 0).then(|| self.conversation(turns.into_iter()))
    }
}

/// The function and arguments of `function(attribute[value], attribute[value])`.
fn meaning(tools: &[Tool], text: &str) -> Result<(String, Json), Flaw> {
    let flaw = |detail: String| Flaw::new(Reason::Call, format!("{detail} in `{text}`"));
    let shape = || flaw("not the form function(attribute[value], …)".to_owned());
    let (function, rest) = text.split_once('(').ok_or_else(shape)?;
    let tool = tools.iter().find(|tool| tool.name == function);
    let schema = tool.and_then(|tool| tool.parameters.as_ref());
    let schema = schema.ok_or_else(|| flaw(format!("unknown function `{function}`")))?;
    let mut rest = rest.strip_suffix(')').ok_or_else(shape)?;
    let (mut known, mut arguments) = (schema["properties"].as_object().into_iter().flatten(), Map::new());
    while !rest.is_empty() {
        let (name, more) = rest.split_once('[').ok_or_else(shape)?;
        let (written, more) = more.split_once(']').ok_or_else(shape)?;
        let property = known.find(|(known, _)| *known == name);
        let (_, property) = property.ok_or_else(|| flaw(format!("`{name}` is unknown or not in its place")))?;
        let value = value(property, written).ok_or_else(|| flaw(format!("unknown value of `{name}`")))?;
        arguments.insert(name.to_owned(), value);
        rest = match more.strip_prefix(", ") {
            Some(next) if !next.is_empty() => next,
            None if more.is_empty() => more,
            _ => return Err(shape()),
        };
    }
    Ok((function.to_owned(), Json::Object(arguments)))
}

/// The value that a text stands for; `None` when it is none of the schema's.
fn value(schema: &Json, text: &str) -> Option<Json> {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().find(|known| *known == text).cloned();
    }
    match schema["type"].as_str() {
        Some("integer") => text.parse().ok().filter(|number: &u16| number.to_string() == text).map(Json::from),
        Some("boolean") => ["no", "yes"].iter().position(|known| *known == text).map(|place| json!(place == 1)),
        Some("array") => text.split(", ").map(|item| value(&schema["items"], item)).collect(),
        _ => Some(json!(text)),
    }
}

#[cfg(test)]
mod tests;
