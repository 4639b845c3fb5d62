//! Every operation of the decoder, with its backward pass beside it: fused kernels on the CPU, candle ops elsewhere.
//!
//! The only module that names fused kernels. Nothing here is recorded on candle's tape, whose own backward passes compute
//! gradients of frozen weights, zero and add every sum, and cut gradients at its fused norms, softmax and rope without a word.
//! On devices other than the CPU the [`composed`] versions run; where their backward pass is not a formula, candle finds it
//! on a tape of that one operation. Tests compare the two, and run these in f64, for which the CPU has no kernels either.

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

pub use adapted::{AdaptedGradients, Factors, adapted, adapted_backward, adapted_norms, row_norms};
pub use attention::{SavedTensors, causal_attention, causal_attention_backward};
pub use dropout::Dropout;
pub use linear::{linear, product, product_backward, project};
pub use loss::{HeadGradients, HeadLoss, head_loss};
pub use norm::{rms_norm, rms_norm_backward};
pub use paged::{PagedLayout, paged_attention};
pub use rope::{Rotary, rope, rope_divisors};
pub use swiglu::{swiglu, swiglu_backward};

use candle_core::{CpuStorage, DType, Result, Shape, Storage, Tensor, bail};
use parking_lot::RwLockReadGuard;
use std::ops::Deref;

/// Whether the fused CPU path applies.
fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The type that sums over many values are taken in: f32, or that of the values where it is wider.
pub(super) fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { dtype } else { DType::F32 }
}

/// The values of a contiguous `f32` CPU tensor, without a copy.
pub(super) struct View<'a> {
    guard: RwLockReadGuard<'a, Storage>,
    start: usize,
    len: usize,
}

impl<'a> View<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Result<Self> {
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

/// A new CPU tensor from values.
fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &candle_core::Device::Cpu)
}
