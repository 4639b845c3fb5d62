//! The seam to the rest: requests in, token events out, through a handle to the engine thread.

use super::cpu_runner::CpuRunner;
use super::runner::{DecoderRunner, Runner};
use super::sequence::{Guide, Seat, Sequence};
use super::shared::{Shared, Slot};
use super::worker::{Command, STACK_BYTES, Worker};
use super::{EngineError, Event, GenerateRequest};
use crate::model::{CpuDecoder, Decoder};
use std::sync::{Arc, mpsc::Sender};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long [`EngineHandle::drain`] waits, after its deadline, for the step in progress to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Limits of an engine. Zeros count as one, except in `max_queue`.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Most sequences that run together.
    pub max_batch: usize,
    /// Most tokens computed in one step.
    pub token_budget: usize,
    /// Memory for keys and values, in bytes.
    pub kv_cache_bytes: usize,
    /// Most requests that wait while `max_batch` run.
    pub max_queue: usize,
    /// What prompts have in common is computed once, while there is room to keep it.
    pub prefix_cache: bool,
    /// An answer whose token masks take too long is given up, because all others wait for it. Not where the machine's speed may
    /// not decide what is answered.
    pub bounded_masks: bool,
}

/// A snapshot of the engine's state for metrics and health.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineStats {
    /// The thread works; once `false` it never comes back.
    pub alive: bool,
    pub running: usize,
    pub waiting: usize,
    pub blocks_used: usize,
    pub blocks_total: usize,
    /// Tokens of the prompts taken in.
    pub prompt_tokens: u64,
    /// Tokens reported, sampled and forced.
    pub generated_tokens: u64,
    pub forced_tokens: u64,
    /// Token masks applied, and the time they took together, in nanoseconds.
    pub masks: u64,
    pub mask_ns: u64,
    pub preemptions: u64,
    /// Prompt tokens looked up in the prefix cache, and those found there.
    pub prefix_queries: u64,
    pub prefix_hits: u64,
    pub steps: u64,
    /// Milliseconds since the engine thread last showed life.
    pub heartbeat_age_ms: u64,
}

/// A cheap handle to the engine thread. Dropping an event receiver cancels its request.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

impl EngineHandle {
    /// Starts the engine thread; it owns the decoder and its cache from now on.
    pub fn start(decoder: Decoder, options: EngineOptions) -> Result<Self, EngineError> {
        Self::start_with(DecoderRunner::new(decoder, &options)?, options)
    }

    /// The same with the packed decoder on the CPU.
    pub fn start_packed(decoder: CpuDecoder, options: EngineOptions) -> Result<Self, EngineError> {
        Self::start_with(CpuRunner::new(decoder, &options)?, options)
    }

    /// As [`Self::start`], over anything that computes logits. `options.kv_cache_bytes` is the runner's affair.
    pub fn start_with(runner: impl Runner + 'static, mut options: EngineOptions) -> Result<Self, EngineError> {
        options.max_batch = options.max_batch.max(1);
        let shared = Arc::new(Shared::new(runner.shape(), &options));
        let (commands, inbox) = std::sync::mpsc::channel();
        let worker = Worker::new(Box::new(runner), &options, inbox, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("engine".to_owned()).stack_size(STACK_BYTES);
        thread
            .spawn(|| worker.run())
            .map_err(|error| EngineError::Internal(format!("cannot start the engine thread: {error}")))?;
        Ok(Self { commands, shared })
    }

    /// Queues a request. The receiver yields events until `Finished` or `Failed`; one of these always comes, after the
    /// request's place, blocks and adapter lease have been given back.
    pub fn submit(&self, mut request: GenerateRequest) -> Result<mpsc::UnboundedReceiver<Event>, EngineError> {
        let guide = request.constraint.take().map(|constraint| Box::new(constraint) as Box<dyn Guide>);
        self.enqueue(request, guide)
    }

    pub(super) fn enqueue(
        &self,
        request: GenerateRequest,
        guide: Option<Box<dyn Guide>>,
    ) -> Result<mpsc::UnboundedReceiver<Event>, EngineError> {
        self.check_prompt(&request)?;
        let slot = Slot::take(&self.shared)?;
        let shape = &self.shared.shape;
        let seat = Seat {
            _slot: slot,
            // The last token is never computed, so it needs no place in the cache.
            max_len: shape.context_len.min(shape.blocks * shape.block_size + 1),
            vocab_size: shape.vocab_size,
            seed: self.shared.fresh_seed(),
            bounded_masks: self.shared.bounded_masks,
        };
        let (sequence, events) = Sequence::new(request, guide, seat);
        // If the thread has just ended, the sequence comes back and tells so while it is dropped.
        let _ = self.commands.send(Command::Submit(Box::new(sequence)));
        Ok(events)
    }

    fn check_prompt(&self, GenerateRequest { prompt, adapter, .. }: &GenerateRequest) -> Result<(), EngineError> {
        let shape = &self.shared.shape;
        let length = prompt.len() + adapter.as_ref().map_or(0, |lease| lease.weights.virtual_tokens());
        if prompt.is_empty() {
            return Err(EngineError::Internal("the prompt is empty".to_owned()));
        }
        if length >= shape.context_len {
            return Err(EngineError::ContextExceeded { prompt: length, context: shape.context_len });
        }
        let needed = (length + 1).div_ceil(shape.block_size);
        if needed > shape.blocks {
            return Err(EngineError::CacheTooSmall { needed, total: shape.blocks });
        }
        match prompt.iter().find(|&&token| token as usize >= shape.vocab_size) {
            Some(token) => {
                let size = shape.vocab_size;
                Err(EngineError::Internal(format!("prompt token {token} is not below the vocabulary size {size}")))
            }
            None => Ok(()),
        }
    }

    /// What the engine does at present.
    pub fn stats(&self) -> EngineStats {
        self.shared.stats()
    }

    /// `false` once the thread has ended; it never comes back.
    pub fn alive(&self) -> bool {
        self.shared.is_alive()
    }

    /// Returns when the thread has ended.
    pub async fn stopped(&self) {
        self.shared.until_dead().await;
    }

    /// Longest sequence (prompt and answer) in tokens.
    pub fn context_len(&self) -> usize {
        self.shared.shape.context_len
    }

    /// Width of a row of logits; every token id must be below it.
    pub fn vocab_size(&self) -> usize {
        self.shared.shape.vocab_size
    }

    /// Refuses new requests and returns when the running ones have ended or `deadline` has passed (the rest then fail).
    pub async fn drain(&self, deadline: Duration) {
        self.shared.refuse_new();
        if tokio::time::timeout(deadline, self.shared.until_empty()).await.is_err() {
            // A thread that has ended has no requests left either.
            let _ = self.commands.send(Command::Abort);
            let _ = tokio::time::timeout(ABORT_GRACE, self.shared.until_empty()).await;
        }
    }
}
