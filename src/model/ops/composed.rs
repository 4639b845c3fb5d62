//! The same operations from plain candle ops, which candle differentiates itself: for devices without fused kernels,
//! and the reference that tests compare the fused ones with.

use super::{Rotary, wide};
use candle_core::{D, Device, Result, Tensor, Var};

/// Gradients of the inputs of `f` from that of its output, by candle's own tape.
pub fn gradients<const N: usize>(
    inputs: [&Tensor; N],
    grad: &Tensor,
    f: impl FnOnce([&Tensor; N]) -> Result<Tensor>,
) -> Result<[Tensor; N]> {
    let vars = inputs.iter().map(|input| Var::from_tensor(input)).collect::<Result<Vec<_>>>()?;
    let vars: [Var; N] = vars.try_into().map_err(|_| candle_core::Error::Msg("lost an input".to_owned()))?;
    let output = f(vars.each_ref().map(|var| var.as_tensor()))?;
    let found = (output * grad)?.sum_all()?.backward()?;
    let gradient = |var: &Var| found.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
    let mut all = Vec::with_capacity(N);
    for var in &vars {
        all.push(gradient(var)?);
    }
    all.try_into().map_err(|_| candle_core::Error::Msg("lost a gradient".to_owned()))
}

/// See [`super::rms_norm`].
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    let values = x.to_dtype(wide(x.dtype()))?;
    let mean = values.sqr()?.mean_keepdim(D::Minus1)?;
    let scaled = values.broadcast_div(&(mean + eps)?.sqrt()?)?;
    scaled.to_dtype(x.dtype())?.broadcast_mul(w)
}

/// `x Wᵀ`.
pub fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.matmul(&w.t()?)
}

/// See [`super::swiglu`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()?.mul(up)
}

/// See [`super::rope`].
pub fn rope(x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (cos, sin) = rotary.tensors(x.dtype(), x.device())?;
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

/// Attention of `q: [n, heads, d]` over `k, v: [m, kv_heads, d]`, where query `i` sits at position `m - n + i` and sees
/// positions up to its own, at most the last `window`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, window: Option<usize>) -> Result<Tensor> {
    let ((n, heads, d), (m, kv_heads, _)) = (q.dims3()?, k.dims3()?);
    let spread = |t: &Tensor| {
        let shape = (m, kv_heads, heads / kv_heads, d);
        t.unsqueeze(2)?.broadcast_as(shape)?.reshape((m, heads, d))?.transpose(0, 1)?.contiguous()
    };
    let (q, k, v) = (q.transpose(0, 1)?.contiguous()?, spread(k)?, spread(v)?);
    let scores = (q.matmul(&k.t()?)? * (1.0 / (d as f64).sqrt()))?.to_dtype(wide(q.dtype()))?;
    let scores = scores.broadcast_add(&mask(n, m, window, q.device())?.to_dtype(scores.dtype())?)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(v.dtype())?;
    weights.matmul(&v)?.transpose(0, 1)?.contiguous()
}

fn mask(n: usize, m: usize, window: Option<usize>, device: &Device) -> Result<Tensor> {
    let window = window.unwrap_or(usize::MAX);
    let sees = |i: usize, j: usize| j <= m - n + i && m - n + i - j < window;
    let values: Vec<f32> =
        (0..n).flat_map(|i| (0..m).map(move |j| if sees(i, j) { 0.0 } else { f32::NEG_INFINITY })).collect();
    Tensor::from_vec(values, (1, n, m), device)
}

/// Negative log-likelihoods `[n]` of `targets: [n]` (u32) under the logits `[n, vocab]`.
pub fn cross_entropies(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let logits = logits.to_dtype(wide(logits.dtype()))?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let normaliser = shifted.exp()?.sum_keepdim(1)?.log()?;
    let chosen = shifted.gather(&targets.unsqueeze(1)?, 1)?;
    (normaliser - chosen)?.squeeze(1)
}
