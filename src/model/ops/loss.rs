//! The vocabulary head with its loss: cross entropies of selected rows without ever keeping all logits.
//!
//! Forward and gradient are computed together, chunk by chunk; the backward pass only scales what is there.

use super::kernels::{RowKernel, for_rows, softmax};
use super::{View, composed, is_fused, output, tensor};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use std::sync::Mutex;

/// Rows whose logits exist at the same time.
const ROWS: usize = 512;

/// What the head says about some rows.
pub struct HeadLoss {
    /// Σ cross entropy (natural logarithm), differentiable.
    pub sum: Tensor,
    /// Cross entropy of each row.
    pub losses: Vec<f32>,
    /// Most likely token of each row.
    pub predictions: Vec<u32>,
}

/// Cross entropy of `hidden: [n, d]` through the head `w: [vocab, d]` against `targets` (length n).
pub fn head_loss(hidden: &Tensor, w: &Tensor, targets: &[u32]) -> Result<HeadLoss> {
    if is_fused(hidden) { fused(&hidden.contiguous()?, w, targets) } else { plain(hidden, w, targets) }
}

fn plain(hidden: &Tensor, w: &Tensor, targets: &[u32]) -> Result<HeadLoss> {
    let logits = composed::linear(hidden, w)?;
    let losses = composed::cross_entropies(&logits, &Tensor::new(targets, hidden.device())?)?;
    let predictions = logits.argmax(1)?.to_vec1::<u32>()?;
    Ok(HeadLoss { sum: losses.sum_all()?, losses: losses.to_vec1()?, predictions })
}

fn fused(hidden: &Tensor, w: &Tensor, targets: &[u32]) -> Result<HeadLoss> {
    let (rows, width) = hidden.dims2()?;
    let frozen = w.detach();
    let (mut losses, mut predictions) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut input_parts = Vec::new();
    let mut weight_sum: Option<Tensor> = None;
    for (chunk, targets) in targets.chunks(ROWS).enumerate() {
        let x = hidden.narrow(0, chunk * ROWS, targets.len())?.detach();
        let logits = x.matmul(&frozen.t()?)?;
        let residual = softmax_minus_target(&logits, targets, &mut losses, &mut predictions)?;
        if hidden.track_op() {
            input_parts.push(residual.matmul(&frozen)?);
        }
        if w.track_op() {
            let part = residual.t()?.matmul(&x)?;
            weight_sum = Some(weight_sum.map_or(Ok(part.clone()), |sum| sum + part)?);
        }
    }
    let total = losses.iter().map(|l| f64::from(*l)).sum::<f64>() as f32;
    let input = match input_parts.is_empty() {
        true => None,
        false => Some(Tensor::cat(&input_parts, 0)?.reshape((rows, width))?),
    };
    let node = Node { total, gradients: Mutex::new((input, weight_sum)) };
    Ok(HeadLoss { sum: hidden.apply_op2(w, node)?, losses, predictions })
}

/// Turns a row of logits into `softmax - onehot(target)` and notes its loss and most likely token.
struct Residual<'a> {
    targets: &'a [u32],
    results: &'a [Mutex<(f32, u32)>],
}

impl RowKernel for Residual<'_> {
    #[inline(always)]
    fn row(&self, i: usize, row: &mut [f32]) {
        let target = self.targets[i] as usize;
        let (best, chosen) = (argmax(row), row[target]);
        let normaliser = softmax(row);
        row[target] -= 1.0;
        if let Ok(mut slot) = self.results[i].lock() {
            *slot = (normaliser - chosen, best as u32);
        }
    }
}

/// `softmax(logits) - onehot(target)`; appends each row's loss and most likely token.
fn softmax_minus_target(
    logits: &Tensor,
    targets: &[u32],
    losses: &mut Vec<f32>,
    predictions: &mut Vec<u32>,
) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    let mut values = View::new(logits)?.to_vec();
    let results: Vec<Mutex<(f32, u32)>> = (0..rows).map(|_| Mutex::new((0.0, 0))).collect();
    for_rows(&mut values, vocab, &Residual { targets, results: &results });
    for result in results {
        let (loss, best) = result.into_inner().unwrap_or_default();
        losses.push(loss);
        predictions.push(best);
    }
    tensor(values, (rows, vocab))
}

#[inline(always)]
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

/// The tape node: holds the finished gradients.
struct Node {
    total: f32,
    gradients: Mutex<(Option<Tensor>, Option<Tensor>)>,
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(output(vec![self.total], ()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = f64::from(grad.to_scalar::<f32>()?);
        let gradients = self.gradients.lock().map(|g| g.clone()).unwrap_or_default();
        let scaled = |g: Option<Tensor>| g.map(|g| g * factor).transpose();
        Ok((scaled(gradients.0)?, scaled(gradients.1)?))
    }
}
