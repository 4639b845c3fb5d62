//! The linear layer `y = x Wᵀ`.
//!
//! Serving uses a kernel whose result for a row never depends on the other rows; training uses the fastest matrix
//! product. A frozen weight passes the gradient on to its input and gets none itself.

use super::kernels::linear_rows;
use super::{composed, is_fused, output, slice};
use crate::model::weight::Weight;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};

/// `x: [T, in]`, `w: [out, in]` → `[T, out]`.
pub fn linear(x: &Tensor, w: &Weight) -> Result<Tensor> {
    match w {
        Weight::Dense(w) if w.track_op() || !x.track_op() => project(x, w),
        _ if x.track_op() => x.contiguous()?.apply_op1(Frozen(w.clone())),
        _ => project(x, &w.expand()?),
    }
}

/// `x Wᵀ` for values in memory, which are trained if they are variables.
pub fn project(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    match x.track_op() || w.track_op() {
        true => x.contiguous()?.apply_op2(w, Trained),
        false if is_fused(x) => x.contiguous()?.apply_op2_no_bwd(w, &Served),
        false => composed::linear(x, w),
    }
}

/// `[T, out]` from the layouts of `x` and `w`.
fn shape(x: &Layout, w: &Layout) -> Result<(usize, usize, usize)> {
    let ((rows, width), (outputs, _)) = (x.shape().dims2()?, w.shape().dims2()?);
    Ok((rows, outputs, width))
}

/// The fastest product there is.
fn product<S: BackendStorage>(x: &S, lx: &Layout, w: &S, lw: &Layout) -> Result<(S, Shape)> {
    let (rows, outputs, width) = shape(lx, lw)?;
    let y = x.matmul(w, (1, rows, outputs, width), lx, &lw.transpose(0, 1)?)?;
    Ok((y, (rows, outputs).into()))
}

struct Served;

impl CustomOp2 for Served {
    fn name(&self) -> &'static str {
        "linear-served"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, outputs, width) = shape(lx, lw)?;
        Ok(output(linear_rows(slice(x, lx)?, slice(w, lw)?, width), (rows, outputs)))
    }
}

struct Trained;

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "linear-trained"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        product(x, lx, w, lw)
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, w: &CudaStorage, lw: &Layout) -> Result<(CudaStorage, Shape)> {
        product(x, lx, w, lw)
    }

    /// `dx = dy W`, `dW = dyᵀ x`; each only if somebody wants it.
    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?.detach();
        let dx = x.track_op().then(|| grad.matmul(&w.detach())).transpose()?;
        let dw = w.track_op().then(|| grad.t()?.matmul(&x.detach())).transpose()?;
        Ok((dx, dw))
    }
}

/// The weight is no argument of the tape: packed, it exists in full only while a product reads it.
struct Frozen(Weight);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "linear-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = self.0.expand()?;
        let (storage, lw) = w.storage_and_layout();
        match &*storage {
            Storage::Cpu(w) => product(x, lx, w, lw),
            _ => bail!("input and weight lie on different devices"),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        let w = self.0.expand()?;
        let (storage, lw) = w.storage_and_layout();
        match &*storage {
            Storage::Cuda(w) => product(x, lx, w, lw),
            _ => bail!("input and weight lie on different devices"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.contiguous()?.detach().matmul(&self.0.expand()?).map(Some)
    }
}
