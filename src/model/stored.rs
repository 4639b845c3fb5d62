//! A tensor as its file stores it: bytes in one of the encodings of safetensors and GGUF, decoded whole or row by row.
//!
//! Knows no files: see `weights` for where the bytes come from.

use super::ModelError;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use std::borrow::Cow;
use std::ops::Range;

/// A supply of stored tensors under their Hugging Face names.
pub(super) trait Source: Send + Sync {
    /// The tensor of this name, or an error that names it.
    fn stored(&self, name: &str) -> Result<Stored<'_>, ModelError>;
}

/// One tensor as it is stored. Rows are contiguous: a row is whole blocks of its encoding.
#[derive(Debug, Clone)]
pub(super) struct Stored<'a> {
    pub(super) encoding: GgmlDType,
    /// Outermost first, as in Hugging Face checkpoints: `[out, in]` of a matrix.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Cow<'a, [u8]>,
    /// The bytes are a file in memory: pages that are let go can be read again.
    pub(super) mapped: bool,
}

impl Stored<'_> {
    /// Values of a row: the last dimension.
    pub(super) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.width() / self.encoding.block_size() * self.encoding.type_size()
    }

    /// The bytes of some rows.
    pub(super) fn row_range(&self, rows: Range<usize>) -> &[u8] {
        &self.bytes[rows.start * self.row_bytes()..rows.end * self.row_bytes()]
    }

    /// Lets go of the memory behind some rows that are not needed again soon.
    pub(super) fn release(&self, rows: Range<usize>) {
        if let (true, Cow::Borrowed(_)) = (self.mapped, &self.bytes) {
            release_pages(self.row_range(rows));
        }
    }

    /// The values of some rows.
    pub(super) fn decode(&self, rows: Range<usize>) -> Result<Vec<f32>, ModelError> {
        let bytes = self.row_range(rows.clone());
        Ok(match self.encoding {
            GgmlDType::F32 => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            GgmlDType::F16 => bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(),
            GgmlDType::BF16 => bytes.as_chunks().0.iter().map(|value| bf16::from_le_bytes(*value).to_f32()).collect(),
            blocks => {
                let shape = vec![rows.len(), self.width()];
                let quantised = qtensor_from_ggml(blocks, bytes, shape, &Device::Cpu)?;
                quantised.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?
            }
        })
    }

    /// The whole tensor, decoded, as a list.
    pub(super) fn values(&self) -> Result<Vec<f32>, ModelError> {
        self.decode(0..self.shape.iter().product::<usize>() / self.width().max(1))
    }

    /// The whole tensor, decoded.
    pub(super) fn tensor(&self, dtype: DType, device: &Device) -> Result<Tensor, ModelError> {
        let values = Tensor::from_vec(self.values()?, self.shape.as_slice(), &Device::Cpu)?;
        Ok(values.to_dtype(dtype)?.to_device(device)?)
    }
}

/// Drops the whole pages among these bytes of a mapped file from memory.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "tells the kernel which pages of a mapped file are not needed")]
fn release_pages(bytes: &[u8]) {
    let page = rustix::param::page_size();
    let start = bytes.as_ptr().align_offset(page);
    let len = bytes.len().saturating_sub(start) / page * page;
    if len > 0 {
        let pages = bytes[start..].as_ptr().cast_mut().cast();
        // SAFETY: the pages lie inside a read-only mapping of a file; when they are read again, they come from the file.
        // A refusal changes nothing.
        let _ = unsafe { rustix::mm::madvise(pages, len, rustix::mm::Advice::LinuxDontNeed) };
    }
}

#[cfg(not(target_os = "linux"))]
fn release_pages(_: &[u8]) {}
