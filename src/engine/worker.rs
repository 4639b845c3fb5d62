//! The engine thread: takes commands, steps all running sequences together, and survives a failing step.
//!
//! It alone touches the runner. Knows nothing of how tokens are chosen (`sequence`) or planned (`scheduler`).

use super::batch::Batch;
use super::blocks::BlockPool;
use super::runner::Runner;
use super::scheduler::{Limits, PrefixStats, Scheduler};
use super::sequence::{Progress, Sequence};
use super::shared::Shared;
use super::{EngineError, EngineOptions};
use crate::priority;
use rayon::prelude::*;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Grammars may recurse deeply while they compute masks.
pub(super) const STACK_BYTES: usize = 64 << 20;
/// An idle engine shows life this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// This many failed steps within [`FAILURE_WINDOW`] stop the engine.
const MAX_FAILURES: usize = 4;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// What a handle tells the thread.
pub(super) enum Command {
    Submit(Box<Sequence>),
    /// Fail every request: the time to drain is over.
    Abort,
}

/// The state of the engine thread.
pub(super) struct Worker {
    runner: Box<dyn Runner>,
    scheduler: Scheduler,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    samplers: rayon::ThreadPool,
    /// Of the last step; kept for its memory.
    logits: Vec<f32>,
    failures: VecDeque<Instant>,
}

type Outcome = Result<Progress, EngineError>;

impl Worker {
    pub(super) fn new(
        runner: Box<dyn Runner>,
        options: &EngineOptions,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Result<Self, EngineError> {
        let samplers = rayon::ThreadPoolBuilder::new()
            .num_threads(priority::processors().min(options.max_batch.max(1)))
            .thread_name(|index| format!("sampler-{index}"))
            .stack_size(STACK_BYTES)
            .build()
            .map_err(|error| EngineError::Internal(format!("cannot start the sampling threads: {error}")))?;
        let EngineOptions { max_batch, token_budget, prefix_cache, .. } = *options;
        let limits = Limits { max_batch, token_budget, prefix_cache };
        let scheduler = Scheduler::new(limits, BlockPool::new(shared.shape.blocks, shared.shape.block_size));
        Ok(Self { runner, scheduler, commands, shared, samplers, logits: Vec::new(), failures: VecDeque::new() })
    }

    /// Works until every handle and every sequence is gone, or too many steps have failed.
    pub(super) fn run(mut self) {
        while self.take_commands() && self.turn() {}
    }

    /// Waits for a command if there is nothing to do. `false` = there never will be.
    fn take_commands(&mut self) -> bool {
        self.shared.beat();
        if self.scheduler.is_empty() {
            match self.commands.recv_timeout(HEARTBEAT) {
                Ok(command) => self.execute(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            self.execute(command);
        }
        true
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Submit(mut sequence) => {
                self.shared.counters.prompt_tokens.fetch_add(sequence.prompt_len() as u64, Relaxed);
                let outcome = guarded(|| sequence.begin());
                deliver(&self.shared, &mut sequence, outcome);
                self.scheduler.push(*sequence);
            }
            Command::Abort => self.scheduler.fail_all(&EngineError::ShuttingDown),
        }
    }

    /// One step and what follows from it. `false` = the engine gives up.
    fn turn(&mut self) -> bool {
        self.clear();
        if self.scheduler.is_empty() {
            return true;
        }
        #[cfg(feature = "failpoints")]
        fail::fail_point!("engine_turn", |_| false);
        let result = catch_unwind(AssertUnwindSafe(|| self.step()))
            .unwrap_or_else(|panic| Err(EngineError::Internal(format!("panic: {}", panic_text(&*panic)))));
        let healthy = result.map_or_else(|error| self.recover(&error), |()| true);
        self.clear();
        healthy
    }

    fn step(&mut self) -> Result<(), EngineError> {
        self.scheduler.schedule();
        let (load, started) = (self.scheduler.load(), Instant::now());
        self.prepare();
        self.shared.counters.running.store(self.scheduler.running().len(), Relaxed);
        let (batch, readers) = Batch::build(self.scheduler.running());
        #[cfg(feature = "failpoints")]
        fail::fail_point!("engine_step", |_| Err(EngineError::Internal("failpoint".to_owned())));
        let beat = || self.shared.beat();
        let outcome = self.runner.forward(&batch, &beat, &mut self.logits);
        outcome.map_err(|error| EngineError::Internal(error.to_string()))?;
        let (found, expected) = (self.logits.len(), readers.len() * self.shared.shape.vocab_size);
        if found != expected {
            return Err(EngineError::Internal(format!("the model gave {found} logits, not {expected}")));
        }
        let outcomes = self.choose(&readers);
        self.scheduler.observe(load, started.elapsed());
        self.scheduler.settle();
        for (index, outcome) in outcomes {
            let sequence = &mut self.scheduler.running_mut()[index];
            deliver(&self.shared, sequence, outcome);
        }
        Ok(())
    }

    /// Finds out what may come next where logits are wanted, side by side: the forward pass computes no others.
    fn prepare(&mut self) {
        let wanting = |sequence: &&mut Sequence| sequence.wants_logits() && sequence.is_guided();
        let work: Vec<_> = self.scheduler.running_mut().iter_mut().filter(wanting).collect();
        side_by_side(&self.samplers, work, |sequence| {
            if let Err(error) = guarded(|| sequence.prepare()) {
                sequence.fail(error);
            }
        });
    }

    /// Advances the sequences that have logits, side by side; a failure stays with its sequence.
    fn choose(&mut self, readers: &[usize]) -> Vec<(usize, Outcome)> {
        let running = self.scheduler.running_mut();
        let mut rows: Vec<Option<&mut [f32]>> = running.iter().map(|_| None).collect();
        for (&reader, row) in readers.iter().zip(self.logits.chunks_exact_mut(self.shared.shape.vocab_size)) {
            rows[reader] = Some(row);
        }
        let seats = running.iter_mut().enumerate().zip(rows).filter(|((_, sequence), _)| !sequence.is_over());
        let work: Vec<_> = seats.filter_map(|((index, sequence), row)| Some((index, sequence, row?))).collect();
        side_by_side(&self.samplers, work, |(index, sequence, row)| (index, guarded(|| sequence.advance(row))))
    }

    /// Fails the batch of a failed step and makes the rest ready to begin anew. `false` = it happens too often.
    fn recover(&mut self, error: &EngineError) -> bool {
        tracing::error!(%error, "an engine step failed");
        self.scheduler.abandon_step(error);
        let now = Instant::now();
        self.failures.push_back(now);
        self.failures.retain(|failure| now.duration_since(*failure) < FAILURE_WINDOW);
        let reset = catch_unwind(AssertUnwindSafe(|| self.runner.reset()));
        let healthy = matches!(reset, Ok(Ok(()))) && self.failures.len() < MAX_FAILURES;
        if !healthy {
            tracing::error!(failures = self.failures.len(), "the engine stops");
            self.shared.mark_dead();
            self.scheduler.fail_all(error);
        }
        healthy
    }

    /// Lets go of the sequences that are over. The gauges move first, so that a last event is never ahead of them.
    fn clear(&mut self) {
        let over = self.scheduler.reap();
        let counters = &self.shared.counters;
        counters.running.store(self.scheduler.running().len(), Relaxed);
        counters.blocks_used.store(self.scheduler.pool().used(), Relaxed);
        counters.preemptions.store(self.scheduler.preemptions(), Relaxed);
        let PrefixStats { queries, hits } = self.scheduler.prefixes();
        counters.prefix_queries.store(queries, Relaxed);
        counters.prefix_hits.store(hits, Relaxed);
        counters.steps.store(self.scheduler.steps(), Relaxed);
        drop(over);
    }
}

impl Drop for Worker {
    /// Whatever ends the thread, nobody may go on hoping. The sequences' own drops tell their requesters.
    fn drop(&mut self) {
        self.shared.mark_dead();
    }
}

/// Works on several things at a time. One is not worth a trip to another thread.
fn side_by_side<T: Send, U: Send>(
    pool: &rayon::ThreadPool,
    work: Vec<T>,
    each: impl Fn(T) -> U + Sync + Send,
) -> Vec<U> {
    match work.len() {
        0 | 1 => work.into_iter().map(each).collect(),
        _ => pool.install(|| work.into_par_iter().map(each).collect()),
    }
}

/// Sends an outcome and counts its tokens.
fn deliver(shared: &Shared, sequence: &mut Sequence, outcome: Outcome) {
    if let Ok(progress) = &outcome {
        let forced = progress.tokens.iter().filter(|token| token.forced).count();
        shared.counters.generated_tokens.fetch_add(progress.tokens.len() as u64, Relaxed);
        shared.counters.forced_tokens.fetch_add(forced as u64, Relaxed);
        if let Some(took) = progress.masked {
            shared.counters.masks.fetch_add(1, Relaxed);
            shared.counters.mask_ns.fetch_add(took.as_nanos() as u64, Relaxed);
        }
    }
    sequence.deliver(outcome);
}

/// A panic of one sequence's grammar or sampler is that sequence's failure.
fn guarded<T>(advance: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    let fallible = || {
        #[cfg(feature = "failpoints")]
        fail::fail_point!("sequence_advance");
        advance()
    };
    catch_unwind(AssertUnwindSafe(fallible))
        .unwrap_or_else(|panic| Err(EngineError::InvalidOutput(format!("panic: {}", panic_text(&*panic)))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
