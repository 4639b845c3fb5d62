//! What the engine's handles and its thread share: places, switches, gauges and counters. Knows no sequence.

use super::runner::Shape;
use super::{EngineError, EngineOptions, EngineStats};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;
use tokio::sync::Notify;

/// The state around one engine thread.
pub(super) struct Shared {
    pub(super) shape: Shape,
    pub(super) counters: Counters,
    pub(super) bounded_masks: bool,
    max_batch: usize,
    max_queue: usize,
    born: Instant,
    heartbeat_ms: AtomicU64,
    alive: AtomicBool,
    draining: AtomicBool,
    /// Requests in the engine, waiting or running.
    live: AtomicUsize,
    emptied: Notify,
    died: Notify,
    entropy: RandomState,
    seeds_drawn: AtomicU64,
}

/// What the engine thread publishes.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) running: AtomicUsize,
    pub(super) blocks_used: AtomicUsize,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) forced_tokens: AtomicU64,
    pub(super) masks: AtomicU64,
    pub(super) mask_ns: AtomicU64,
    pub(super) preemptions: AtomicU64,
    pub(super) prefix_queries: AtomicU64,
    pub(super) prefix_hits: AtomicU64,
    pub(super) steps: AtomicU64,
}

impl Shared {
    pub(super) fn new(shape: Shape, options: &EngineOptions) -> Self {
        Self {
            shape,
            counters: Counters::default(),
            bounded_masks: options.bounded_masks,
            max_batch: options.max_batch,
            max_queue: options.max_queue,
            born: Instant::now(),
            heartbeat_ms: AtomicU64::new(0),
            alive: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            emptied: Notify::new(),
            died: Notify::new(),
            entropy: RandomState::new(),
            seeds_drawn: AtomicU64::new(0),
        }
    }

    /// The engine thread shows life.
    pub(super) fn beat(&self) {
        self.heartbeat_ms.store(self.now_ms(), Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    /// A seed that no one can foresee.
    pub(super) fn fresh_seed(&self) -> u64 {
        self.entropy.hash_one(self.seeds_drawn.fetch_add(1, Relaxed))
    }

    pub(super) fn mark_dead(&self) {
        self.alive.store(false, SeqCst);
        self.died.notify_waiters();
    }

    /// Returns when the engine thread has ended.
    pub(super) async fn until_dead(&self) {
        loop {
            let died = self.died.notified();
            tokio::pin!(died);
            // Registered before the look: a death between the two is not missed.
            died.as_mut().enable();
            if !self.is_alive() {
                return;
            }
            died.await;
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(SeqCst)
    }

    pub(super) fn refuse_new(&self) {
        self.draining.store(true, SeqCst);
    }

    fn check_open(&self) -> Result<(), EngineError> {
        match (self.is_alive(), self.draining.load(SeqCst)) {
            (false, _) => Err(EngineError::Internal("the engine has stopped".to_owned())),
            (true, true) => Err(EngineError::ShuttingDown),
            (true, false) => Ok(()),
        }
    }

    /// Returns when no request is in the engine.
    pub(super) async fn until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.live.load(SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn stats(&self) -> EngineStats {
        let counters = &self.counters;
        let running = counters.running.load(Relaxed);
        EngineStats {
            alive: self.is_alive(),
            running,
            waiting: self.live.load(SeqCst).saturating_sub(running),
            blocks_used: counters.blocks_used.load(Relaxed),
            blocks_total: self.shape.blocks,
            prompt_tokens: counters.prompt_tokens.load(Relaxed),
            generated_tokens: counters.generated_tokens.load(Relaxed),
            forced_tokens: counters.forced_tokens.load(Relaxed),
            masks: counters.masks.load(Relaxed),
            mask_ns: counters.mask_ns.load(Relaxed),
            preemptions: counters.preemptions.load(Relaxed),
            prefix_queries: counters.prefix_queries.load(Relaxed),
            prefix_hits: counters.prefix_hits.load(Relaxed),
            steps: counters.steps.load(Relaxed),
            heartbeat_age_ms: self.now_ms().saturating_sub(self.heartbeat_ms.load(Relaxed)),
        }
    }
}

/// A request's place in the engine, given back on drop.
pub(super) struct Slot(Arc<Shared>);

impl Slot {
    /// Takes a place if the engine takes requests and has room for one more.
    pub(super) fn take(shared: &Arc<Shared>) -> Result<Self, EngineError> {
        shared.check_open()?;
        let room = shared.max_batch.saturating_add(shared.max_queue);
        let counted = shared.live.fetch_update(SeqCst, SeqCst, |live| (live < room).then_some(live + 1));
        counted.map_err(|_| EngineError::Overloaded { limit: shared.max_queue })?;
        let slot = Self(Arc::clone(shared));
        // Once more after counting: a drain that saw no request may not be followed by one.
        shared.check_open()?;
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, SeqCst) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}
