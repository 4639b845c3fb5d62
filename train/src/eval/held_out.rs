//! What a run is measured on while it trains: held-out conversations, all of them teacher-forced and a few answered.
//!
//! Knows where they come from and what of the measurements decides which step is the best.

use super::generate::{Generated, Generations};
use super::teacher::{self, Teacher, TeacherReport};
use crate::data::Dialogue;
use crate::data::synth::{self, Split};
use crate::dataset::Example;
use crate::dataset::conversations::{Conversations, Corpus};
use crate::dataset::encode::{Encoder, Weights};
use crate::error::{Result, TrainError};
use crate::loss::Ratio;
use crate::ranks::Ranks;
use crate::recipe::{BestBy, EvalSection, Recipe};
use crate::stop;
use crate::trainable::Trainable;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Prepared held-out conversations.
pub struct HeldOut {
    teacher: Teacher,
    generations: Option<Generations>,
    best: BestBy,
}

/// A held-out conversation.
struct Held {
    dialogue: Dialogue,
    example: Example,
    /// The groups that each of its answers counts in.
    groups: Vec<Vec<String>>,
}

/// What one evaluation found.
pub struct HeldOutReport {
    teacher: TeacherReport,
    generated: Option<Generated>,
    best: BestBy,
}

impl HeldOut {
    /// Collects and encodes the set, out of the run's own files unless the recipe says otherwise; what is longer than the training
    /// limit is left out. `None` when the recipe holds nothing out. `note` is told of what is not used.
    ///
    /// # Errors
    /// Conversations that cannot be read or encoded, none to generate from where generations decide, and
    /// [`TrainError::Stopped`].
    pub fn prepare(
        recipe: &Recipe,
        corpus: &Corpus,
        encoder: &Arc<Encoder>,
        note: impl Fn(&str),
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        let Some(eval) = &recipe.eval else { return Ok(None) };
        let mut held = if eval.synth { generated(eval, encoder, stop)? } else { filed(eval, corpus, encoder, stop)? };
        held.retain(|held| held.example.tokens.len() <= recipe.batch.max_len);
        let dialogues = held.iter().map(|held| &held.dialogue);
        let generations = Generations::choose(dialogues, eval, encoder, note, stop)?;
        if generations.is_none() && eval.best == BestBy::CallAccuracy {
            let message =
                "\"call_accuracy\" needs held-out conversations that offer functions; hold more out, or use \"loss\"";
            return Err(TrainError::field("eval.best", message));
        }
        if held.is_empty() {
            return Ok(None);
        }
        let examples = held.into_iter().map(|held| (held.example, held.groups));
        let teacher = Teacher::new(examples, recipe.batch.micro_tokens.unwrap_or(recipe.batch.tokens));
        Ok(Some(Self { teacher, generations, best: eval.best }))
    }

    /// Measures the current weights, each rank its share; all get the same numbers.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] when any rank is asked to stop meanwhile: there is no half measurement.
    pub fn run(&self, trainable: &Trainable, ranks: &dyn Ranks, stop: &AtomicBool) -> Result<HeldOutReport> {
        let teacher = self.teacher.run(trainable, ranks, stop)?;
        let generations = self.generations.as_ref();
        let generated = generations.map(|generations| generations.run(trainable, ranks, stop)).transpose()?;
        Ok(HeldOutReport { teacher, generated, best: self.best })
    }
}

fn generated(eval: &EvalSection, encoder: &Encoder, stop: &AtomicBool) -> Result<Vec<Held>> {
    let mut samples = synth::eval_set(Split::HeldOut, eval.samples, eval.seed, None);
    samples.extend(synth::eval_parallel(Split::HeldOut, eval.samples / 5, eval.seed));
    let held = |sample: synth::Sample| {
        stop::check(stop)?;
        let example = encoder.example(&sample.conversation, Weights::default())?;
        Ok(Held { groups: teacher::sample_groups(&sample)?, dialogue: sample.conversation.into(), example })
    };
    samples.into_iter().map(held).collect()
}

fn filed(eval: &EvalSection, corpus: &Corpus, encoder: &Encoder, stop: &AtomicBool) -> Result<Vec<Held>> {
    let found = match &eval.data {
        Some(path) => Conversations::open(path)?,
        None => corpus.held_out(),
    };
    let held = |place: usize| {
        stop::check(stop)?;
        let dialogue = found.get(place).clone();
        let example = encoder.dialogue(&dialogue, Weights::default()).map_err(|e| found.error(place, &e))?;
        Ok(Held { groups: teacher::message_groups(&dialogue), dialogue, example })
    };
    (0..found.len().min(eval.samples)).map(held).collect()
}

impl HeldOutReport {
    /// Mean cross entropy of the answers' tokens.
    pub fn loss(&self) -> f64 {
        self.teacher.loss()
    }

    /// Share of the generations that are wrong, where the recipe has them decide.
    pub fn wrong(&self) -> Option<f64> {
        let share = self.generated.as_ref()?.calls.share()?;
        (self.best == BestBy::CallAccuracy).then_some(1.0 - share)
    }

    /// What the log keeps of it: numbers under `held_out`, and `samples`.
    pub fn to_json(&self) -> Value {
        let mut numbers = self.teacher.to_json();
        let Some(Generated { calls, names, samples }) = &self.generated else { return json!({"held_out": numbers}) };
        numbers["call_accuracy"] = json!(calls.share());
        numbers["call_name_accuracy"] = json!(names.share());
        json!({"held_out": numbers, "samples": samples})
    }
}

impl fmt::Display for HeldOutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.teacher)?;
        let Some(Generated { calls: Ratio { right, total }, names, samples }) = &self.generated else { return Ok(()) };
        write!(f, ", calls {right} of {total} right (names {})", names.right)?;
        match samples.iter().find(|sample| !sample.right) {
            Some(wrong) => write!(f, "\n  wanted {}\n  got    {}", brief(&wrong.wanted.to_string()), brief(&wrong.got)),
            None => Ok(()),
        }
    }
}

/// The beginning of a text, on one line.
fn brief(text: &str) -> String {
    const MOST: usize = 160;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() { line + "…" } else { line }
}
