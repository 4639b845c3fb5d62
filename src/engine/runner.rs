//! What computes a batch: the seam between the engine and the decoder with its KV cache.
//!
//! Knows no sequences' fate and no sampling: rows in, logits out.

use super::batch::Batch;
use super::{EngineError, EngineOptions};
use crate::model::kv_cache::BLOCK_SIZE;
use crate::model::{Attention, Decoder, ForwardPass, KvCache, ModelConfig, ModelError};
use candle_core::Tensor;

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

impl Shape {
    pub(super) fn of(config: &ModelConfig, blocks: usize) -> Self {
        Self {
            vocab_size: config.vocab_size,
            context_len: config.max_position_embeddings,
            blocks,
            block_size: BLOCK_SIZE,
        }
    }
}

/// As many blocks as the memory allows, and no more than a full batch can use.
pub(super) fn affordable_blocks(
    config: &ModelConfig,
    block_bytes: usize,
    options: &EngineOptions,
) -> Result<usize, EngineError> {
    let affordable = options.kv_cache_bytes / block_bytes.max(1);
    let usable = options.max_batch.max(1).saturating_mul(config.max_position_embeddings.div_ceil(BLOCK_SIZE));
    match affordable.min(usable) {
        0 => Err(EngineError::CacheTooSmall { needed: 1, total: 0 }),
        blocks => Ok(blocks),
    }
}

/// Computes batches. Results of a row must depend on its own sequence only.
pub trait Runner: Send {
    /// Never changes.
    fn shape(&self) -> Shape;

    /// Computes the new tokens; fills `logits` with those of `batch.logit_rows`, row after row, whatever was in it. Calls `beat`
    /// as it gets on: on a CPU one pass of a large model takes longer than a dead engine may stay silent.
    fn forward(&mut self, batch: &Batch<'_>, beat: &dyn Fn(), logits: &mut Vec<f32>) -> Result<(), ModelError>;

    /// Rebuilds the cache after a failed pass; nothing in it is needed any more.
    fn reset(&mut self) -> Result<(), ModelError>;
}

/// The decoder with its cache.
pub(super) struct DecoderRunner {
    decoder: Decoder,
    /// `None` only while it is rebuilt, so that two never exist at a time.
    cache: Option<KvCache>,
    blocks: usize,
}

impl DecoderRunner {
    pub(super) fn new(decoder: Decoder, options: &EngineOptions) -> Result<Self, EngineError> {
        let block_bytes = KvCache::block_bytes(decoder.config(), decoder.dtype());
        let blocks = affordable_blocks(decoder.config(), block_bytes, options)?;
        let mut runner = Self { decoder, cache: None, blocks };
        runner.reset().map_err(|error| EngineError::Internal(format!("cannot allocate the KV cache: {error}")))?;
        Ok(runner)
    }
}

impl Runner for DecoderRunner {
    fn shape(&self) -> Shape {
        Shape::of(self.decoder.config(), self.blocks)
    }

    fn forward(&mut self, batch: &Batch<'_>, beat: &dyn Fn(), logits: &mut Vec<f32>) -> Result<(), ModelError> {
        let no_cache = || candle_core::Error::Msg("the KV cache is not there after a failed reset".to_owned());
        let cache = self.cache.as_mut().ok_or_else(no_cache)?;
        let pass = ForwardPass {
            tokens: &batch.tokens,
            positions: &batch.positions,
            attention: Attention::Paged { cache, sequences: &batch.sequences },
            adapters: &batch.adapters,
        };
        let hidden = self.decoder.hidden_states_observed(pass, beat)?;
        logits.clear();
        if !batch.logit_rows.is_empty() {
            let rows: Vec<u32> = batch.logit_rows.iter().map(|wanted| wanted.row).collect();
            *logits = self.decoder.logits(&select(hidden, &rows)?)?.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ModelError> {
        self.cache = None;
        self.cache =
            Some(KvCache::new(self.decoder.config(), self.blocks, self.decoder.dtype(), &self.decoder.device())?);
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
