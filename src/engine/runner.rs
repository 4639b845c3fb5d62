//! What computes a batch: the seam between the engine and the decoder with its KV cache.
//!
//! Knows no sequences' fate and no sampling: rows in, logits out.

use super::batch::Batch;
use super::{EngineError, EngineOptions};
use crate::model::kv_cache::BLOCK_SIZE;
use crate::model::ops::alone;
use crate::model::{Attention, Decoder, ForwardPass, KvCache, ModelError};
use crate::priority;
use candle_core::Tensor;
use std::time::{Duration, Instant};

/// A pass this short (two ticks of a common scheduler) is not shared with threads that may have to wait for a processor: it
/// would be over before they get one.
const SHORT: Duration = Duration::from_millis(8);

/// The fixed measures of a runner.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Width of a row of logits; token ids are below it.
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub context_len: usize,
    /// KV blocks in the cache.
    pub blocks: usize,
    /// Positions per block.
    pub block_size: usize,
}

/// Computes batches. Results of a row must depend on its own sequence only.
pub trait Runner: Send {
    /// Never changes.
    fn shape(&self) -> Shape;

    /// Computes the new tokens; returns the logits of `batch.logit_rows`, row after row. Calls `beat` as it gets on: on a CPU
    /// one pass of a large model takes longer than a dead engine may stay silent.
    fn forward(&mut self, batch: &Batch<'_>, beat: &dyn Fn()) -> Result<Vec<f32>, ModelError>;

    /// Rebuilds the cache after a failed pass; nothing in it is needed any more.
    fn reset(&mut self) -> Result<(), ModelError>;
}

/// The decoder with its cache.
pub(super) struct DecoderRunner {
    decoder: Decoder,
    /// `None` only while it is rebuilt, so that two never exist at a time.
    cache: Option<KvCache>,
    blocks: usize,
    /// Tokens of the last pass, and how long it took.
    last: (usize, Duration),
}

impl DecoderRunner {
    /// A runner with as many blocks as the memory allows, and no more than a full batch can use.
    pub(super) fn new(decoder: Decoder, options: &EngineOptions) -> Result<Self, EngineError> {
        let config = decoder.config();
        let affordable = options.kv_cache_bytes / KvCache::block_bytes(config, decoder.dtype()).max(1);
        let usable = options.max_batch.max(1).saturating_mul(config.max_position_embeddings.div_ceil(BLOCK_SIZE));
        let blocks = affordable.min(usable);
        if blocks == 0 {
            return Err(EngineError::CacheTooSmall { needed: 1, total: 0 });
        }
        let mut runner = Self { decoder, cache: None, blocks, last: (1, Duration::MAX) };
        runner.reset().map_err(|error| EngineError::Internal(format!("cannot allocate the KV cache: {error}")))?;
        Ok(runner)
    }

    fn compute(&mut self, batch: &Batch<'_>, beat: &dyn Fn()) -> Result<Vec<f32>, ModelError> {
        let no_cache = || candle_core::Error::Msg("the KV cache is not there after a failed reset".to_owned());
        let cache = self.cache.as_mut().ok_or_else(no_cache)?;
        let pass = ForwardPass {
            tokens: &batch.tokens,
            positions: &batch.positions,
            attention: Attention::Paged { cache, sequences: &batch.sequences },
            adapters: &batch.adapters,
        };
        let hidden = self.decoder.hidden_states_observed(pass, beat)?;
        if batch.logit_rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows = select(hidden, &batch.logit_rows)?;
        Ok(self.decoder.logits(&rows)?.flatten_all()?.to_vec1()?)
    }
}

impl Runner for DecoderRunner {
    fn shape(&self) -> Shape {
        let config = self.decoder.config();
        Shape {
            vocab_size: config.vocab_size,
            context_len: config.max_position_embeddings,
            blocks: self.blocks,
            block_size: BLOCK_SIZE,
        }
    }

    fn forward(&mut self, batch: &Batch<'_>, beat: &dyn Fn()) -> Result<Vec<f32>, ModelError> {
        let tokens = batch.tokens.len();
        let times = u32::try_from(tokens.div_ceil(self.last.0.max(1))).unwrap_or(u32::MAX);
        let short = self.last.1.saturating_mul(times.max(1)) < SHORT;
        let started = Instant::now();
        let logits = if short && priority::is_crowded() {
            alone(|| self.compute(batch, beat))
        } else {
            self.compute(batch, beat)
        };
        self.last = (tokens, started.elapsed());
        logits
    }

    fn reset(&mut self) -> Result<(), ModelError> {
        self.cache = None;
        self.cache =
            Some(KvCache::new(self.decoder.config(), self.blocks, self.decoder.dtype(), self.decoder.device())?);
        Ok(())
    }
}

/// The hidden states of the wanted rows.
fn select(hidden: Tensor, rows: &[u32]) -> Result<Tensor, ModelError> {
    if hidden.dim(0)? == rows.len() {
        return Ok(hidden);
    }
    Ok(hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)?)
}
