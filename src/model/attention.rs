//! The attention half of a block: projections, rotary embedding, cached or causal attention, output projection.

use super::backward::{BackwardPass, norm_backward};
use super::linear::Linear;
use super::lora::AdapterBatch;
use super::ops::{self, Rotary};
use super::{KvCache, ModelConfig};
use candle_core::{Result, Tensor, bail};

#[derive(Clone)]
pub(super) struct Attention {
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    /// RMSNorm weights over each head of q and k (Qwen 3).
    pub(super) qk_norm: Option<(Tensor, Tensor)>,
}

/// What the rows of a pass look back at; the same for every layer.
pub(super) enum Lookback<'a> {
    Segments(&'a [usize]),
    Cache { cache: &'a mut KvCache, layout: ops::PagedLayout },
}

/// What every layer of a pass needs beside its input.
pub(super) struct LayerContext<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) rotary: Rotary,
    pub(super) lookback: Lookback<'a>,
    pub(super) adapters: &'a AdapterBatch,
    /// Whether gradients may follow: the fastest products, instead of those whose rows do not depend on each other.
    pub(super) trains: bool,
}

/// What the backward pass reads beside the input, `[T, heads, head_dim]` each.
pub(super) struct Attended {
    /// As projected: neither normalised nor rotated.
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
}

impl Attention {
    /// All but the last product of `x: [T, hidden]`.
    pub(super) fn attended(&self, x: &Tensor, context: &LayerContext<'_>) -> Result<Attended> {
        let config = context.config;
        let rows = x.dim(0)?;
        let project = |linear: &Linear, heads| linear.forward(x, context)?.reshape((rows, heads, config.head_dim));
        let (q, k) = (project(&self.q, config.num_heads)?, project(&self.k, config.num_kv_heads)?);
        let v = project(&self.v, config.num_kv_heads)?;
        let (turned_q, turned_k) = self.turned(&q, &k, context)?;
        let out = match &context.lookback {
            Lookback::Segments(lengths) => {
                ops::causal_attention(&turned_q, &turned_k, &v, lengths, config.sliding_window)?
            }
            Lookback::Cache { cache, layout } => {
                let (keys, values) = cache.write(self.q.site.layer, &turned_k, &v, layout)?;
                ops::paged_attention(&turned_q, keys, values, layout)?
            }
        };
        Ok(Attended { q, k, v, out })
    }

    /// The last product → `[T, hidden]`.
    pub(super) fn output(&self, attended: &Attended, context: &LayerContext<'_>) -> Result<Tensor> {
        self.o.forward(&attended.out.flatten_from(1)?, context)
    }

    /// Queries and keys as they meet: normalised where the family does so, and rotated.
    fn turned(&self, q: &Tensor, k: &Tensor, context: &LayerContext<'_>) -> Result<(Tensor, Tensor)> {
        let (rotary, eps) = (&context.rotary, context.config.rms_norm_eps);
        match &self.qk_norm {
            None => Ok((ops::rope(q, rotary)?, ops::rope(k, rotary)?)),
            Some((q_weight, k_weight)) => {
                let (q, k) = (ops::rms_norm(q, q_weight, eps)?, ops::rms_norm(k, k_weight, eps)?);
                Ok((ops::rope(&q, rotary)?, ops::rope(&k, rotary)?))
            }
        }
    }

    /// The gradient of `x` from that of the output.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        attended: &Attended,
        grad: &Tensor,
        pass: &mut BackwardPass<'_, '_>,
    ) -> Result<Tensor> {
        let Attended { q, k, v, out } = attended;
        let Lookback::Segments(lengths) = pass.context.lookback else { bail!("no gradient goes through a KV cache") };
        let grad = self.o.backward(&out.flatten_from(1)?, grad, pass)?.reshape(out.shape())?;
        let (turned_q, turned_k) = self.turned(q, k, pass.context)?;
        let saved = ops::SavedTensors { q: &turned_q, k: &turned_k, v, out };
        let [dq, dk, dv] = ops::causal_attention_backward(&saved, &grad, lengths, pass.context.config.sliding_window)?;
        let back = pass.context.rotary.reversed();
        let [mut dq, mut dk] = [ops::rope(&dq, &back)?, ops::rope(&dk, &back)?];
        if let Some((q_weight, k_weight)) = &self.qk_norm {
            dq = norm_backward(q, q_weight, &dq, pass)?;
            dk = norm_backward(k, k_weight, &dk, pass)?;
        }
        let dx = self.q.backward(x, &dq.flatten_from(1)?, pass)?;
        let dx = (dx + self.k.backward(x, &dk.flatten_from(1)?, pass)?)?;
        dx + self.v.backward(x, &dv.flatten_from(1)?, pass)?
    }
}
