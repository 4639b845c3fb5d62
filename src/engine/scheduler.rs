//! Which sequences compute how many tokens in a step, and who gives way when the KV blocks run out.
//!
//! Pure bookkeeping: knows no tensors, no clock and no channel of commands. Invariants: a scheduled sequence holds blocks for
//! all of its tokens, and writes to none that others hold; `running` and then `waiting` are in order of arrival; the oldest
//! sequence never gives way, so every sequence ends.

use super::EngineError;
use super::blocks::BlockPool;
use super::pace::{Load, Pace};
use super::sequence::Sequence;
use std::collections::VecDeque;
use std::time::Duration;

/// What one step may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most sequences that run together.
    pub(super) max_batch: usize,
    /// Most tokens computed in one step.
    pub(super) token_budget: usize,
    /// Tokens that begin alike are computed once.
    pub(super) prefix_cache: bool,
}

/// All sequences of the engine.
pub(super) struct Scheduler {
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    pool: BlockPool,
    limits: Limits,
    pace: Pace,
    steps: u64,
    preemptions: u64,
    prefixes: PrefixStats,
}

/// Prompt tokens looked up in the prefix cache, and those found there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PrefixStats {
    pub(super) queries: u64,
    pub(super) hits: u64,
}

impl Scheduler {
    /// Limits of zero are taken as one: a step must be able to do something.
    pub(super) fn new(limits: Limits, pool: BlockPool) -> Self {
        let limits = Limits { max_batch: limits.max_batch.max(1), token_budget: limits.token_budget.max(1), ..limits };
        let (waiting, running, prefixes) = (VecDeque::new(), Vec::new(), PrefixStats::default());
        Self { waiting, running, pool, limits, pace: Pace::default(), steps: 0, preemptions: 0, prefixes }
    }

    /// Queues a sequence. It must fit into the pool alone.
    pub(super) fn push(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Plans a step: sets `scheduled` of the running sequences. Decoding ones come first, so that they never stall behind
    /// prompts; then prompts that have begun; then new ones in order of arrival. Beside answers, prompts come in small pieces.
    pub(super) fn schedule(&mut self) {
        self.steps += 1;
        let mut budget = self.limits.token_budget;
        let order = self.service_order();
        let (answers, prompts) = order.split_at(order.partition_point(|&index| !self.running[index].is_prefilling()));
        self.serve(answers, &mut budget);
        budget = budget.min(self.pace.prompt_tokens(self.load().answers));
        self.serve(prompts, &mut budget);
        while budget > 0 && self.admit_next() {
            self.grant(self.running.len() - 1, &mut budget);
        }
    }

    fn serve(&mut self, order: &[usize], budget: &mut usize) {
        for &index in order {
            // Sequences that gave way in the meantime are no longer there.
            if *budget > 0 && index < self.running.len() && self.make_room(index, budget) {
                self.grant(index, budget);
            }
        }
    }

    /// What the present step computes.
    pub(super) fn load(&self) -> Load {
        self.running.iter().fold(Load::default(), |mut load, sequence| {
            let tokens = if sequence.is_prefilling() { &mut load.prompts } else { &mut load.answers };
            *tokens += sequence.scheduled;
            load
        })
    }

    /// Learns from how long a step took.
    pub(super) fn observe(&mut self, load: Load, took: Duration) {
        self.pace.observe(load, took);
    }

    /// Decoding before prefilling, and each by who waits longest for its turn.
    fn service_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        order.sort_by_key(|&index| {
            let sequence = &self.running[index];
            // Prompts in order of arrival: finishing one is better than advancing all.
            let turn = if sequence.is_prefilling() { 0 } else { sequence.served };
            (sequence.is_prefilling(), turn)
        });
        order
    }

    /// Gets the blocks a running sequence needs, if need be from the youngest ones. `false` = it had to give way itself.
    fn make_room(&mut self, index: usize, budget: &mut usize) -> bool {
        while index < self.running.len() {
            let sequence = &mut self.running[index];
            let tokens = sequence.tokens().len();
            if self.pool.grow(&mut sequence.blocks, tokens) {
                return true;
            }
            *budget += self.preempt_youngest();
        }
        false
    }

    /// Sends the youngest running sequence back to the front of the queue; returns the tokens it had been granted.
    fn preempt_youngest(&mut self) -> usize {
        let Some(mut youngest) = self.running.pop() else { return 0 };
        let granted = youngest.scheduled;
        self.pool.release(&mut youngest.blocks);
        youngest.rewind();
        self.waiting.push_front(youngest);
        self.preemptions += 1;
        granted
    }

    fn grant(&mut self, index: usize, budget: &mut usize) {
        let sequence = &mut self.running[index];
        sequence.scheduled = sequence.pending().min(*budget);
        sequence.served = self.steps;
        *budget -= sequence.scheduled;
    }

    /// Moves the first waiting sequence to the running ones if there is a place and room for it.
    fn admit_next(&mut self) -> bool {
        if self.running.len() >= self.limits.max_batch {
            return false;
        }
        let Some(mut sequence) = self.waiting.pop_front() else { return false };
        if self.limits.prefix_cache {
            sequence.adopt_known(&mut self.pool);
        }
        let tokens = sequence.tokens().len();
        let missing = self.pool.needed(tokens).saturating_sub(sequence.blocks.len());
        // A block to spare for each of the others: else the newcomer would soon have to give way again.
        let fits = missing + self.running.len() <= self.pool.available();
        if !fits || !self.pool.grow(&mut sequence.blocks, tokens) {
            self.pool.release(&mut sequence.blocks);
            sequence.rewind();
            self.waiting.push_front(sequence);
            return false;
        }
        let (hits, queries) = sequence.start();
        self.prefixes.hits += hits as u64;
        self.prefixes.queries += queries as u64;
        self.running.push(sequence);
        true
    }

    /// Counts the step's tokens as computed.
    pub(super) fn settle(&mut self) {
        for sequence in &mut self.running {
            sequence.settle();
            if self.limits.prefix_cache {
                sequence.publish(&mut self.pool);
            }
        }
    }

    /// Takes out the sequences that are over, with their blocks freed.
    pub(super) fn reap(&mut self) -> Vec<Sequence> {
        let mut over: Vec<Sequence> = self.running.extract_if(.., |sequence| sequence.is_over()).collect();
        over.iter_mut().for_each(|sequence| self.pool.release(&mut sequence.blocks));
        if self.waiting.iter().any(Sequence::is_over) {
            let (gone, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(Sequence::is_over);
            over.extend(gone);
            self.waiting = rest.into();
        }
        over
    }

    /// After a failed step: the sequences in it fail, the other running ones begin anew, all blocks are free.
    pub(super) fn abandon_step(&mut self, error: &EngineError) {
        while let Some(mut sequence) = self.running.pop() {
            if sequence.scheduled > 0 {
                sequence.fail(error.clone());
            }
            sequence.blocks.clear();
            sequence.rewind();
            self.waiting.push_front(sequence);
        }
        self.pool.reset();
    }

    /// Fails every sequence.
    pub(super) fn fail_all(&mut self, error: &EngineError) {
        self.running.iter_mut().chain(&mut self.waiting).for_each(|sequence| sequence.fail(error.clone()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// In order of arrival; those with `scheduled > 0` take part in the step.
    pub(super) fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub(super) fn running_mut(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    pub(super) fn pool(&self) -> &BlockPool {
        &self.pool
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn prefixes(&self) -> PrefixStats {
        self.prefixes
    }

    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions
    }
}

#[cfg(test)]
mod tests;
