//! How well a model calls functions.
//!
//! While training: [`held_out`] conversations, teacher-forced ([`teacher`]) and answered ([`generate`]). For a finished model: a
//! [`Task`] ([`viggo`], [`bfcl`], [`calls`]) says which turns are asked for and judges what was written; an
//! [`answerer`](answerer::Answerer) (this process or a URL) writes it; [`kept`] keeps it, [`table`] and [`report`] show it. Asking
//! is greedy; judging is pure.

mod answer;
pub mod answerer;
pub mod bfcl;
pub mod calls;
pub mod generate;
pub mod held_out;
pub mod judged;
pub mod kept;
pub mod report;
pub mod score;
pub mod table;
pub mod teacher;
pub mod viggo;

use crate::error::Result;
use answerer::{Answerer, Case, Reply};
use callsmith::engine::EngineOptions;
use indicatif::{ProgressBar, ProgressStyle};
use judged::Judged;
use kept::Kept;
use score::Call;
use serde_json::{Value, json};

/// Turns that run together in this process.
const IN_FLIGHT: usize = 16;
const KV_CACHE_BYTES: usize = 512 << 20;

/// A kind of evaluation over one set of turns.
pub trait Task {
    /// What it is called, with its data.
    fn title(&self) -> String;

    /// What is asked.
    fn cases(&self) -> &[Case];

    /// What the replies, one a case in the same order, are worth.
    fn judge(&self, replies: &[Reply]) -> Judged;

    /// The adapter that ships with the program for this, by its name.
    fn shipped_adapter(&self) -> Option<&'static str> {
        None
    }
}

/// A model that is measured, by the name that it has in tables.
pub struct Contender {
    pub name: String,
    pub answerer: Box<dyn Answerer>,
}

/// What came of one contender.
pub struct Outcome {
    pub name: String,
    pub replies: Vec<Reply>,
    pub judged: Judged,
}

/// Has all cases answered, but those that are kept, and judges the replies. Shows its progress where standard error is a
/// terminal.
///
/// # Errors
/// As [`Answerer::answer`] and [`Kept`]; what was answered before is kept.
pub fn measure(task: &dyn Task, contender: &Contender, kept: &mut Kept) -> Result<Outcome> {
    let cases = task.cases();
    let mut open = Vec::new();
    for case in cases {
        if kept.get(case)?.is_none() {
            open.push(case);
        }
    }
    let bar = progress(&contender.name, cases.len(), cases.len() - open.len());
    contender.answerer.answer(&open, &mut |place, reply| {
        bar.inc(1);
        kept.put(open[place], reply)
    })?;
    bar.finish_and_clear();
    let reply = |case: &Case| Ok(kept.get(case)?.cloned().unwrap_or_default());
    let replies = cases.iter().map(reply).collect::<Result<Vec<_>>>()?;
    let judged = task.judge(&replies).with_refusals(&replies);
    Ok(Outcome { name: contender.name.clone(), judged, replies })
}

fn progress(name: &str, all: usize, done: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>20} {wide_bar} {pos}/{len} {elapsed} (left: {eta})");
    let bar = ProgressBar::new(all as u64).with_message(name.to_owned()).with_position(done as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Limits of an engine that answers a bounded set of turns.
fn limits(kv_cache_bytes: usize) -> EngineOptions {
    EngineOptions {
        max_batch: IN_FLIGHT,
        token_budget: 2048,
        kv_cache_bytes,
        max_queue: 2 * IN_FLIGHT,
        prefix_cache: true,
        // What is measured is the model, and not the machine.
        bounded_masks: false,
    }
}

/// Calls as a list of objects.
fn calls_json(calls: &[Call]) -> Value {
    calls.iter().map(|(name, arguments)| json!({"name": name, "arguments": arguments})).collect()
}
