//! SwiGLU (Shazeer 2020): `silu(gate) * up`.

use super::kernels::{for_rows, sigmoid};
use super::{View, composed, is_fused, output, slice, tensor};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// Elementwise over two tensors of one shape `[T, d]`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if is_fused(gate) { gate.apply_op2(up, SwiGlu) } else { composed::swiglu(gate, up) }
}

/// Values handled as one row.
const CHUNK: usize = 1024;

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, lg: &Layout, up: &CpuStorage, lu: &Layout) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(gate, lg)?, slice(up, lu)?);
        let mut y = up.to_vec();
        zip_chunks(&mut y, gate, |y, gate| {
            for (y, g) in y.iter_mut().zip(gate) {
                *y *= g * sigmoid(*g);
            }
        });
        Ok(output(y, lg.shape().clone()))
    }

    /// `d gate = grad * up * s * (1 + gate * (1 - s))` and `d up = grad * gate * s`, with `s = sigmoid(gate)`.
    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (gs, us, ds) = (View::new(gate)?, View::new(up)?, View::new(&grad)?);
        let (mut d_gate, mut d_up) = (us.to_vec(), ds.to_vec());
        zip_chunks(&mut d_up, &gs, |d, gate| d.iter_mut().zip(gate).for_each(|(d, g)| *d *= g * sigmoid(*g)));
        zip_chunks(&mut d_gate, &gs, |d, gate| {
            for (d, g) in d.iter_mut().zip(gate) {
                let s = sigmoid(*g);
                *d *= s * (1.0 + g * (1.0 - s));
            }
        });
        zip_chunks(&mut d_gate, &ds, |d, grad| d.iter_mut().zip(grad).for_each(|(d, g)| *d *= g));
        Ok((Some(tensor(d_gate, gate.shape().clone())?), Some(tensor(d_up, up.shape().clone())?)))
    }
}

/// Runs `f` on matching chunks of `y` and `x`.
fn zip_chunks(y: &mut [f32], x: &[f32], f: impl Fn(&mut [f32], &[f32]) + Sync) {
    let body = y.len() / CHUNK * CHUNK;
    let (y_body, y_tail) = y.split_at_mut(body);
    if !y_body.is_empty() {
        for_rows(y_body, CHUNK, |i, y| f(y, &x[i * CHUNK..(i + 1) * CHUNK]));
    }
    f(y_tail, &x[body..]);
}
