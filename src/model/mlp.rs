//! The feed-forward half of a block: `down(silu(gate(x)) * up(x))`.

use super::attention::LayerContext;
use super::backward::BackwardPass;
use super::linear::Linear;
use super::ops;
use candle_core::{Result, Tensor};

#[derive(Clone)]
pub(super) struct Mlp {
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// What the backward pass reads beside the input, `[T, inner]` each.
pub(super) struct Gated {
    gate: Tensor,
    up: Tensor,
}

impl Gated {
    fn product(&self) -> Result<Tensor> {
        ops::swiglu(&self.gate, &self.up)
    }
}

impl Mlp {
    /// All but the last product of `x: [T, hidden]`.
    pub(super) fn gated(&self, x: &Tensor, context: &LayerContext<'_>) -> Result<Gated> {
        Ok(Gated { gate: self.gate.forward(x, context)?, up: self.up.forward(x, context)? })
    }

    /// The last product → `[T, hidden]`.
    pub(super) fn output(&self, gated: &Gated, context: &LayerContext<'_>) -> Result<Tensor> {
        self.down.forward(&gated.product()?, context)
    }

    /// The gradient of `x` from that of the output.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        gated: &Gated,
        grad: &Tensor,
        pass: &mut BackwardPass<'_, '_>,
    ) -> Result<Tensor> {
        let grad = self.down.backward(&gated.product()?, grad, pass)?;
        let [gate, up] = ops::swiglu_backward(&gated.gate, &gated.up, &grad)?;
        self.gate.backward(x, &gate, pass)? + self.up.backward(x, &up, pass)?
    }
}
