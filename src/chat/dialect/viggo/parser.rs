//! Reads an act piece by piece: its attributes become the members of a JSON object, each as soon as its bracket closes.

use super::super::{Delta, TurnParser};
use super::attribute::Act;
use crate::chat::SPACE;
use serde_json::Value;

/// Where the parser is; the buffer begins with what the state expects.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// Inside act `act`, after this many attributes.
    Attributes {
        act: usize,
        read: usize,
    },
    Words,
    /// After the act, or after something that no act has.
    Over,
}

pub(super) struct ActParser {
    acts: Vec<Act>,
    state: State,
    buffer: String,
    deltas: Vec<Delta>,
}

impl ActParser {
    pub(super) fn new(acts: Vec<Act>) -> Self {
        Self { acts, state: State::Open, buffer: String::new(), deltas: Vec::new() }
    }

    /// Reads as far as the buffer goes; true when there may be more to read.
    fn step(&mut self) -> bool {
        match self.state {
            State::Open => self.open(),
            State::Attributes { act, read } => self.attribute(act, read),
            State::Words => {
                self.say();
                false
            }
            State::Over => {
                self.buffer.clear();
                false
            }
        }
    }

    fn open(&mut self) -> bool {
        let text = self.buffer.trim_start_matches(SPACE);
        let head = |act: &Act| format!("{}(", act.name);
        if let Some(act) = self.acts.iter().position(|act| text.starts_with(&head(act))) {
            let length = self.buffer.len() - text.len() + head(&self.acts[act]).len();
            self.buffer.drain(..length);
            self.deltas.push(Delta::CallStart { index: 0, name: self.acts[act].name.clone() });
            self.write("{");
            self.state = State::Attributes { act, read: 0 };
            return true;
        }
        if self.acts.iter().any(|act| head(act).starts_with(text)) {
            return false;
        }
        self.state = State::Words;
        true
    }

    /// One attribute, or the end of the act.
    fn attribute(&mut self, act: usize, read: usize) -> bool {
        if self.buffer.starts_with(')') {
            self.write("}");
            self.deltas.push(Delta::CallEnd { index: 0 });
            self.state = State::Over;
            return true;
        }
        let text = if read > 0 { self.buffer.trim_start_matches([',', ' ']) } else { self.buffer.as_str() };
        let Some((attribute, rest)) = text.split_once('[') else { return false };
        let Some((value, rest)) = rest.split_once(']') else { return false };
        let left = rest.len();
        match self.acts[act].value(attribute, value) {
            Some(value) => {
                let comma = if read > 0 { "," } else { "" };
                let member = format!("{comma}{}:{value}", Value::from(attribute));
                self.write(&member);
                self.state = State::Attributes { act, read: read + 1 };
            }
            None => self.state = State::Over,
        }
        self.buffer.drain(..self.buffer.len() - left);
        true
    }

    fn write(&mut self, fragment: &str) {
        self.deltas.push(Delta::CallArguments { index: 0, fragment: fragment.to_owned() });
    }

    fn say(&mut self) {
        if !self.buffer.is_empty() {
            self.deltas.push(Delta::Text(std::mem::take(&mut self.buffer)));
        }
    }
}

impl TurnParser for ActParser {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        self.buffer.push_str(text);
        while self.step() {}
        std::mem::take(&mut self.deltas)
    }

    fn finish(&mut self) -> Vec<Delta> {
        if matches!(self.state, State::Open | State::Words) {
            self.say();
        }
        self.buffer.clear();
        std::mem::take(&mut self.deltas)
    }
}
