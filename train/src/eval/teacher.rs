//! Cheap evaluation while training: one forward pass over held-out dialogues with the true history before each token.
//!
//! An answer whose tokens are all the most likely ones is what free greedy decoding would write, so `exact` here is a
//! lower bound of what the grammar-constrained evaluation reports.

use super::score::{Class, Turn};
use crate::collate::{self, MicroBatch, pack};
use crate::data::Dialogue;
use crate::data::synth::Sample;
use crate::dataset::Example;
use crate::error::Result;
use crate::loss::{self, Ratio, Tally};
use crate::ranks::{Place, Ranks};
use crate::stop;
use crate::trainable::Trainable;
use callsmith::chat::{Message, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;

/// Dialogues, packed.
pub struct Teacher {
    micros: Vec<MicroBatch>,
    /// The groups of each answer, in the order of the micro-batches.
    groups: Vec<Vec<String>>,
}

/// What one pass found.
pub struct TeacherReport {
    tally: Tally,
    exact: BTreeMap<String, Ratio>,
}

impl Teacher {
    /// Packs dialogues, each with the groups of its answers, into passes of at most `limit` tokens.
    pub fn new(dialogues: impl Iterator<Item = (Example, Vec<Vec<String>>)>, limit: usize) -> Self {
        let (examples, groups): (Vec<_>, Vec<_>) = dialogues.unzip();
        Self { micros: pack(examples, limit), groups: groups.into_iter().flatten().collect() }
    }

    /// Measures the current weights, each rank its share; all get the same report.
    ///
    /// # Errors
    /// [`TrainError::Stopped`](crate::TrainError::Stopped) when a rank was asked to stop before it had done its share.
    pub fn run(&self, trainable: &Trainable, ranks: &dyn Ranks, stop: &AtomicBool) -> Result<TeacherReport> {
        let mut report = stop::agreed(ranks, self.share(trainable, ranks.place(), stop))?;
        report.tally.sum(ranks);
        report.exact.values_mut().for_each(|ratio| ratio.sum(ranks));
        Ok(report)
    }

    /// What one rank measures.
    fn share(&self, trainable: &Trainable, place: Place, stop: &AtomicBool) -> Result<TeacherReport> {
        let exact = self.groups.iter().flatten().map(|group| (group.clone(), Ratio::default())).collect();
        let mut report = TeacherReport { tally: Tally::default(), exact };
        for (index, micro) in collate::share(&self.micros, place) {
            stop::check(stop)?;
            let before: u32 = self.micros[..index].iter().map(|micro| micro.answers).sum();
            let groups = &self.groups[before as usize..];
            let found = loss::evaluate(&trainable.decoder, &trainable.adapters(micro.tokens.len()), micro)?;
            report.tally.merge(&found.tally);
            for (exact, groups) in found.exact.into_iter().zip(groups) {
                groups.iter().for_each(|group| report.exact.entry(group.clone()).or_default().add(exact));
            }
        }
        Ok(report)
    }
}

/// The groups of each assistant message that is trained on, of a dialogue from a file, in order.
pub(super) fn message_groups(dialogue: &Dialogue) -> Vec<Vec<String>> {
    let trained = dialogue.trained().map(|index| &dialogue.conversation.messages[index]);
    let group = |message: &Message| if message.tool_calls.is_empty() { "answers in words" } else { "calls" };
    trained.map(|message| vec![group(message).to_owned()]).collect()
}

/// The groups of each assistant message of a generated sample, in order.
pub(super) fn sample_groups(sample: &Sample) -> Result<Vec<Vec<String>>> {
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
    let naming = turn.detail.iter().filter(|_| turn.class == Class::Single).map(|detail| detail.naming.clone());
    [turn.class.name().to_owned()].into_iter().chain(naming).collect()
}

impl TeacherReport {
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

impl fmt::Display for TeacherReport {
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
