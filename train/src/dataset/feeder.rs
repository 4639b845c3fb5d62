//! Steps of data: draws samples from the phases' mixtures in a fixed order and packs them, on a thread of its own.
//!
//! What step n holds depends on the recipe and the cursor before it alone: not on threads, speed or interruptions.

use super::Example;
use super::source::Mixture;
use crate::collate::{self, MicroBatch};
use crate::error::{Result, TrainError};
use crate::random;
use crate::recipe::{BatchSection, Recipe};
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{Receiver, sync_channel};

/// Steps that are prepared ahead.
const AHEAD: usize = 4;
/// Samples in a row that may be too long before the run is refused.
const MAX_DROPPED: u64 = 1000;

/// What has been read so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Index of the phase that the counts belong to.
    pub phase: usize,
    /// Samples drawn in the phase.
    pub drawn: u64,
    /// Of these, from each source.
    pub per_source: Vec<u64>,
}

/// The data of one optimizer step.
pub struct StepBatch {
    pub step: u64,
    pub phase: usize,
    pub micros: Vec<MicroBatch>,
    /// Samples that were too long.
    pub dropped: u64,
    /// Where the next step continues.
    pub cursor: Cursor,
}

impl StepBatch {
    /// Tokens of all samples.
    pub fn tokens(&self) -> usize {
        self.micros.iter().map(|micro| micro.tokens.len()).sum()
    }

    /// Sum of all loss weights.
    pub fn weight(&self) -> f64 {
        self.micros.iter().flat_map(|micro| &micro.labels).map(|label| f64::from(label.weight)).sum()
    }
}

/// Draws and packs the samples of each step.
pub struct Feeder {
    phases: Vec<Mixture>,
    batch: BatchSection,
    seed: u64,
    step: u64,
    cursor: Cursor,
    pool: rayon::ThreadPool,
    /// Samples that the last step took: how many to prepare at once.
    expected: usize,
}

/// One draw: which source, and which of its samples.
struct Ticket {
    source: usize,
    index: u64,
}

impl Feeder {
    /// A feeder that continues at `step` with `cursor` (0 and the default at the start).
    pub fn new(recipe: &Recipe, phases: Vec<Mixture>, step: u64, cursor: Cursor) -> Result<Self> {
        let batch = recipe.batch.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(batch.workers)
            .thread_name(|n| format!("data-{n}"))
            .build()
            .map_err(|e| TrainError::field("batch.workers", e.to_string()))?;
        Ok(Self { phases, batch, seed: recipe.seed, step, cursor, pool, expected: 1 })
    }

    /// The next step's data; `None` after the last step.
    pub fn next_step(&mut self) -> Result<Option<StepBatch>> {
        let Some((phase, progress)) = self.place() else { return Ok(None) };
        if self.cursor.phase != phase || self.cursor.per_source.len() != self.phases[phase].sources.len() {
            self.cursor = Cursor { phase, drawn: 0, per_source: vec![0; self.phases[phase].sources.len()] };
        }
        let (examples, dropped) = self.fill(progress)?;
        self.expected = examples.len();
        let micros = collate::pack(examples, self.batch.micro_tokens.unwrap_or(self.batch.tokens));
        let batch = StepBatch { step: self.step, phase, micros, dropped, cursor: self.cursor.clone() };
        self.step += 1;
        Ok(Some(batch))
    }

    /// The phase of the current step and how far it has gone (0..1).
    fn place(&self) -> Option<(usize, f64)> {
        let mut start = 0;
        for (index, phase) in self.phases.iter().enumerate() {
            if self.step < start + phase.steps {
                return Some((index, (self.step - start) as f64 / phase.steps as f64));
            }
            start += phase.steps;
        }
        None
    }

    /// Takes samples until the next one does not fit; that one is drawn again by the next step.
    fn fill(&mut self, progress: f64) -> Result<(Vec<Example>, u64)> {
        let (mut taken, mut tokens, mut dropped) = (Vec::new(), 0, 0);
        let mut count = self.expected;
        loop {
            count = count.min(self.left());
            if count == 0 {
                return Ok((taken, dropped));
            }
            for (ticket, example) in self.prepare(count, progress) {
                let example = example?;
                let length = example.tokens.len();
                if length > self.batch.max_len {
                    dropped += 1;
                    self.check_dropped(dropped, taken.len())?;
                } else if tokens + length > self.batch.tokens {
                    return Ok((taken, dropped));
                } else {
                    tokens += length;
                    taken.push(example);
                }
                self.cursor.drawn += 1;
                self.cursor.per_source[ticket.source] += 1;
            }
            count = self.batch.workers;
        }
    }

    /// Samples until the end of a phase that is measured in them.
    fn left(&self) -> usize {
        let samples = self.phases[self.cursor.phase].samples;
        samples.map_or(usize::MAX, |samples| (samples - self.cursor.drawn) as usize)
    }

    fn check_dropped(&self, dropped: u64, taken: usize) -> Result<()> {
        if taken > 0 || dropped < MAX_DROPPED {
            return Ok(());
        }
        let message = format!("{dropped} samples in a row are longer than {} tokens; raise it", self.batch.max_len);
        Err(TrainError::field("batch.max_len", message))
    }

    /// The next `count` samples, made in parallel, in order.
    fn prepare(&self, count: usize, progress: f64) -> Vec<(Ticket, Result<Example>)> {
        let sources = &self.phases[self.cursor.phase].sources;
        let make = |ticket: Ticket| {
            let example = sources[ticket.source].1.sample(ticket.index, progress);
            (ticket, example)
        };
        let tickets = self.tickets(count);
        self.pool.install(|| tickets.into_par_iter().map(make).collect())
    }

    fn tickets(&self, count: usize) -> Vec<Ticket> {
        let mut next = self.cursor.per_source.clone();
        let ticket = |offset| {
            let source = self.choose(self.cursor.drawn + offset as u64);
            let index = next[source];
            next[source] += 1;
            Ticket { source, index }
        };
        (0..count).map(ticket).collect()
    }

    /// The source of the phase's n-th sample.
    fn choose(&self, n: u64) -> usize {
        let sources = &self.phases[self.cursor.phase].sources;
        let total: f64 = sources.iter().map(|(weight, _)| weight).sum();
        let mut left =
            random::stream(self.seed, "mixture", ((self.cursor.phase as u64) << 48) + n).random::<f64>() * total;
        let chosen = sources.iter().position(|(weight, _)| {
            left -= weight;
            left < 0.0
        });
        chosen.unwrap_or(sources.len() - 1)
    }

    /// Prepares steps ahead on a thread of its own, until the receiver is dropped or the phases end.
    pub fn spawn(mut self) -> Receiver<Result<StepBatch>> {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            while let Some(next) = self.next_step().transpose() {
                let failed = next.is_err();
                if sender.send(next).is_err() || failed {
                    break;
                }
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests;
