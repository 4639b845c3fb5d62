//! A linear layer of the decoder: base product plus the adapters' deltas. The one place where LoRA meets the model.

use super::attention::LayerContext;
use super::backward::BackwardPass;
use super::lora::Site;
use super::ops;
use super::weight::Weight;
use candle_core::{Result, Tensor};

/// `y = x Wᵀ + Σ adapter deltas + b`.
#[derive(Clone)]
pub(super) struct Linear {
    pub(super) site: Site,
    /// `[out, in]`
    pub(super) weight: Weight,
    /// `[out]`
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// `x: [T, in]` → `[T, out]`.
    pub(super) fn forward(&self, x: &Tensor, context: &LayerContext<'_>) -> Result<Tensor> {
        let adapters = context.adapters;
        let y = match context.trains {
            false => adapters.project(self.site, x, &self.weight)?,
            true => match adapters.trained(self.site, x.dim(0)?)? {
                Some(factors) => factors.forward(x, &self.weight)?,
                None => ops::product(x, &self.weight)?,
            },
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(&bias.detach()),
            None => Ok(y),
        }
    }

    /// The gradient of `x` from that of the output.
    pub(super) fn backward(&self, x: &Tensor, grad: &Tensor, pass: &mut BackwardPass<'_, '_>) -> Result<Tensor> {
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.track_op()) {
            (pass.sink)(bias.id(), &grad.to_dtype(ops::wide(grad.dtype()))?.sum(0)?)?;
        }
        if let Some(factors) = pass.context.adapters.trained(self.site, x.dim(0)?)? {
            return factors.backward(x, &self.weight, grad, pass.sink);
        }
        let (dx, dw) = ops::product_backward(x, &self.weight, grad)?;
        if let (Some(gradient), Weight::Dense(weight)) = (dw, &self.weight) {
            (pass.sink)(weight.id(), &gradient)?;
        }
        Ok(dx)
    }
}
