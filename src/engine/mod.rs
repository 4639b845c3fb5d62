//! The engine: one thread owns the device and steps all running sequences together (continuous batching).
//!
//! Knows no JSON, no HTTP and no chat: token ids and a constraint in, token events out.
//!
//! A step: the `scheduler` says how many tokens of which `sequence` to compute, [`batch`] lays them end to end, the
//! [`runner`] computes the logits, each sequence chooses its next token ([`sampler`]) and appends what its grammar
//! forces after it. A prompt, a chunk of one, forced tokens and a single new token are the same thing with other lengths.

pub mod backend;
pub mod batch;
pub mod runner;
pub mod sampler;

mod blocks;
mod cpu_runner;
mod pace;
mod scheduler;
mod sequence;
mod shared;
mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use backend::{EngineHandle, EngineOptions, EngineStats};
pub use batch::Batch;
pub use runner::{Runner, Shape};

use crate::adapter::registry::Lease;
use crate::grammar::Constraint;

/// How tokens are chosen. Neutral values: temperature 1, top_p 1, top_k 0, min_p 0, penalties 1 / 0 / 0.
#[derive(Debug, Clone)]
pub struct SamplingParams {
    /// 0 = greedy.
    pub temperature: f32,
    pub top_p: f32,
    /// 0 = off.
    pub top_k: usize,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    /// `None` = drawn by the engine.
    pub seed: Option<u64>,
    /// Added to logits; ids are below the logits width.
    pub logit_bias: Vec<(u32, f32)>,
    /// Number of top alternatives to report with each token; `None` = no logprobs.
    pub logprobs: Option<usize>,
    /// Tokens that end the text are never chosen, so that it is as long as it may be. Not for a text under a grammar.
    pub ignore_eos: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
            logprobs: None,
            ignore_eos: false,
        }
    }
}

/// One generation to run.
pub struct GenerateRequest {
    /// Of the vocabulary. What the adapter puts before it is neither part of it nor counted with it.
    pub prompt: Vec<u32>,
    pub params: SamplingParams,
    /// At most this many new tokens.
    pub max_tokens: usize,
    /// Ids that end the generation (not reported as tokens).
    pub stop_token_ids: Vec<u32>,
    pub constraint: Option<Constraint>,
    pub adapter: Option<Lease>,
    /// Whose request it is: computed prefixes are shared among those of one tenant alone.
    pub tenant: Option<[u8; 32]>,
}

/// One generated token.
#[derive(Debug, Clone)]
pub struct TokenEvent {
    pub id: u32,
    /// Forced by the grammar, not sampled.
    pub forced: bool,
    pub logprobs: Option<TokenLogprobs>,
}

/// Log-probabilities of a token under the masked, unscaled distribution (temperature 1).
#[derive(Debug, Clone)]
pub struct TokenLogprobs {
    pub logprob: f32,
    /// Most likely alternatives, best first.
    pub top: Vec<(u32, f32)>,
}

/// What the engine tells a request.
#[derive(Debug)]
pub enum Event {
    /// The request has left the queue, and this many tokens of its prompt were computed before. The first event of each
    /// that ever does.
    Started { cached_tokens: usize },
    /// One or more tokens of one step.
    Tokens(Vec<TokenEvent>),
    /// The last event of a good generation.
    Finished(FinishReason),
    /// The last event of a failed one.
    Failed(EngineError),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// End-of-turn token, or the grammar is complete.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

/// Why the engine refused or gave up a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    #[error("the queue is full ({limit} requests)")]
    Overloaded { limit: usize },
    #[error("the prompt of {prompt} tokens does not fit the context of {context}")]
    ContextExceeded { prompt: usize, context: usize },
    #[error("the prompt needs {needed} KV blocks, the cache has {total}")]
    CacheTooSmall { needed: usize, total: usize },
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// NaN or empty distribution, or the constraint failed.
    #[error("model output invalid: {0}")]
    InvalidOutput(String),
    #[error("engine failure: {0}")]
    Internal(String),
}
