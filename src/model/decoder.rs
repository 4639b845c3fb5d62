//! The decoder: embed → blocks → final norm; hidden states and logits are separate.

use super::{ForwardPass, ModelConfig, ModelError};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// What the vocabulary head says about some rows during training.
pub struct TokenLosses {
    /// Sum of the cross entropies (natural log), a scalar that can be differentiated.
    pub sum: Tensor,
    /// Cross entropy of each row.
    pub losses: Vec<f32>,
    /// The most likely token of each row.
    pub predictions: Vec<u32>,
}

/// Name (as in Hugging Face checkpoints) and shape of every parameter, in a fixed order.
pub fn parameter_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let _ = config;
    todo!()
}

/// A Llama-shaped causal decoder.
pub struct Decoder {
    config: ModelConfig,
}

impl Decoder {
    /// A decoder over tensors in memory, by their Hugging Face names. Tensors are used as they are (no copy), so a
    /// `Var` among them receives gradients.
    pub fn from_tensors(config: ModelConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, ModelError> {
        let _ = (config, tensors);
        todo!()
    }

    /// Cross entropy of selected rows of the hidden states `[n, hidden]` against `targets` (length n); the full logits
    /// matrix is never kept.
    pub fn token_losses(&self, hidden: &Tensor, targets: &[u32]) -> Result<TokenLosses, ModelError> {
        let _ = (hidden, targets);
        todo!()
    }

    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        todo!()
    }

    /// Hidden states after the final norm, `[T, hidden]`. `pass.attention` decides caching.
    pub fn hidden_states(&self, pass: ForwardPass<'_>) -> Result<Tensor, ModelError> {
        let _ = pass;
        todo!()
    }

    /// Logits `[n, vocab]` (f32) of selected rows of the hidden states `[n, hidden]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        let _ = hidden;
        todo!()
    }
}
