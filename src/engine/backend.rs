//! The seam to the rest: requests in, token events out, through a handle to the engine thread.

use super::{EngineError, Event, GenerateRequest};
use crate::model::Decoder;
use tokio::sync::mpsc;

/// Limits of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Most sequences that run together.
    pub max_batch: usize,
    /// Most tokens computed in one step.
    pub token_budget: usize,
    /// Memory for keys and values, in bytes.
    pub kv_cache_bytes: usize,
    /// Most requests that wait.
    pub max_queue: usize,
}

/// A snapshot of the engine's state for metrics and health.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineStats {
    pub running: usize,
    pub waiting: usize,
    pub blocks_used: usize,
    pub blocks_total: usize,
    pub prompt_tokens: u64,
    pub generated_tokens: u64,
    pub forced_tokens: u64,
    pub preemptions: u64,
    pub steps: u64,
    /// Milliseconds since the engine thread last showed life.
    pub heartbeat_age_ms: u64,
}

/// A cheap handle to the engine thread. Dropping an event receiver cancels its request.
#[derive(Clone)]
pub struct EngineHandle {
    _private: (),
}

impl EngineHandle {
    /// Starts the engine thread; it owns the decoder and its cache from now on.
    pub fn start(decoder: Decoder, options: EngineOptions) -> Result<Self, EngineError> {
        let _ = (decoder, options);
        todo!()
    }

    /// Queues a request. The receiver yields events until `Finished` or `Failed`.
    pub fn submit(&self, request: GenerateRequest) -> Result<mpsc::UnboundedReceiver<Event>, EngineError> {
        let _ = request;
        todo!()
    }

    pub fn stats(&self) -> EngineStats {
        todo!()
    }

    /// Refuses new requests and returns when the running ones have ended or `deadline` has passed (the rest then fail).
    pub async fn drain(&self, deadline: std::time::Duration) {
        let _ = deadline;
        todo!()
    }
}
