//! Tensors on their way from file to file, one in memory at a time: as bytes with a type and a shape.
//!
//! [`read`] takes them out of a model directory, [`mod@write`] puts them into one; PyTorch's files are [`crate::pickle`]'s. Knows no
//! models: names are only names.

pub mod read;
pub mod write;

pub use read::Weights;

use crate::error::{Result, TrainError};
use candle_core::{DType, Device, Tensor};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use safetensors::Dtype;

/// What a tensor's bytes mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub dtype: Dtype,
    /// Outermost first, as in Hugging Face checkpoints: `[out, in]` of a matrix.
    pub shape: Vec<usize>,
}

impl Layout {
    /// Number of values; nothing where it is too large to count.
    pub fn values(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
    }

    /// Length in bytes; nothing where it is too large to count, or does not end with a byte.
    pub fn bytes(&self) -> Option<usize> {
        let bits = self.values()?.checked_mul(self.dtype.bitsize())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether the values are floating-point numbers that can be computed with.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    }
}

/// A tensor in memory, little-endian and contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub layout: Layout,
    pub bytes: Vec<u8>,
}

impl Raw {
    /// The bytes of a tensor on the CPU.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let layout = Layout { dtype: tensor.dtype().into(), shape: tensor.dims().to_vec() };
        let mut bytes = Vec::with_capacity(layout.bytes().unwrap_or_default());
        tensor.write_bytes(&mut bytes)?;
        Ok(Self { layout, bytes })
    }

    /// The same for computing.
    ///
    /// # Errors
    /// When the tensor library has no such type.
    pub fn tensor(&self) -> Result<Tensor> {
        let dtype = DType::try_from(self.layout.dtype)?;
        Ok(Tensor::from_raw_buffer(&self.bytes, dtype, &self.layout.shape, &Device::Cpu)?)
    }

    /// The bytes with the values in `dtype`; as they are where that is their type, or where they are no floats.
    ///
    /// # Errors
    /// When a value is not finite, or too large for `dtype`.
    pub fn into_bytes(self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        match self.layout.dtype == dtype || !self.layout.is_float() {
            true => Ok(self.bytes),
            false => cast(name, &self.tensor()?, dtype),
        }
    }
}

/// The bytes of a tensor's values in `dtype`.
///
/// # Errors
/// When a value is not finite, or too large for `dtype`.
pub fn cast(name: &str, tensor: &Tensor, dtype: Dtype) -> Result<Vec<u8>> {
    let tensor = tensor.to_dtype(DType::try_from(dtype)?)?;
    match is_finite(&tensor)? {
        true => Ok(Raw::of(&tensor)?.bytes),
        false => Err(TrainError::Data(format!(
            "not written: `{name}` has a value that is not finite as {dtype}; choose another --dtype"
        ))),
    }
}

/// Whether all values are.
///
/// # Errors
/// When the tensor library fails.
pub fn is_finite(tensor: &Tensor) -> Result<bool> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|value| value.is_finite()))
}

/// A tensor that a file is to hold.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    pub layout: Layout,
}

impl Plan {
    /// A tensor of this name and layout.
    pub fn new(name: impl Into<String>, layout: Layout) -> Self {
        Self { name: name.into(), layout }
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// When it is too large to count.
    pub fn bytes(&self) -> Result<usize> {
        let wrong = || TrainError::Data(format!("`{}` cannot have the shape {:?}", self.name, self.layout.shape));
        self.layout.bytes().ok_or_else(wrong)
    }
}

/// Gives the bytes of a planned tensor when its turn to be written comes.
pub type Values<'a> = dyn FnMut(&Plan) -> Result<Vec<u8>> + 'a;

/// Asks for the bytes of a planned tensor and checks that there are as many as planned.
pub(crate) fn planned_bytes(plan: &Plan, values: &mut Values<'_>) -> Result<Vec<u8>> {
    let (bytes, expected) = (values(plan)?, plan.bytes()?);
    match bytes.len() == expected {
        true => Ok(bytes),
        false => Err(TrainError::Data(format!("`{}` has {} bytes, expected {expected}", plan.name, bytes.len()))),
    }
}

/// A progress bar over the bytes of all plans; it shows only on a terminal, and goes when it is dropped.
pub(crate) fn progress_bar(plans: &[Plan]) -> Result<ProgressBar> {
    let total = plans.iter().map(Plan::bytes).sum::<Result<usize>>()?;
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    let bar = ProgressBar::new(total as u64).with_finish(ProgressFinish::AndClear);
    Ok(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

#[cfg(test)]
mod tests;
