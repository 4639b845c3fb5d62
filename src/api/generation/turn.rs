//! One assistant turn: tokens → text → thoughts and deltas, folded as they come.
//!
//! The only accumulator: streams send the deltas it returns, whole responses read what it has folded.

use super::spoken::{Call, Spoken, SpokenToken};
use super::stop::StopFinder;
use crate::chat::dialect::{Delta, TurnParser};
use crate::chat::reasoning::{Reasoning, Split, ThoughtSplitter};
use crate::chat::tokenizer::{ChatTokenizer, IncrementalDetokenizer};
use crate::engine::TokenEvent;
use std::sync::Arc;

/// What reads a turn's text.
pub(in crate::api) struct Reader {
    /// Finds the calls; `None` when the turn is text alone.
    pub(super) parser: Option<Box<dyn TurnParser>>,
    pub(super) reasoning: Reasoning,
    /// Call ids must be nine letters and digits.
    pub(super) short_ids: bool,
}

/// Reads the tokens of one choice.
pub(in crate::api) struct Turn {
    tokenizer: Arc<ChatTokenizer>,
    detokenizer: IncrementalDetokenizer,
    thoughts: ThoughtSplitter,
    /// Tokens that may turn out to have opened thoughts.
    undecided: usize,
    parser: Option<Box<dyn TurnParser>>,
    short_ids: bool,
    stop: StopFinder,
    /// The tokens are wanted too.
    keep_tokens: bool,
    spoken: Spoken,
    /// Characters of text so far, stop strings and thoughts included.
    characters: usize,
    /// How many of the tokens have been handed out.
    reported: usize,
}

impl Turn {
    /// A turn from its start.
    pub(super) fn new(tokenizer: Arc<ChatTokenizer>, reader: Reader, stop: Vec<String>, keep_tokens: bool) -> Self {
        Self {
            detokenizer: IncrementalDetokenizer::new(Arc::clone(&tokenizer)),
            tokenizer,
            thoughts: ThoughtSplitter::new(reader.reasoning),
            undecided: 0,
            parser: reader.parser,
            short_ids: reader.short_ids,
            stop: StopFinder::new(stop),
            keep_tokens,
            spoken: Spoken::default(),
            characters: 0,
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
        let offset = self.characters;
        let text = self.text_of(token.id);
        self.characters += text.chars().count();
        let split = self.thoughts.push(&text);
        let deltas = self.read(split);
        self.count_thought(was_thinking);
        // The tokens of a stop string are not part of the answer.
        if self.keep_tokens && !self.is_stopped() {
            let TokenEvent { id, forced, ref logprobs } = *token;
            self.spoken.tokens.push(SpokenToken { id, forced, logprobs: logprobs.clone(), offset });
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

    /// The tokens since the last call.
    pub(super) fn take_tokens(&mut self) -> Vec<SpokenToken> {
        let tokens = self.spoken.tokens[self.reported..].to_vec();
        self.reported = self.spoken.tokens.len();
        tokens
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
            self.spoken.raw.push_str(&split.rest);
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
                let id = crate::api::ids::call(self.short_ids);
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
