//! A LoRA adapter in panels: what serving on the CPU reads of it.

use super::packed::{Format, Matrix};
use super::simd::LANES;
use crate::model::lora::{AdapterBatch, AdapterWeights, LoraPair, Packing, Site};
use candle_core::{DType, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// The two factors of one adapted layer.
#[derive(Debug)]
pub(super) struct PackedPair {
    /// `[rank, in]`
    pub(super) a: Matrix,
    /// `[out, rank]`
    pub(super) b: Matrix,
    pub(super) scale: f32,
}

/// All factors of one adapter, indexed by [`Site::index`].
#[derive(Debug)]
pub struct PackedAdapter {
    pairs: Vec<Option<PackedPair>>,
}

/// The rows of a pass that use one adapter.
pub(super) struct Group<'a> {
    pub(super) rows: Range<usize>,
    pub(super) adapter: &'a PackedAdapter,
}

impl<'a> Group<'a> {
    pub(super) fn all(batch: &'a AdapterBatch) -> Result<Vec<Self>> {
        let group = |(rows, weights): &'a (Range<usize>, Arc<AdapterWeights>)| {
            Ok(Self { rows: rows.clone(), adapter: weights.packed()? })
        };
        batch.groups().iter().map(group).collect()
    }
}

impl PackedAdapter {
    pub(in crate::model) fn new(weights: &AdapterWeights, packing: Packing) -> Result<Self> {
        let format = match packing {
            Packing::Full => Format::F32,
            Packing::Halves => Format::F16,
        };
        let pairs = weights.slots().map(|pair| pair.map(|pair| PackedPair::new(pair, format)).transpose());
        Ok(Self { pairs: pairs.collect::<Result<_>>()? })
    }

    /// Memory that a factor `[rows, columns]` takes: panels are sixteen rows high.
    pub(in crate::model) fn factor_bytes(shape: &[usize], packing: Packing) -> usize {
        let width = match packing {
            Packing::Full => size_of::<f32>(),
            Packing::Halves => size_of::<u16>(),
        };
        let rows = shape.first().map_or(1, |rows| rows.next_multiple_of(LANES));
        rows * shape.iter().skip(1).product::<usize>() * width
    }

    /// Memory of the factors, in bytes.
    pub(in crate::model) fn bytes(&self) -> usize {
        self.pairs.iter().flatten().map(|pair| pair.a.bytes() + pair.b.bytes()).sum()
    }

    /// The factors of one site, if it is adapted.
    pub(super) fn get(&self, site: Site) -> Option<&PackedPair> {
        self.pairs.get(site.index()).and_then(Option::as_ref)
    }
}

impl PackedPair {
    fn new(pair: &LoraPair, format: Format) -> Result<Self> {
        Ok(Self { a: pack(&pair.a, format)?, b: pack(&pair.b, format)?, scale: pair.scale as f32 })
    }
}

fn pack(tensor: &Tensor, format: Format) -> Result<Matrix> {
    let (outputs, inputs) = tensor.dims2()?;
    let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let mut matrix = Matrix::zeros(outputs, inputs, format);
    for (mut panel, rows) in matrix.panels_mut().into_iter().zip(values.chunks(LANES * inputs)) {
        panel.fill_floats(rows, inputs)?;
    }
    Ok(matrix)
}
