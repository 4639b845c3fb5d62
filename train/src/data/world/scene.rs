//! A dialogue while it is acted out: who says what, which calls are made and what they return, and what is to be true at
//! the end.
//!
//! Knows how single turns are made; which turns a class needs is in [`super::skeletons`].

use super::class::{Class, Move};
use super::config::WorldConfig;
use super::execute::{Act, Outcome};
use super::families::{Deed, Family, Field, Function, Op, families, is_question};
use super::ids::Ids;
use super::offer::Offer;
use super::state::{Fault, World};
use super::text::phrases;
use super::{Sample, Script, Turn};
use crate::data::Dialogue;
use crate::data::synth::dice::Dice;
use crate::data::synth::values::capitalise;
use callsmith::chat::{Conversation, Message, Role, ToolCall, ToolChoice};
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;

/// What a drawn scene cannot go on with; another draw may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stuck;

/// The values of a call, each with its field.
pub(super) type Filling = Vec<(&'static Field, Json)>;

/// A call that is planned.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) deed: Deed,
    pub(super) filling: Filling,
}

impl Step {
    pub(super) fn act(&self) -> Act {
        let arguments: Map<String, Json> =
            self.filling.iter().map(|(field, value)| (field.name.to_owned(), value.clone())).collect();
        Act { deed: self.deed, arguments }
    }

    /// The value of a field.
    pub(super) fn value(&self, name: &str) -> Option<&Json> {
        self.filling.iter().find(|(field, _)| field.name == name).map(|(_, value)| value)
    }

    /// The same with another value for a field.
    pub(super) fn with(mut self, name: &str, value: &Json) -> Self {
        for (field, held) in &mut self.filling {
            if field.name == name {
                *held = value.clone();
            }
        }
        self
    }
}

/// A dialogue in the making.
pub(super) struct Scene<'a> {
    pub(super) dice: Dice,
    pub(super) config: &'a WorldConfig,
    /// Probability that a drawn name is in another script.
    pub(super) unicode: f64,
    /// As it is now.
    pub(super) world: World,
    /// As it was, with the faults that happen.
    before: World,
    /// As it is to be: as it was, with what the user asked for.
    goal: World,
    pub(super) offers: Vec<Offer>,
    /// The single fields that requests have asked for.
    pub(super) asked: Vec<&'static Field>,
    /// Functions that must not be on offer.
    pub(super) withheld: Vec<Deed>,
    pub(super) messages: Vec<Message>,
    untrained: BTreeSet<usize>,
    turns: Vec<Turn>,
    all: Vec<&'static Family>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(config: &'a WorldConfig, mut dice: Dice) -> Self {
        let world = World::new(Ids::draw(&mut dice));
        Self {
            dice,
            config,
            unicode: config.noise.unicode,
            world: world.clone(),
            before: world.clone(),
            goal: world,
            offers: Vec::new(),
            asked: Vec::new(),
            withheld: Vec::new(),
            messages: Vec::new(),
            untrained: BTreeSet::new(),
            turns: Vec::new(),
            all: families(config.split),
        }
    }

    /// One of the split's families, with records.
    pub(super) fn family(&mut self) -> &'static Family {
        let family = self.dice.pick(&self.all);
        let count = 4 + self.dice.below(4);
        self.let_in(family, count);
        family
    }

    /// Gives a family records, unless it has some.
    pub(super) fn let_in(&mut self, family: &'static Family, count: usize) {
        self.before.let_in(family, count, &mut self.dice);
        for world in [&mut self.world, &mut self.goal] {
            world.adopt(&self.before, family);
        }
    }

    /// A function of any family.
    pub(super) fn deed(&mut self, wanted: impl Fn(&Function) -> bool) -> Result<Deed, Stuck> {
        let family = self.family();
        self.deed_of(family, wanted)
    }

    /// A function of a family.
    pub(super) fn deed_of(
        &mut self,
        family: &'static Family,
        wanted: impl Fn(&Function) -> bool,
    ) -> Result<Deed, Stuck> {
        let deeds = family.deeds(wanted);
        if deeds.is_empty() { Err(Stuck) } else { Ok(self.dice.pick(&deeds)) }
    }

    /// A sentence of a section, with its places filled in.
    pub(super) fn phrase(&mut self, section: &str, places: &[(&str, &str)]) -> String {
        let mut text = self.dice.pick(phrases(section)).to_owned();
        for (place, value) in places {
            text = text.replace(&format!("{{{place}}}"), value);
        }
        text
    }

    /// A sentence with one place, `{}`.
    pub(super) fn phrase_of(&mut self, section: &str, value: &str) -> String {
        self.dice.pick(phrases(section)).replacen("{}", value, 1)
    }

    /// The user asks for something, in a sentence of its own, and may chat about it.
    pub(super) fn user_asks(&mut self, request: &str) {
        let framed = if is_question(request) { format!("{request}?") } else { self.phrase_of("frame", request) };
        let text = if !self.dice.chance(self.config.noise.chatter) {
            self.written(&framed)
        } else if self.dice.chance(0.6) {
            format!("{} {}", self.phrase("preamble", &[]), self.written(&framed))
        } else {
            format!("{} {}", sentence(&framed), self.phrase("after", &[]))
        };
        self.messages.push(Message::text(Role::User, text));
    }

    /// The user says something.
    pub(super) fn user_says(&mut self, text: &str) {
        let text = self.written(text);
        self.messages.push(Message::text(Role::User, text));
    }

    /// The user gives a value, written as it is to be used.
    pub(super) fn user_replies(&mut self, text: impl Into<String>) {
        self.messages.push(Message::text(Role::User, text));
    }

    /// A sentence as this user writes it.
    fn written(&mut self, text: &str) -> String {
        if self.dice.chance(self.config.noise.careless) { text.to_owned() } else { sentence(text) }
    }

    /// The assistant says something.
    pub(super) fn say(&mut self, does: Move, text: impl Into<String>) {
        self.turns.push(Turn { does, assistant_message: self.messages.len() });
        self.messages.push(Message::text(Role::Assistant, text));
    }

    /// A system message, at the very beginning.
    pub(super) fn system(&mut self, section: &str) {
        let text = self.phrase(section, &[]);
        self.messages.push(Message::text(Role::System, text));
    }

    /// The last assistant turn is shown, but not trained on.
    pub(super) fn untrain(&mut self) {
        if let Some(turn) = self.turns.pop() {
            self.untrained.insert(turn.assistant_message);
        }
    }

    /// The user wants this to be done: it becomes part of the goal.
    pub(super) fn intend(&mut self, step: &Step) -> Result<(), Stuck> {
        self.goal.execute(&step.act()).map(drop).map_err(|_| Stuck)
    }

    /// The call after `later` others is going to fail.
    pub(super) fn doom(&mut self, later: usize, fault: Fault) {
        let number = self.world.calls + later;
        self.world.faults.insert(number, fault);
        self.before.faults.insert(number, fault);
    }

    /// The assistant makes calls in one turn, which are carried out. What they return follows.
    pub(super) fn call(&mut self, steps: &[Step]) -> Vec<Outcome> {
        let mut calls = Message::text(Role::Assistant, "");
        let mut results = Vec::new();
        let mut outcomes = Vec::new();
        for step in steps {
            let offer = self.offer(step.deed);
            let act = step.act();
            let arguments = self.offers[offer].shown(&act.arguments);
            let id = format!("call_{:08x}", self.dice.between(0, i64::from(u32::MAX)));
            let name = self.offers[offer].tool.name.clone();
            let outcome = self.world.execute(&act);
            results.push(result(&id, &name, &outcome));
            calls.tool_calls.push(ToolCall { id, name, arguments });
            outcomes.push(outcome);
        }
        self.turns.push(Turn { does: Move::Call, assistant_message: self.messages.len() });
        self.messages.push(calls);
        self.messages.extend(results);
        outcomes
    }

    /// A call that the user wants and that succeeds, with its result.
    pub(super) fn succeed(&mut self, step: &Step) -> Result<Json, Stuck> {
        self.intend(step)?;
        let outcome = self.call(std::slice::from_ref(step)).pop();
        outcome.and_then(Result::ok).ok_or(Stuck)
    }

    /// Place of a function among those on offer, to which it is added.
    pub(super) fn offer(&mut self, deed: Deed) -> usize {
        if let Some(place) = self.offers.iter().position(|offer| offer.deed == deed) {
            return place;
        }
        let mut offer = Offer::new(deed, self.world.ids, &self.config.noise, &mut self.dice);
        while self.offers.iter().any(|other| other.tool.name == offer.tool.name) {
            offer = Offer::new(deed, self.world.ids, &self.config.noise, &mut self.dice);
        }
        self.offers.push(offer);
        self.offers.len() - 1
    }

    /// Keeps some functions of a family off the offer.
    pub(super) fn withhold(&mut self, family: &'static Family, which: impl Fn(&Op) -> bool) {
        self.withheld.extend(family.deeds(|function| which(&function.op)));
    }

    /// Adds functions that the dialogue does not need, half of them of families that it is about.
    pub(super) fn distract(&mut self, count: usize) {
        let needed: Vec<Deed> =
            self.offers.iter().map(|offer| offer.deed).chain(self.withheld.iter().copied()).collect();
        // Of a family that is withheld nothing can be taken, so many draws are in vain.
        for _ in 0..16 + count * 8 {
            if self.offers.len() >= needed.len() - self.withheld.len() + count {
                break;
            }
            let near = !needed.is_empty() && self.dice.chance(0.5);
            let family = if near { self.dice.pick(&needed).family } else { self.dice.pick(&self.all) };
            let Ok(deed) = self.deed_of(family, |_| true) else { continue };
            if needed.iter().all(|other| !rivals(*other, deed)) {
                self.offer(deed);
            }
        }
    }

    /// Whether the last turn tells of calls that have all succeeded.
    fn has_served(&self) -> bool {
        let mut results =
            self.messages.iter().rev().skip(1).take_while(|message| message.role == Role::Tool).peekable();
        let answered = self.turns.last().is_some_and(|turn| turn.does == Move::Answer);
        answered && results.peek().is_some() && results.all(|result| !result.content.starts_with(r#"{"error""#))
    }

    /// The finished dialogue of a class.
    pub(super) fn finish(mut self, class: Class) -> (Sample, Script) {
        if self.has_served() && self.dice.chance(0.08) {
            let entry = self.phrase("closing", &[]);
            let (said, answer) = entry.split_once(" => ").unwrap_or((&entry, "You're welcome."));
            self.user_says(said);
            self.say(Move::Chat, answer);
        }
        self.dice.shuffle(&mut self.offers);
        let tools = self.offers.iter().map(|offer| offer.tool.clone()).collect();
        let conversation =
            Conversation { messages: self.messages, tools, tool_choice: ToolChoice::Auto, parallel_tool_calls: true };
        let dialogue = Dialogue { conversation, untrained: self.untrained, class: None };
        let script = Script { before: self.before, goal: self.goal, offers: self.offers };
        (Sample { dialogue, class, turns: self.turns }, script)
    }
}

/// Whether one could be called where the other is meant.
pub(super) fn rivals(needed: Deed, other: Deed) -> bool {
    let searches = |op: &Op| matches!(op, Op::Find | Op::List(_));
    // What all records tell as well.
    let sums_up = |op: &Op| matches!(op, Op::Count | Op::Last);
    let shows_all = |op: &Op| matches!(op, Op::Find | Op::List(None));
    let shifts = |op: &Op| matches!(op, Op::Add { .. } | Op::Take { .. } | Op::Move { .. });
    let rival = |one: &Op, other: &Op| {
        searches(one) && searches(other)
            || sums_up(one) && shows_all(other)
            || matches!(one, Op::Move { .. }) && shifts(other)
    };
    let (one, two) = (&needed.function.op, &other.function.op);
    needed == other || std::ptr::eq(needed.family, other.family) && (rival(one, two) || rival(two, one))
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', '?', '!', '"']) { "" } else { "." };
    capitalise(text) + end
}

fn result(id: &str, name: &str, outcome: &Outcome) -> Message {
    let json = outcome.as_ref().map_or_else(super::execute::Refusal::to_json, Clone::clone);
    let mut message = Message::text(Role::Tool, json.to_string());
    message.tool_call_id = Some(id.to_owned());
    message.name = Some(name.to_owned());
    message
}
