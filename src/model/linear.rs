//! A linear layer of the decoder: base product plus the adapters' deltas. The one line where LoRA meets the model.

use super::lora::{AdapterBatch, Site};
use super::weight::Weight;
use candle_core::{Result, Tensor};

/// `y = x Wᵀ + Σ adapter deltas + b`.
pub(super) struct Linear {
    pub(super) site: Site,
    /// `[out, in]`
    pub(super) weight: Weight,
    /// `[out]`
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// `x: [T, in]` → `[T, out]`.
    pub(super) fn forward(&self, x: &Tensor, adapters: &AdapterBatch) -> Result<Tensor> {
        let y = adapters.project(self.site, x, &self.weight)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
