//! The attention half of a block: projections, rotary embedding, cached or causal attention, output projection.

use super::linear::Linear;
use super::lora::AdapterBatch;
use super::ops::{self, Rotary};
use super::{KvCache, ModelConfig};
use candle_core::{Result, Tensor};

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
}

impl Attention {
    /// `x: [T, hidden]` → `[T, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, context: &LayerContext<'_>) -> Result<Tensor> {
        let LayerContext { config, rotary, lookback, adapters } = context;
        let rows = x.dim(0)?;
        let project = |linear: &Linear, heads| linear.forward(x, adapters)?.reshape((rows, heads, config.head_dim));
        let (q, k) = (project(&self.q, config.num_heads)?, project(&self.k, config.num_kv_heads)?);
        let v = project(&self.v, config.num_kv_heads)?;
        let (q, k) = self.normalise(q, k, config.rms_norm_eps)?;
        let (q, k) = (ops::rope(&q, rotary)?, ops::rope(&k, rotary)?);
        let attended = match lookback {
            Lookback::Segments(lengths) => ops::causal_attention(&q, &k, &v, lengths, config.sliding_window)?,
            Lookback::Cache { cache, layout } => {
                let (keys, values) = cache.write(self.q.site.layer, &k, &v, layout)?;
                ops::paged_attention(&q, keys, values, layout)?
            }
        };
        self.o.forward(&attended.reshape((rows, config.query_width()))?, adapters)
    }

    fn normalise(&self, q: Tensor, k: Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
        match &self.qk_norm {
            None => Ok((q, k)),
            Some((q_weight, k_weight)) => Ok((ops::rms_norm(&q, q_weight, eps)?, ops::rms_norm(&k, k_weight, eps)?)),
        }
    }
}
