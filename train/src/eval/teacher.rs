//! Cheap evaluation while training: one forward pass over held-out dialogues with the true history before each token.
//!
//! An answer whose tokens are all the most likely ones is what free greedy decoding would write, so `exact` here is a
//! lower bound of what the grammar-constrained evaluation reports.

use super::score::{Class, Turn};
use crate::collate::{self, MicroBatch, pack};
use crate::data::synth::{self, Sample, Split};
use crate::dataset::Example;
use crate::dataset::conversations::Conversations;
use crate::dataset::encode::{Encoder, Weights};
use crate::error::Result;
use crate::loss::{self, Ratio, Tally};
use crate::ranks::Ranks;
use crate::recipe::{BatchSection, EvalSection, Recipe};
use crate::trainable::Trainable;
use callsmith::chat::{Message, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Prepared held-out dialogues.
pub struct HeldOut {
    micros: Vec<MicroBatch>,
    /// The groups of each answer, in the order of the micro-batches.
    groups: Vec<Vec<String>>,
}

/// What one pass found.
pub struct HeldOutReport {
    tally: Tally,
    exact: BTreeMap<String, Ratio>,
}

impl HeldOut {
    /// Collects and encodes the set; what is longer than the training limit is left out. `None` when the recipe holds
    /// nothing out.
    pub fn prepare(recipe: &Recipe, encoder: &Encoder) -> Result<Option<Self>> {
        let Some(eval) = &recipe.eval else { return Ok(None) };
        let (mut set, batch) = (Self { micros: Vec::new(), groups: Vec::new() }, &recipe.batch);
        let examples = match eval.synth {
            true => set.generated(eval, batch, encoder)?,
            false => set.filed(recipe, eval, encoder)?,
        };
        set.micros = pack(examples, batch.micro_tokens.unwrap_or(batch.tokens));
        Ok((!set.micros.is_empty()).then_some(set))
    }

    fn generated(&mut self, eval: &EvalSection, batch: &BatchSection, encoder: &Encoder) -> Result<Vec<Example>> {
        let mut samples = synth::eval_set(Split::HeldOut, eval.samples, eval.seed, None);
        samples.extend(synth::eval_parallel(Split::HeldOut, eval.samples / 5, eval.seed));
        let mut examples = Vec::new();
        for sample in samples {
            let example = encoder.example(&sample.conversation, Weights::default())?;
            if example.tokens.len() <= batch.max_len {
                examples.push(example);
                self.groups.extend(answer_groups(&sample)?);
            }
        }
        Ok(examples)
    }

    fn filed(&mut self, recipe: &Recipe, eval: &EvalSection, encoder: &Encoder) -> Result<Vec<Example>> {
        let held = match &eval.data {
            Some(path) => Conversations::open(std::slice::from_ref(path))?,
            None => Conversations::open(&recipe.files())?.split(eval.held_out(), eval.seed).1,
        };
        let mut examples = Vec::new();
        for place in 0..held.len().min(eval.samples) {
            let conversation = held.get(place);
            let example = encoder.example(conversation, Weights::default()).map_err(|e| held.error(place, &e))?;
            if example.tokens.len() <= recipe.batch.max_len {
                examples.push(example);
                let assistant = conversation.messages.iter().filter(|message| message.role == Role::Assistant);
                let group =
                    |message: &Message| if message.tool_calls.is_empty() { "answers in words" } else { "calls" };
                self.groups.extend(assistant.map(|message| vec![group(message).to_owned()]));
            }
        }
        Ok(examples)
    }

    /// Measures the current weights, each rank its share; all get the same report.
    pub fn run(&self, trainable: &Trainable, ranks: &dyn Ranks) -> Result<HeldOutReport> {
        let exact = self.groups.iter().flatten().map(|group| (group.clone(), Ratio::default())).collect();
        let mut report = HeldOutReport { tally: Tally::default(), exact };
        for (index, micro) in collate::share(&self.micros, ranks.place()) {
            let before: u32 = self.micros[..index].iter().map(|micro| micro.answers).sum();
            let groups = &self.groups[before as usize..];
            let found = loss::evaluate(&trainable.decoder, &trainable.adapters(micro.tokens.len()), micro)?;
            report.tally.merge(&found.tally);
            for (exact, groups) in found.exact.into_iter().zip(groups) {
                groups.iter().for_each(|group| report.exact.entry(group.clone()).or_default().add(exact));
            }
        }
        report.tally.sum(ranks);
        report.exact.values_mut().for_each(|ratio| ratio.sum(ranks));
        Ok(report)
    }
}

/// The groups of each assistant message of a sample, in order.
fn answer_groups(sample: &Sample) -> Result<Vec<Vec<String>>> {
    let messages = sample.conversation.messages.iter().enumerate();
    let assistant = messages.filter(|(_, message)| message.role == Role::Assistant);
    assistant
        .map(|(index, _)| match sample.turns.iter().find(|turn| turn.assistant_message == index) {
            Some(info) => Ok(groups(&Turn::of(sample, info)?)),
            None => Ok(vec!["results in words".to_owned()]),
        })
        .collect()
}

fn groups(turn: &Turn) -> Vec<String> {
    let mut groups = vec![turn.class.name().to_owned()];
    if turn.class == Class::Single {
        groups.push(turn.naming.clone());
    }
    groups
}

impl HeldOutReport {
    /// Mean cross entropy of the answers' tokens.
    pub fn loss(&self) -> f64 {
        self.tally.mean()
    }

    /// The same numbers for programs.
    pub fn to_json(&self) -> Value {
        let exact: BTreeMap<_, _> = self.exact.iter().map(|(group, ratio)| (group, ratio.share())).collect();
        json!({
            "loss": self.tally.mean(), "name_accuracy": self.tally.names.share(),
            "value_accuracy": self.tally.values.share(), "token_accuracy": self.tally.answers.share(), "exact": exact,
        })
    }
}

impl fmt::Display for HeldOutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: Ratio| ratio.share().map_or("-".into(), |share| format!("{:.1}%", share * 100.0));
        write!(
            f,
            "loss {:.4}, name {}, value {}",
            self.tally.mean(),
            percent(self.tally.names),
            percent(self.tally.values)
        )?;
        self.exact.iter().try_for_each(|(group, ratio)| write!(f, ", {group} {}", percent(*ratio)))
    }
}
