//! A matrix of the decoder as it is held in memory: values to compute with, or fewer bytes that are expanded for each product.
//!
//! Packed matrices are frozen: training passes gradients through them and keeps none. Knows no files and no products.

use super::ModelError;
use super::gguf::Encoding;
use super::stored::Stored;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor, bail};
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
    /// Another matrix with rows of its own from `first` on, in place of the other's or behind them; only they may be variables.
    Extended { base: Box<Self>, first: usize, rows: Tensor, shape: [usize; 2] },
}

/// A selected row, and the table that it is in.
pub(super) struct Elsewhere<'a> {
    /// Its place among the selected ones.
    pub(super) place: usize,
    pub(super) table: &'a Tensor,
    /// Its number in that table.
    pub(super) index: usize,
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

    /// This matrix with other rows from `first` on.
    pub(super) fn extended(self, first: usize, rows: Tensor) -> Result<Self> {
        let (count, width) = rows.dims2()?;
        let (outputs, inputs) = (self.dims()[0], self.dims()[1]);
        if inputs != width || first > outputs {
            bail!("rows of {width} from {first} on cannot extend a matrix of {outputs} rows of {inputs}")
        }
        let shape = [outputs.max(first + count), width];
        Ok(Self::Extended { base: Box::new(self), first, rows, shape })
    }

    /// The rows whose gradients are wanted: the first one's number, and they themselves.
    pub(super) fn trained(&self) -> Option<(usize, &Tensor)> {
        match self {
            Self::Dense(tensor) if tensor.track_op() => Some((0, tensor)),
            Self::Extended { first, rows, .. } if rows.track_op() => Some((*first, rows)),
            _ => None,
        }
    }

    /// The values, for a product. Of packed ones a copy, to be dropped soon.
    pub(super) fn expand(&self) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.clone()),
            Self::Packed { .. } | Self::Extended { .. } => self.rows(0..self.dims()[0]),
        }
    }

    /// The values of some rows, `[rows, in]`.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Tensor> {
        Tensor::cat(&self.parts(rows)?, 0)
    }

    /// The same in consecutive parts, for products that are joined: of values no copy.
    pub(super) fn parts(&self, rows: Range<usize>) -> Result<Vec<Tensor>> {
        match self {
            Self::Dense(tensor) => Ok(vec![tensor.narrow(0, rows.start, rows.len())?]),
            Self::Packed { values, dtype } => Ok(vec![match values.device() {
                Device::Cpu => decode(values, rows)?.to_dtype(*dtype)?,
                device => values.dequantize(&device)?.narrow(0, rows.start, rows.len())?.to_dtype(*dtype)?,
            }]),
            Self::Extended { base, first, rows: own, .. } => {
                let end = first + own.dims()[0];
                let before = rows.start..rows.end.min(*first);
                let within = rows.start.max(*first)..rows.end.min(end);
                let behind = rows.start.max(end)..rows.end;
                let of_base = |rows: Range<usize>| (!rows.is_empty()).then(|| base.rows(rows)).transpose();
                let of_own = || own.narrow(0, within.start - first, within.len())?.to_dtype(base.dtype());
                let own = (!within.is_empty()).then(of_own).transpose()?;
                Ok([of_base(before)?, own, of_base(behind)?].into_iter().flatten().collect())
            }
        }
    }

    /// The rows of some ids, `[ids, in]`.
    pub(super) fn select(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Dense(table) => table.index_select(&Tensor::new(ids, table.device())?, 0),
            Self::Packed { values, dtype } => values.embedding(&Tensor::new(ids, &values.device())?)?.to_dtype(*dtype),
            Self::Extended { base, first, rows, .. } => base.select_beside(ids, &among(ids, *first, rows)),
        }
    }

    /// Which of some ids are of trained rows.
    pub(super) fn trained_among(&self, ids: &[u32]) -> Vec<Elsewhere<'_>> {
        self.trained().map_or_else(Vec::new, |(first, rows)| among(ids, first, rows))
    }

    /// As [`Self::select`], but with rows of other tables at some places, whatever `ids` says there.
    pub(super) fn select_beside(&self, ids: &[u32], elsewhere: &[Elsewhere<'_>]) -> Result<Tensor> {
        let mut own = ids.to_vec();
        // A row that every table has; it is not used.
        elsewhere.iter().for_each(|other| own[other.place] = 0);
        let mut parts = vec![self.select(&own)?];
        let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
        let (mut last, mut start, mut end) = (None, 0, ids.len());
        for Elsewhere { place, table, index } in elsewhere {
            if last != Some(table.id()) {
                (last, start, end) = (Some(table.id()), end, end + table.dims()[0]);
                parts.push(table.to_dtype(self.dtype())?);
            }
            rows[*place] = (start + index) as u32;
        }
        match parts.as_slice() {
            [all] => Ok(all.clone()),
            parts => Tensor::cat(parts, 0)?.index_select(&Tensor::new(rows, &self.device())?, 0),
        }
    }

    /// `[out, in]`.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Packed { values, .. } => values.shape().dims(),
            Self::Extended { shape, .. } => shape,
        }
    }

    /// The type that products with it are computed in.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(tensor) => tensor.dtype(),
            Self::Packed { dtype, .. } => *dtype,
            Self::Extended { base, .. } => base.dtype(),
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(tensor) => tensor.device().clone(),
            Self::Packed { values, .. } => values.device(),
            Self::Extended { base, .. } => base.device(),
        }
    }
}

/// Which of some ids are of a table whose rows are numbered from `first` on.
fn among<'a>(ids: &[u32], first: usize, table: &'a Tensor) -> Vec<Elsewhere<'a>> {
    let index = |id: &u32| (*id as usize).checked_sub(first).filter(|index| *index < table.dims()[0]);
    let places = ids.iter().map(index).enumerate();
    places.filter_map(|(place, index)| Some(Elsewhere { place, table, index: index? })).collect()
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
