//! One assistant turn: tokens → text → thoughts and deltas, folded as they come.
//!
//! The only accumulator: streams send the deltas it returns, whole responses read what it has folded.

use super::stop::StopFinder;
use super::wire::response::{Call, Spoken};
use crate::chat::dialect::{Delta, TurnParser};
use crate::chat::reasoning::{Reasoning, Split, ThoughtSplitter};
use crate::chat::tokenizer::{ChatTokenizer, IncrementalDetokenizer};
use crate::engine::TokenEvent;
use serde_json::{Value, json};
use std::sync::Arc;

/// What reads a turn's text.
pub(super) struct Reader {
    /// Finds the calls; `None` when the turn is text alone.
    pub(super) parser: Option<Box<dyn TurnParser>>,
    pub(super) reasoning: Reasoning,
    /// Call ids must be nine letters and digits.
    pub(super) short_ids: bool,
}

/// Reads the tokens of one choice.
pub(super) struct Turn {
    tokenizer: Arc<ChatTokenizer>,
    detokenizer: IncrementalDetokenizer,
    thoughts: ThoughtSplitter,
    /// Tokens that may turn out to have opened thoughts.
    undecided: usize,
    parser: Option<Box<dyn TurnParser>>,
    short_ids: bool,
    stop: StopFinder,
    /// Alternatives to report with each token, when logprobs are wanted.
    logprobs: Option<usize>,
    spoken: Spoken,
    /// How many of the logprobs have been handed out.
    reported: usize,
}

impl Turn {
    /// A turn from its start.
    pub(super) fn new(
        tokenizer: Arc<ChatTokenizer>,
        reader: Reader,
        stop: Vec<String>,
        logprobs: Option<usize>,
    ) -> Self {
        Self {
            detokenizer: IncrementalDetokenizer::new(Arc::clone(&tokenizer)),
            tokenizer,
            thoughts: ThoughtSplitter::new(reader.reasoning),
            undecided: 0,
            parser: reader.parser,
            short_ids: reader.short_ids,
            stop: StopFinder::new(stop),
            logprobs,
            spoken: Spoken::default(),
            reported: 0,
        }
    }

    /// What has been said so far.
    pub(super) fn spoken(&self) -> &Spoken {
        &self.spoken
    }

    /// A stop string ended the turn.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.found()
    }

    /// Takes one token and returns what became certain.
    pub(super) fn push(&mut self, token: &TokenEvent) -> Vec<Delta> {
        if self.is_stopped() {
            return Vec::new();
        }
        let was_thinking = self.thoughts.is_thinking();
        let text = self.text_of(token.id);
        let split = self.thoughts.push(&text);
        let deltas = self.read(split);
        self.count_thought(was_thinking);
        // The tokens of a stop string are not part of the answer.
        if let Some(top) = self.logprobs.filter(|_| !self.is_stopped()) {
            let entry = self.logprob_entry(token, top);
            self.spoken.logprobs.push(entry);
        }
        deltas
    }

    /// An opening tag may take several tokens, of which only the last tells that they were one.
    fn count_thought(&mut self, was_thinking: bool) {
        if self.thoughts.is_undecided() {
            self.undecided += 1;
        } else if was_thinking || self.thoughts.is_thinking() {
            self.spoken.thought_tokens += 1 + std::mem::take(&mut self.undecided);
        }
    }

    /// The turn is over: returns what was held back. Half a character at a cut is left out: nothing stands for it.
    pub(super) fn finish(&mut self) -> Vec<Delta> {
        if self.is_stopped() {
            return Vec::new();
        }
        let held = self.thoughts.finish();
        let mut deltas = self.read(held);
        if let Some(mut parser) = self.parser.take() {
            deltas.extend(self.fold(parser.finish()));
        }
        self.flush_text(&mut deltas);
        deltas
    }

    /// The logprob entries since the last call.
    pub(super) fn take_logprobs(&mut self) -> Vec<Value> {
        let entries = self.spoken.logprobs[self.reported..].to_vec();
        self.reported = self.spoken.logprobs.len();
        entries
    }

    /// Where there are no calls, their tags are control tokens like any other.
    fn text_of(&mut self, id: u32) -> String {
        if self.parser.is_none() && self.tokenizer.is_tag(id) { String::new() } else { self.detokenizer.push(id) }
    }

    fn read(&mut self, split: Split) -> Vec<Delta> {
        let mut deltas = Vec::new();
        if !split.thoughts.is_empty() {
            self.spoken.thoughts.push_str(&split.thoughts);
            deltas.push(Delta::Thought(split.thoughts));
        }
        if !split.rest.is_empty() {
            let found = match &mut self.parser {
                Some(parser) => parser.push(&split.rest),
                None => vec![Delta::Text(split.rest)],
            };
            deltas.extend(self.fold(found));
        }
        deltas
    }

    fn fold(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        let mut certain = Vec::with_capacity(deltas.len());
        for delta in deltas {
            match delta {
                Delta::Text(text) => {
                    let text = self.stop.push(&text);
                    self.say(text, &mut certain);
                }
                _ if self.is_stopped() => {}
                call => {
                    // A stop string cannot reach from text into a call.
                    self.flush_text(&mut certain);
                    self.call(&call);
                    certain.push(call);
                }
            }
        }
        certain
    }

    fn flush_text(&mut self, certain: &mut Vec<Delta>) {
        let text = self.stop.flush();
        self.say(text, certain);
    }

    fn say(&mut self, text: String, certain: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.spoken.content.push_str(&text);
            certain.push(Delta::Text(text));
        }
    }

    fn call(&mut self, delta: &Delta) {
        match delta {
            Delta::CallStart { name, .. } => {
                let id = super::ids::call(self.short_ids);
                self.spoken.calls.push(Call { id, name: name.clone(), arguments: String::new(), complete: false });
            }
            Delta::CallArguments { index, fragment } => {
                if let Some(call) = self.spoken.calls.get_mut(*index) {
                    call.arguments.push_str(fragment);
                }
            }
            Delta::CallEnd { index } => {
                if let Some(call) = self.spoken.calls.get_mut(*index) {
                    call.complete = true;
                }
            }
            Delta::Text(_) | Delta::Thought(_) => {}
        }
    }

    fn logprob_entry(&self, token: &TokenEvent, top: usize) -> Value {
        // A forced token has probability 1 under the masked distribution.
        let certain = [(token.id, 0.0)];
        let (logprob, alternatives) = match &token.logprobs {
            Some(found) => (found.logprob, found.top.as_slice()),
            None => (0.0, certain.as_slice()),
        };
        let top: Vec<Value> = alternatives.iter().take(top).map(|&(id, value)| self.scored(id, value)).collect();
        let mut entry = self.scored(token.id, logprob);
        entry["top_logprobs"] = Value::Array(top);
        entry
    }

    fn scored(&self, id: u32, logprob: f32) -> Value {
        let bytes = self.tokenizer.token_bytes(id);
        // JSON has no infinity; OpenAI writes -9999 for "impossible".
        let logprob = f64::from(if logprob.is_finite() { logprob } else { -9999.0 });
        json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes})
    }
}

/// Joins neighbours of the same kind, so that a step of many tokens is few chunks.
pub(super) fn coalesce(deltas: Vec<Delta>) -> Vec<Delta> {
    let mut joined: Vec<Delta> = Vec::with_capacity(deltas.len());
    for delta in deltas {
        match (joined.last_mut(), &delta) {
            (Some(Delta::Text(last)), Delta::Text(next)) | (Some(Delta::Thought(last)), Delta::Thought(next)) => {
                last.push_str(next);
            }
            (
                Some(Delta::CallArguments { index: last_index, fragment: last }),
                Delta::CallArguments { index, fragment },
            ) if last_index == index => last.push_str(fragment),
            _ => joined.push(delta),
        }
    }
    joined
}
