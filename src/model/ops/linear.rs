//! The linear layer `y = x Wᵀ`.
//!
//! Serving uses a kernel whose result for a row never depends on the other rows; training uses the fastest matrix
//! product. A frozen weight passes the gradient on to its input and gets none itself.

use super::kernels::linear_rows;
use super::{View, composed, is_fused, tensor};
use crate::model::weight::Weight;
use candle_core::{Result, Tensor};

/// `x: [T, in]`, `w: [out, in]` → `[T, out]`. Of a matrix in parts, the products are joined.
pub fn linear(x: &Tensor, w: &Weight) -> Result<Tensor> {
    joined(x, &w.parts(0..w.dims()[0])?)
}

/// `x Wᵀ` of a matrix whose rows come in parts.
pub(super) fn joined(x: &Tensor, parts: &[Tensor]) -> Result<Tensor> {
    let products = parts.iter().map(|part| project(x, part)).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&products, 1)
}

/// `x Wᵀ` for values in memory.
pub fn project(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    if !is_fused(x) {
        return composed::linear(x, &w.detach());
    }
    let x = x.contiguous()?;
    let ((rows, width), outputs) = (x.dims2()?, w.dim(0)?);
    tensor(linear_rows(&View::new(&x)?, &View::new(w)?, width), (rows, outputs))
}

/// The same by the fastest product there is.
pub fn product(x: &Tensor, w: &Weight) -> Result<Tensor> {
    composed::linear(x, &w.expand()?.detach())
}

/// Gradients of `x` and, if it is trained, of `w`: `dx = dy W`, `dW = dyᵀ x`.
pub fn product_backward(x: &Tensor, w: &Weight, grad: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let dx = grad.matmul(&w.expand()?.detach())?;
    let dw = w.trained().map(|_| grad.t()?.matmul(x)).transpose()?;
    Ok((dx, dw))
}
