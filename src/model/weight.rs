//! A matrix of the decoder as it is held in memory: values to compute with, or fewer bytes that are expanded for each product.
//!
//! Packed matrices are frozen: training passes gradients through them and keeps none. Knows no files and no products.

use super::ModelError;
use super::gguf::Encoding;
use super::stored::Stored;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Values that one task decodes or encodes.
const TASK_VALUES: usize = 1 << 18;

/// A matrix `[out, in]`.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Values of the type that is computed with; a variable is trained.
    Dense(Tensor),
    /// Stored bytes, frozen; expanded to `dtype` whenever they are read.
    Packed { values: Arc<QTensor>, dtype: DType },
}

impl Weight {
    /// Holds a stored matrix in `encoding`, or in the next finer one where its rows are not whole blocks; bytes that are
    /// in it already stay as they are.
    pub(super) fn pack(
        stored: &Stored<'_>,
        encoding: Encoding,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let encoding = encoding.of_rows(stored.width());
        let bytes = match stored.encoding == encoding {
            true => Cow::Borrowed(&*stored.bytes),
            false => Cow::Owned(encode(stored, encoding)?),
        };
        let values = QTensor::new(QStorage::from_data(bytes, device, encoding)?, stored.shape.as_slice())?;
        Ok(Self::Packed { values: Arc::new(values), dtype })
    }

    /// Whether gradients of the values themselves are wanted.
    pub(super) fn is_trained(&self) -> bool {
        matches!(self, Self::Dense(tensor) if tensor.track_op())
    }

    /// The values, for a product. Of packed ones a copy, to be dropped soon.
    pub(super) fn expand(&self) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.clone()),
            Self::Packed { values, .. } => self.rows(0..values.shape().dims()[0]),
        }
    }

    /// The values of some rows, `[rows, in]`.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => tensor.narrow(0, rows.start, rows.len()),
            Self::Packed { values, dtype } => match values.device() {
                Device::Cpu => decode(values, rows)?.to_dtype(*dtype),
                device => values.dequantize(&device)?.narrow(0, rows.start, rows.len())?.to_dtype(*dtype),
            },
        }
    }

    /// The rows of some ids, `[ids, in]`.
    pub(super) fn select(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Dense(table) => table.index_select(&Tensor::new(ids, table.device())?, 0),
            Self::Packed { values, dtype } => values.embedding(&Tensor::new(ids, &values.device())?)?.to_dtype(*dtype),
        }
    }

    /// `[out, in]`.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Packed { values, .. } => values.shape().dims(),
        }
    }

    /// The type that products with it are computed in.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(tensor) => tensor.dtype(),
            Self::Packed { dtype, .. } => *dtype,
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(tensor) => tensor.device().clone(),
            Self::Packed { values, .. } => values.device(),
        }
    }
}

/// Rows that one task handles.
fn rows_per_task(width: usize) -> usize {
    (TASK_VALUES / width.max(1)).max(1)
}

/// The stored matrix's values in another encoding.
fn encode(stored: &Stored<'_>, encoding: GgmlDType) -> Result<Vec<u8>, ModelError> {
    let (rows, width) = (stored.shape[0], stored.width());
    let step = rows_per_task(width);
    let part = |start: usize| {
        let range = start..(start + step).min(rows);
        let shape = (range.len(), width);
        let values = Tensor::from_vec(stored.decode(range)?, shape, &Device::Cpu)?;
        Ok(QTensor::quantize(&values, encoding)?.data()?.into_owned())
    };
    let parts: Vec<_> = (0..rows).into_par_iter().step_by(step).map(part).collect::<Result<_, ModelError>>()?;
    Ok(parts.concat())
}

/// Some rows in f32.
fn decode(values: &QTensor, rows: Range<usize>) -> Result<Tensor> {
    let bytes = values.data()?;
    let stored = Stored { encoding: values.dtype(), shape: values.shape().dims().to_vec(), bytes, mapped: false };
    let (width, step) = (stored.width(), rows_per_task(stored.width()));
    let mut found = vec![0f32; rows.len() * width];
    found.par_chunks_mut(step * width).enumerate().try_for_each(|(task, part)| {
        let start = rows.start + task * step;
        let decoded = stored.decode(start..start + part.len() / width).map_err(candle_core::Error::wrap)?;
        part.copy_from_slice(&decoded);
        Ok::<_, candle_core::Error>(())
    })?;
    Tensor::from_vec(found, (rows.len(), width), &Device::Cpu)
}
