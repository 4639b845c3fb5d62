//! Every operation of the decoder: a fused CPU forward with its own backward, plain candle ops elsewhere.
//!
//! The only module that names fused kernels. Why own backwards: candle's fused norms, softmax and rope cut gradients
//! without a word, and its matmul also computes the gradient of frozen weights. On devices other than the CPU the
//! [`composed`] versions run, which candle differentiates itself; tests compare the two.

mod adapted;
mod attention;
pub mod composed;
mod dropout;
pub(super) mod kernels;
mod linear;
mod loss;
pub(super) mod norm;
mod paged;
mod rope;
mod swiglu;

pub use adapted::{Factors, adapted, adapted_norms, row_norms};
pub use attention::causal_attention;
pub use dropout::Dropout;
pub use linear::{linear, project};
pub use loss::{HeadGradients, HeadLoss, head_loss};
pub use norm::rms_norm;
pub use paged::{PagedLayout, paged_attention};
pub use rope::{Rotary, rope, rope_divisors};
pub use swiglu::swiglu;

use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};
use parking_lot::RwLockReadGuard;
use std::ops::Deref;

/// Whether the fused CPU path applies.
fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The values of a contiguous `f32` CPU tensor, without a copy.
struct View<'a> {
    guard: RwLockReadGuard<'a, Storage>,
    start: usize,
    len: usize,
}

impl<'a> View<'a> {
    fn new(tensor: &'a Tensor) -> Result<Self> {
        let (guard, layout) = tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("tensor is not contiguous") };
        match &*guard {
            Storage::Cpu(CpuStorage::F32(_)) => {}
            _ => bail!("tensor is not f32 on the CPU"),
        }
        Ok(Self { guard, start, len: end - start })
    }
}

impl Deref for View<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.start..self.start + self.len],
            _ => &[],
        }
    }
}

/// The values that a custom op receives.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("op input is not contiguous"),
    }
}

/// What a custom op gives back.
fn output(data: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(data), shape.into())
}

/// A new CPU tensor from values.
fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &candle_core::Device::Cpu)
}
