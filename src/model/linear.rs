//! A linear layer of the decoder: base product plus the adapters' deltas. The one line where LoRA meets the model.

use super::lora::{AdapterBatch, Site};
use super::ops;
use candle_core::{Result, Tensor};

/// `y = x Wᵀ + b + Σ adapter deltas`.
pub(super) struct Linear {
    pub(super) site: Site,
    /// `[out, in]`
    pub(super) weight: Tensor,
    /// `[out]`
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// `x: [T, in]` → `[T, out]`.
    pub(super) fn forward(&self, x: &Tensor, adapters: &AdapterBatch) -> Result<Tensor> {
        adapters.add_delta(self.site, x, ops::linear(x, &self.weight, self.bias.as_ref())?)
    }
}
