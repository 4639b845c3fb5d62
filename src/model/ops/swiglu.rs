//! SwiGLU (Shazeer 2020): `silu(gate) * up`.

use super::kernels::{RowKernel, for_rows, sigmoid};
use super::{View, composed, is_fused, tensor};
use candle_core::{Result, Tensor};

/// Values handled as one row.
const CHUNK: usize = 1024;

/// Elementwise over two tensors of one shape `[T, d]`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !is_fused(gate) {
        return composed::swiglu(gate, up);
    }
    let (gs, us) = (View::new(gate)?, View::new(up)?);
    tensor(run(&Forward { gate: &gs, up: &us }, gs.len()), gate.shape().clone())
}

/// Gradients of `gate` and `up` from that of the output.
pub fn swiglu_backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<[Tensor; 2]> {
    if !is_fused(gate) {
        return composed::gradients([gate, up], grad, |[gate, up]| composed::swiglu(gate, up));
    }
    let grad = grad.contiguous()?;
    let (gs, us, ds) = (View::new(gate)?, View::new(up)?, View::new(&grad)?);
    let d_gate = run(&GateGradient { gate: &gs, up: &us, grad: &ds }, gs.len());
    // `d up = grad * silu(gate)` is the forward rule again.
    let d_up = run(&Forward { gate: &gs, up: &ds }, gs.len());
    Ok([tensor(d_gate, gate.shape().clone())?, tensor(d_up, up.shape().clone())?])
}

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

/// Runs an elementwise kernel over `len` values; the last row may be short.
fn run(kernel: &impl RowKernel, len: usize) -> Vec<f32> {
    let mut y = vec![0f32; len.next_multiple_of(CHUNK)];
    for_rows(&mut y, CHUNK, kernel);
    y.truncate(len);
    y
}
