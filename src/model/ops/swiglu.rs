//! SwiGLU (Shazeer 2020): `silu(gate) * up`.

use super::kernels::{RowKernel, for_rows, sigmoid};
use super::{View, composed, is_fused, output, slice, tensor};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// Elementwise over two tensors of one shape `[T, d]`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if is_fused(gate) { gate.apply_op2(up, SwiGlu) } else { composed::swiglu(gate, up) }
}

/// Values handled as one row.
const CHUNK: usize = 1024;

struct SwiGlu;

/// `y = silu(gate) * up`.
struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
}

impl RowKernel for Forward<'_> {
    #[inline(always)]
    fn row(&self, i: usize, y: &mut [f32]) {
        let (gate, up) = (&self.gate[i * CHUNK..], &self.up[i * CHUNK..]);
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(*g) * u;
        }
    }
}

/// `d gate = grad * up * s * (1 + gate * (1 - s))`, with `s = sigmoid(gate)`.
struct GateGradient<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    grad: &'a [f32],
}

impl RowKernel for GateGradient<'_> {
    #[inline(always)]
    fn row(&self, i: usize, d: &mut [f32]) {
        let (gate, up, grad) = (&self.gate[i * CHUNK..], &self.up[i * CHUNK..], &self.grad[i * CHUNK..]);
        for (((d, g), u), dy) in d.iter_mut().zip(gate).zip(up).zip(grad) {
            let s = sigmoid(*g);
            *d = dy * u * s * (1.0 + g * (1.0 - s));
        }
    }
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, lg: &Layout, up: &CpuStorage, lu: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(output(
            run(&Forward { gate: slice(gate, lg)?, up: slice(up, lu)? }, lg.shape().elem_count()),
            lg.shape().clone(),
        ))
    }

    /// `d up = grad * silu(gate)` is the forward rule again.
    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (gs, us, ds) = (View::new(gate)?, View::new(up)?, View::new(&grad)?);
        let d_gate = run(&GateGradient { gate: &gs, up: &us, grad: &ds }, gs.len());
        let d_up = run(&Forward { gate: &gs, up: &ds }, gs.len());
        Ok((Some(tensor(d_gate, gate.shape().clone())?), Some(tensor(d_up, up.shape().clone())?)))
    }
}

/// Runs an elementwise kernel over `len` values; the last row may be short.
fn run(kernel: &impl RowKernel, len: usize) -> Vec<f32> {
    let mut y = vec![0f32; len.next_multiple_of(CHUNK)];
    for_rows(&mut y, CHUNK, kernel);
    y.truncate(len);
    y
}
