//! RMSNorm (Zhang and Sennrich 2019): `y = x / sqrt(mean(x²) + eps) * w`.

use super::kernels::{dot, for_rows, vectorised};
use super::{View, composed, is_fused, output, slice, tensor};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// `x: [.., d]`, `w: [d]`.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    if is_fused(x) { x.contiguous()?.apply_op2(w, RmsNorm { eps: eps as f32 }) } else { composed::rms_norm(x, w, eps) }
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    fn inverse_rms(&self, row: &[f32]) -> f32 {
        1.0 / (dot(row, row) / row.len() as f32 + self.eps).sqrt()
    }

    /// With `r = 1/rms` and `g = grad * w`: `dx = r * g - x * r³ / d * (g · x)`.
    fn input_gradient(&self, x: &[f32], w: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut dx = vec![0f32; x.len()];
        let width = w.len();
        for_rows(&mut dx, width, |i, dx| {
            let (x, grad) = (&x[i * width..(i + 1) * width], &grad[i * width..(i + 1) * width]);
            let r = self.inverse_rms(x);
            for ((dx, g), w) in dx.iter_mut().zip(grad).zip(w) {
                *dx = g * w;
            }
            let shrink = dot(dx, x) * r * r * r / width as f32;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = *dx * r - x * shrink;
            }
        });
        dx
    }

    /// `dw = Σ_rows grad * x * r`.
    fn weight_gradient(&self, x: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
        let add = |mut sum: Vec<f32>, part: Vec<f32>| {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
            sum
        };
        // Fixed chunks, summed in order: the result does not depend on how threads were scheduled.
        let chunk = 256 * width;
        let parts: Vec<Vec<f32>> = x
            .par_chunks(chunk)
            .zip(grad.par_chunks(chunk))
            .map(|(x, grad)| vectorised(|| self.weight_gradient_of(x, grad, width)))
            .collect();
        parts.into_iter().fold(vec![0f32; width], add)
    }

    #[inline(always)]
    fn weight_gradient_of(&self, x: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
        let mut dw = vec![0f32; width];
        for (x, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
            let r = self.inverse_rms(x);
            for ((dw, x), g) in dw.iter_mut().zip(x).zip(grad) {
                *dw += g * x * r;
            }
        }
        dw
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(x, lx)?, slice(w, lw)?);
        let mut y = vec![0f32; x.len()];
        for_rows(&mut y, w.len(), |i, y| {
            let x = &x[i * w.len()..(i + 1) * w.len()];
            let r = self.inverse_rms(x);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * r * w;
            }
        });
        Ok(output(y, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xs, ws, gs) = (View::new(x)?, View::new(w)?, View::new(&grad)?);
        let dx = tensor(self.input_gradient(&xs, &ws, &gs), x.shape().clone())?;
        let dw = w.track_op().then(|| tensor(self.weight_gradient(&xs, &gs, ws.len()), w.shape().clone()));
        Ok((Some(dx), dw.transpose()?))
    }
}
