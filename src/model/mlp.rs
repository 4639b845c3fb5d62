//! The feed-forward half of a block: `down(silu(gate(x)) * up(x))`.

use super::linear::Linear;
use super::lora::AdapterBatch;
use super::ops;
use candle_core::{Result, Tensor};

pub(super) struct Mlp {
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Mlp {
    /// `x: [T, hidden]` → `[T, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, adapters: &AdapterBatch) -> Result<Tensor> {
        let (gate, up) = (self.gate.forward(x, adapters)?, self.up.forward(x, adapters)?);
        self.down.forward(&ops::swiglu(&gate, &up)?, adapters)
    }
}
