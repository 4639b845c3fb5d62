//! RMSNorm (Zhang and Sennrich 2019): `y = x / sqrt(mean(x²) + eps) * w`.

use super::kernels::{Loop, RowKernel, dot, for_rows, vectorised};
use super::{View, composed, is_fused, tensor, wide};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// `x: [.., d]`, `w: [d]`.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    if !is_fused(x) {
        return composed::rms_norm(x, &w.detach(), eps);
    }
    let x = x.contiguous()?;
    let (xs, ws) = (View::new(&x)?, View::new(w)?);
    let mut y = vec![0f32; xs.len()];
    for_rows(&mut y, ws.len(), &Forward { x: &xs, w: &ws, eps: eps as f32 });
    tensor(y, x.shape().clone())
}

/// Gradients of `x` and, if it is a variable, of `w`, from that of the output.
pub fn rms_norm_backward(x: &Tensor, w: &Tensor, eps: f64, grad: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    if !is_fused(x) {
        // Every row adds to the weight's gradient.
        let of_sums = |t: &Tensor| t.to_dtype(wide(x.dtype()));
        let inputs = [&of_sums(x)?, &of_sums(w)?];
        let [dx, dw] = composed::gradients(inputs, &of_sums(grad)?, |[x, w]| composed::rms_norm(x, w, eps))?;
        return Ok((dx.to_dtype(x.dtype())?, w.track_op().then_some(dw)));
    }
    let (x, grad, eps) = (x.contiguous()?, grad.contiguous()?, eps as f32);
    let (xs, ws, gs) = (View::new(&x)?, View::new(w)?, View::new(&grad)?);
    let mut dx = vec![0f32; xs.len()];
    for_rows(&mut dx, ws.len(), &InputGradient { x: &xs, w: &ws, grad: &gs, eps });
    let dw = || tensor(weight_gradient(&xs, &gs, ws.len(), eps), w.shape().clone());
    Ok((tensor(dx, x.shape().clone())?, w.track_op().then(dw).transpose()?))
}

#[inline(always)]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

/// One row: `y = x / rms(x) * w`.
#[inline(always)]
pub(in crate::model) fn normalise(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let r = inverse_rms(x, eps);
    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
        *y = x * r * w;
    }
}

struct Forward<'a> {
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
}

impl RowKernel for Forward<'_> {
    #[inline(always)]
    fn row(&self, i: usize, y: &mut [f32]) {
        normalise(&self.x[i * y.len()..(i + 1) * y.len()], self.w, self.eps, y);
    }
}

/// With `r = 1/rms` and `g = grad * w`: `dx = r * g - x * r³ / d * (g · x)`.
struct InputGradient<'a> {
    x: &'a [f32],
    w: &'a [f32],
    grad: &'a [f32],
    eps: f32,
}

impl RowKernel for InputGradient<'_> {
    #[inline(always)]
    fn row(&self, i: usize, dx: &mut [f32]) {
        let at = i * dx.len()..(i + 1) * dx.len();
        let (x, grad) = (&self.x[at.clone()], &self.grad[at]);
        let r = inverse_rms(x, self.eps);
        for ((dx, g), w) in dx.iter_mut().zip(grad).zip(self.w) {
            *dx = g * w;
        }
        let shrink = dot(dx, x) * r * r * r / dx.len() as f32;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = *dx * r - x * shrink;
        }
    }
}

/// `dw = Σ_rows grad * x * r` of some rows.
struct WeightGradient<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    width: usize,
    eps: f32,
}

impl Loop for WeightGradient<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn call(self) -> Vec<f32> {
        let mut dw = vec![0f32; self.width];
        for (x, grad) in self.x.chunks_exact(self.width).zip(self.grad.chunks_exact(self.width)) {
            let r = inverse_rms(x, self.eps);
            for ((dw, x), g) in dw.iter_mut().zip(x).zip(grad) {
                *dw += g * x * r;
            }
        }
        dw
    }
}

/// Fixed chunks, summed in order: the result does not depend on how threads were scheduled.
fn weight_gradient(x: &[f32], grad: &[f32], width: usize, eps: f32) -> Vec<f32> {
    let chunk = 256 * width;
    let chunks = x.par_chunks(chunk).zip(grad.par_chunks(chunk));
    let parts: Vec<Vec<f32>> = chunks.map(|(x, grad)| vectorised(WeightGradient { x, grad, width, eps })).collect();
    let mut total = vec![0f32; width];
    parts.iter().flat_map(|part| part.iter().enumerate()).for_each(|(i, value)| total[i] += value);
    total
}
