//! The packed decoder on the CPU as the engine's runner.

use super::batch::Batch;
use super::runner::{Runner, Shape, affordable_blocks};
use super::{EngineError, EngineOptions};
use crate::model::{CpuDecoder, CpuPass, ModelError};
use crate::priority;
use std::time::{Duration, Instant};

/// A pass this short (two ticks of a common scheduler) is not shared with threads that may have to wait for a processor: it
/// would be over before they get one.
const SHORT: Duration = Duration::from_millis(8);

/// The decoder with its store of keys and values.
pub(super) struct CpuRunner {
    decoder: CpuDecoder,
    blocks: usize,
    /// Tokens of the last pass, and how long it took.
    last: (usize, Duration),
}

impl CpuRunner {
    pub(super) fn new(mut decoder: CpuDecoder, options: &EngineOptions) -> Result<Self, EngineError> {
        let blocks = affordable_blocks(decoder.config(), decoder.block_bytes(), options)?;
        decoder.reset_store(blocks);
        Ok(Self { decoder, blocks, last: (1, Duration::MAX) })
    }

    /// Whether a pass of so many tokens is likely to be over soon.
    fn is_short(&self, tokens: usize) -> bool {
        let times = u32::try_from(tokens.div_ceil(self.last.0.max(1))).unwrap_or(u32::MAX);
        self.last.1.saturating_mul(times.max(1)) < SHORT
    }
}

impl Runner for CpuRunner {
    fn shape(&self) -> Shape {
        Shape::of(self.decoder.config(), self.blocks)
    }

    fn forward(&mut self, batch: &Batch<'_>, beat: &dyn Fn(), logits: &mut Vec<f32>) -> Result<(), ModelError> {
        let tokens = batch.tokens.len();
        let pass = CpuPass {
            tokens: &batch.tokens,
            positions: &batch.positions,
            sequences: &batch.sequences,
            adapters: &batch.adapters,
            logit_rows: &batch.logit_rows,
        };
        let started = Instant::now();
        self.decoder.set_alone(self.is_short(tokens) && priority::is_crowded());
        let outcome = self.decoder.forward(&pass, beat, logits);
        self.last = (tokens, started.elapsed());
        outcome
    }

    fn reset(&mut self) -> Result<(), ModelError> {
        self.decoder.reset_store(self.blocks);
        Ok(())
    }
}
