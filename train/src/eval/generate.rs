//! Sample generations while training: held-out turns, answered by the weights as they are at that step.
//!
//! Prompt, grammar, engine and parser are those of `eval::answer`, so what is measured is what the server would write.
//! The engine lives for one evaluation alone, because all that it keeps of a prompt is of that step's weights.

use super::answer::{self, Asker, Question, Written};
use super::score::{self, Call};
use super::{KV_CACHE_BYTES, calls_json, limits};
use crate::data::Dialogue;
use crate::dataset::encode::Encoder;
use crate::error::{Result, TrainError};
use crate::loss::Ratio;
use crate::random;
use crate::ranks::{Place, Ranks};
use crate::recipe::EvalSection;
use crate::stop;
use crate::trainable::Trainable;
use callsmith::engine::{EngineError, EngineHandle, EngineOptions};
use callsmith::model::{Decoder, KvCache, kv_cache};
use rand::seq::SliceRandom;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tokens of a prompt's end that are shown.
const TAIL: usize = 120;
/// Samples that are shown; all are counted.
const SHOWN: usize = 8;
/// Tokens computed in one step: little, because the memory is the training's.
const TOKEN_BUDGET: usize = 512;

/// The turns that each evaluation asks for.
pub struct Generations {
    asker: Asker,
    turns: Vec<Turn>,
    max_tokens: usize,
}

/// One turn and what is wanted of it.
struct Turn {
    question: Question,
    /// The prompt's end, as text.
    tail: String,
    calls: Vec<Call>,
    /// The calls, or words where none are wanted.
    wanted: Value,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Generated {
    /// Turns whose calls are exactly those wanted; none where words are wanted.
    pub calls: Ratio,
    /// Turns with calls of exactly the functions wanted.
    pub names: Ratio,
    /// The first of them.
    pub samples: Vec<Sample>,
}

/// One generation, for whoever looks at the run.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// The prompt's end.
    pub prompt: String,
    pub wanted: Value,
    pub got: String,
    pub right: bool,
}

impl Generations {
    /// Draws conversations that offer functions by the evaluation's seed, and one turn of each; `None` where there is
    /// nothing to ask. What the server would refuse is left out, and `note` is told once of how much that is.
    ///
    /// # Errors
    /// When the tokenizer allows no grammar, and [`TrainError::Stopped`].
    pub fn choose<'a>(
        dialogues: impl Iterator<Item = &'a Dialogue>,
        eval: &EvalSection,
        encoder: &Arc<Encoder>,
        note: impl Fn(&str),
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        let mut offering: Vec<_> = dialogues.filter(|dialogue| !dialogue.conversation.tools.is_empty()).collect();
        let wanted = eval.generate.unwrap_or(0);
        if wanted == 0 || offering.is_empty() {
            return Ok(None);
        }
        let count = offering.len() as u64;
        offering.shuffle(&mut random::stream(eval.seed, "generations", count));
        let asker = Asker::new(encoder.clone(), false)?;
        let (mut turns, mut refused) = (Vec::new(), Vec::new());
        for dialogue in offering {
            stop::check(stop)?;
            if turns.len() == wanted {
                break;
            }
            match Turn::of(dialogue, &asker, encoder) {
                Ok(turn) => turns.extend(turn),
                Err(error) => refused.push(error),
            }
        }
        if let Some(first) = refused.first() {
            let count = refused.len();
            note(&format!("held-out conversations not used for sample generations: {count}; the first: {first}"));
        }
        Ok((!turns.is_empty()).then_some(Self { asker, turns, max_tokens: eval.max_tokens }))
    }

    /// Has all turns answered by the present weights, each rank its share. The counts are those of all ranks, the samples those
    /// of this one.
    ///
    /// # Errors
    /// When the engine cannot run beside the training, and [`TrainError::Stopped`] when a rank was asked to stop before its share was
    /// answered.
    pub fn run(&self, trainable: &Trainable, ranks: &dyn Ranks, stop: &AtomicBool) -> Result<Generated> {
        let mut generated = stop::agreed(ranks, self.answer_share(trainable, ranks.place(), stop))?;
        generated.calls.sum(ranks);
        generated.names.sum(ranks);
        Ok(generated)
    }

    /// What one rank generates.
    fn answer_share(&self, trainable: &Trainable, place: Place, stop: &AtomicBool) -> Result<Generated> {
        let (decoder, adapter) = trainable.serving()?;
        let virtual_tokens = adapter.as_ref().map_or(0, |weights| weights.virtual_tokens());
        let adapter = adapter.map(|weights| answer::lease("in training".to_owned(), Path::new(""), weights));
        let limits = self.limits(&decoder, virtual_tokens);
        let engine = EngineHandle::start(decoder, limits).map_err(|error| unable(&error))?;
        let submit = |turn: &Turn| self.asker.submit(&engine, &turn.question, adapter.clone(), self.max_tokens);
        // All at once; those that do not fit together wait in the engine.
        let asked: Vec<_> = self.share(place).map(|turn| (turn, submit(turn))).collect();
        let mut generated = Generated::default();
        for (turn, events) in asked {
            generated.add(turn, events.and_then(|events| self.asker.written(&turn.question, events, stop)))?;
        }
        Ok(generated)
    }

    /// The turns that one rank asks for.
    fn share(&self, place: Place) -> impl Iterator<Item = &Turn> {
        let sizes: Vec<usize> = self.turns.iter().map(|turn| turn.question.prompt.len()).collect();
        place.share(&sizes).into_iter().map(|index| &self.turns[index])
    }

    /// Room for all turns, within bounds, but at least for the longest.
    fn limits(&self, decoder: &Decoder, virtual_tokens: usize) -> EngineOptions {
        let block = KvCache::block_bytes(decoder.config(), decoder.dtype());
        let tokens = |turn: &Turn| virtual_tokens + turn.question.prompt.len() + self.max_tokens;
        let bytes = |turn: &Turn| (tokens(turn) / kv_cache::BLOCK_SIZE + 1) * block;
        let (all, longest) =
            self.turns.iter().map(bytes).fold((0, 0), |(all, most), each| (all + each, each.max(most)));
        let limits = limits(all.min(KV_CACHE_BYTES).max(longest));
        EngineOptions { token_budget: TOKEN_BUDGET, max_queue: self.turns.len(), ..limits }
    }
}

impl Turn {
    /// The first turn of a dialogue that wants calls, else its first; `None` without an assistant message to learn from.
    fn of(dialogue: &Dialogue, asker: &Asker, encoder: &Encoder) -> Result<Option<Self>> {
        let messages = &dialogue.conversation.messages;
        let calling = dialogue.trained().find(|&index| !messages[index].tool_calls.is_empty());
        let Some(index) = calling.or_else(|| dialogue.trained().next()) else { return Ok(None) };
        let message = &messages[index];
        let mut head = dialogue.conversation.clone();
        head.messages.truncate(index);
        let question = asker.question(&head)?;
        let tail = encoder.tokenizer.decode_all(&question.prompt[question.prompt.len().saturating_sub(TAIL)..]);
        let calls = score::calls_of(message);
        let wanted = if calls.is_empty() { json!(message.content) } else { calls_json(&calls) };
        Ok(Some(Self { question, tail, calls, wanted }))
    }
}

impl Generated {
    /// Counts what was written for a turn. Weights that give no answer at all have given a wrong one.
    fn add(&mut self, turn: &Turn, written: Result<Written>) -> Result<()> {
        let (got, found) = match written {
            Ok(Written { text, calls, .. }) => (text, Some(calls)),
            Err(TrainError::Engine(error @ (EngineError::InvalidOutput(_) | EngineError::ContextExceeded { .. }))) => {
                (error.to_string(), None)
            }
            Err(TrainError::Engine(error)) => return Err(unable(&error)),
            Err(error) => return Err(error),
        };
        let right = found.as_ref().is_some_and(|found| score::same_calls(&turn.calls, found));
        self.calls.add(right);
        self.names.add(found.is_some_and(|found| score::same_functions(&turn.calls, &found)));
        if self.samples.len() < SHOWN {
            self.samples.push(Sample { prompt: turn.tail.clone(), wanted: turn.wanted.clone(), got, right });
        }
        Ok(())
    }
}

fn unable(error: &EngineError) -> TrainError {
    TrainError::field("eval.generate", format!("sample generations failed: {error}; 0 switches them off"))
}
