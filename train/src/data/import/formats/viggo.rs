//! ViGGO: a sentence (`ref`) and its meaning (`mr`), `request(release_year[2014], specifier[terrible])`, as a user turn and a
//! call that the dialect `viggo` writes back to the letter.
//!
//! Every conversation offers the nine functions with the fourteen attributes, typed by what the training rows hold. A row
//! that says something else is flawed.

use super::super::fields::text;
use super::{Format, Rules};
use crate::data::rows::{Flaw, Reason};
use crate::random;
use callsmith::chat::{Conversation, Message, Role, Tool, ToolCall, ToolChoice};
use rand::seq::SliceRandom;
use serde_json::{Map, Value as Json, json};
use std::collections::VecDeque;
use std::num::NonZeroUsize;

/// Rows that are shuffled together.
const BLOCK: usize = 1 << 16;
/// Bytes of text after which fewer are.
const BLOCK_BYTES: usize = 32 << 20;

/// The function that only names an attribute: all its values are empty, as those of no other are.
const BARE: &str = "request_attribute";
const FUNCTIONS: [&str; 9] = [
    "inform",
    "request",
    "give_opinion",
    "confirm",
    "verify_attribute",
    "suggest",
    "request_explanation",
    "recommend",
    BARE,
];

/// What an attribute holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Year,
    YesNo,
    OneOf(&'static [&'static str]),
    SomeOf(&'static [&'static str]),
}

/// In the order in which every meaning has them.
const ATTRIBUTES: [(&str, Kind); 14] = [
    ("name", Kind::Text),
    ("exp_release_date", Kind::Text),
    ("release_year", Kind::Year),
    ("developer", Kind::Text),
    ("esrb", Kind::OneOf(&ESRB)),
    ("rating", Kind::OneOf(&["excellent", "good", "average", "poor"])),
    ("genres", Kind::SomeOf(&GENRES)),
    ("player_perspective", Kind::SomeOf(&["bird view", "first person", "side view", "third person"])),
    ("has_multiplayer", Kind::YesNo),
    ("platforms", Kind::SomeOf(&["PlayStation", "Xbox", "Nintendo", "Nintendo Switch", "PC"])),
    ("available_on_steam", Kind::YesNo),
    ("has_linux_release", Kind::YesNo),
    ("has_mac_release", Kind::YesNo),
    ("specifier", Kind::Text),
];
const ESRB: [&str; 4] = ["E (for Everyone)", "E 10+ (for Everyone 10 and Older)", "T (for Teen)", "M (for Mature)"];
const GENRES: [&str; 25] = [
    "MMORPG",
    "action",
    "action-adventure",
    "adventure",
    "arcade",
    "driving/racing",
    "fighting",
    "hack-and-slash",
    "indie",
    "music",
    "pinball",
    "platformer",
    "point-and-click",
    "puzzle",
    "real-time strategy",
    "role-playing",
    "shooter",
    "simulation",
    "sport",
    "strategy",
    "tactical",
    "text adventure",
    "trivia/board game",
    "turn-based strategy",
    "vehicular combat",
];

impl Kind {
    fn schema(self) -> Json {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Year => json!({"type": "integer"}),
            Self::YesNo => json!({"type": "boolean"}),
            Self::OneOf(values) => json!({"type": "string", "enum": values}),
            Self::SomeOf(values) => json!({"type": "array", "items": {"type": "string", "enum": values}}),
        }
    }

    /// The value that `text` stands for; `None` when it is not of this kind.
    fn value(self, text: &str) -> Option<Json> {
        match self {
            Self::Text => Some(json!(text)),
            Self::Year => text.parse().ok().filter(|year: &u16| year.to_string() == text).map(Json::from),
            Self::YesNo => ["no", "yes"].iter().position(|known| *known == text).map(|place| json!(place == 1)),
            Self::OneOf(values) => values.contains(&text).then(|| json!(text)),
            Self::SomeOf(values) => {
                let items: Vec<_> = text.split(", ").collect();
                items.iter().all(|item| values.contains(item)).then(|| json!(items))
            }
        }
    }
}

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
        Self { turns: switches.turns.get(), seed, tools: tools(), waiting, bytes: 0, blocks: 0, shuffled }
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
        Conversation {
            messages: turns.enumerate().flat_map(turn).collect(),
            tools: self.tools.clone(),
            tool_choice: ToolChoice::Required,
            parallel_tool_calls: true,
        }
    }
}

impl Format for Viggo {
    fn row(&mut self, row: &Json, _rules: &mut Rules) -> Result<Option<Conversation>, Flaw> {
        let (function, arguments) = meaning(text(row, "mr")?)?;
        let turn = Turn { sentence: text(row, "ref")?.to_owned(), function, arguments };
        if self.turns == 1 {
            return Ok(Some(self.conversation(std::iter::once(turn))));
        }
        self.bytes += turn.sentence.len();
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

fn tools() -> Vec<Tool> {
    let tool = |name: &&str| Tool {
        name: (*name).to_owned(),
        description: None,
        parameters: Some(parameters(*name == BARE)),
        strict: false,
    };
    FUNCTIONS.iter().map(tool).collect()
}

fn parameters(bare: bool) -> Json {
    let schema = |kind: Kind| if bare { json!({"type": "string", "enum": [""]}) } else { kind.schema() };
    let properties: Map<_, _> = ATTRIBUTES.iter().map(|(name, kind)| ((*name).to_owned(), schema(*kind))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// The function and arguments of `function(attribute[value], attribute[value])`.
fn meaning(text: &str) -> Result<(String, Json), Flaw> {
    let flaw = |detail: String| Flaw::new(Reason::Call, format!("{detail} in `{text}`"));
    let shape = || flaw("not the form function(attribute[value], …)".to_owned());
    let (function, rest) = text.split_once('(').ok_or_else(shape)?;
    if !FUNCTIONS.contains(&function) {
        return Err(flaw(format!("unknown function `{function}`")));
    }
    let mut rest = rest.strip_suffix(')').ok_or_else(shape)?;
    let (mut known, mut arguments) = (ATTRIBUTES.iter(), Map::new());
    while !rest.is_empty() {
        let (name, more) = rest.split_once('[').ok_or_else(shape)?;
        let (value, more) = more.split_once(']').ok_or_else(shape)?;
        let (_, kind) = known
            .find(|(known, _)| *known == name)
            .ok_or_else(|| flaw(format!("`{name}` is unknown or not in its place")))?;
        let value = if function == BARE { value.is_empty().then(|| json!("")) } else { kind.value(value) };
        arguments.insert(name.to_owned(), value.ok_or_else(|| flaw(format!("unknown value of `{name}`")))?);
        rest = match more.strip_prefix(", ") {
            Some(next) if !next.is_empty() => next,
            None if more.is_empty() => more,
            _ => return Err(shape()),
        };
    }
    Ok((function.to_owned(), Json::Object(arguments)))
}

#[cfg(test)]
mod tests;
