//! A LoRA adapter in panels: what serving on the CPU reads of it.

use super::packed::{Format, Matrix};
use super::simd::LANES;
use crate::model::lora::{AdapterBatch, AdapterWeights, LoraPair, Magnitude, Packing, Site};
use crate::model::ops::View;
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
    /// On the layer's output, base product included (DoRA), `[out]`.
    pub(super) ratio: Option<Vec<f32>>,
}

/// All factors of one adapter, indexed by [`Site::index`].
#[derive(Debug)]
pub struct PackedAdapter {
    packing: Packing,
    pairs: Vec<Option<PackedPair>>,
}

/// The rows of a pass that use one adapter.
pub(super) struct Group<'a> {
    pub(super) rows: Range<usize>,
    pub(super) adapter: &'a PackedAdapter,
}

impl<'a> Group<'a> {
    /// The groups of a batch, for weights beside which adapters are held in this way.
    pub(super) fn all(batch: &'a AdapterBatch, packing: Packing) -> Result<Vec<Self>> {
        let group = |(rows, weights): &'a (Range<usize>, Arc<AdapterWeights>)| {
            let adapter = weights.packed()?;
            if adapter.packing == Packing::Compact && packing != Packing::Compact {
                candle_core::bail!("the adapter was packed for quantised weights")
            }
            Ok(Self { rows: rows.clone(), adapter })
        };
        batch.groups().iter().map(group).collect()
    }
}

impl PackedAdapter {
    pub(in crate::model) fn new(weights: &AdapterWeights, packing: Packing) -> Result<Self> {
        let pairs = weights.slots().map(|pair| pair.map(|pair| PackedPair::new(pair, packing)).transpose());
        Ok(Self { packing, pairs: pairs.collect::<Result<_>>()? })
    }

    /// Memory that factors `[rank, in]` and `[out, rank]` take.
    pub(in crate::model) fn pair_bytes(a: &[usize], b: &[usize], packing: Packing) -> usize {
        let bytes = |shape: &[usize], format| match *shape {
            [outputs, inputs] => Matrix::bytes_of(outputs, inputs, format),
            _ => 0,
        };
        let (of_a, of_b) = formats(packing);
        bytes(a, of_a) + bytes(b, of_b)
    }

    /// Memory of the factors, in bytes.
    pub(in crate::model) fn bytes(&self) -> usize {
        let ratio = |pair: &PackedPair| pair.ratio.as_ref().map_or(0, |ratio| ratio.len() * size_of::<f32>());
        self.pairs.iter().flatten().map(|pair| pair.a.bytes() + pair.b.bytes() + ratio(pair)).sum()
    }

    /// The factors of one site, if it is adapted.
    pub(super) fn get(&self, site: Site) -> Option<&PackedPair> {
        self.pairs.get(site.index()).and_then(Option::as_ref)
    }
}

/// How A and B are held.
fn formats(packing: Packing) -> (Format, Format) {
    match packing {
        Packing::Full => (Format::F32, Format::F32),
        Packing::Halves => (Format::F16, Format::F16),
        // B has few inputs, of which 8 bits with a scale would save next to nothing.
        Packing::Compact => (Format::Q8, Format::F16),
    }
}

impl PackedPair {
    fn new(pair: &LoraPair, packing: Packing) -> Result<Self> {
        let (a, b) = formats(packing);
        let ratio = match &pair.magnitude {
            None => None,
            Some(Magnitude::Ratio(ratio)) => Some(ratio.to_dtype(DType::F32)?.to_vec1()?),
            Some(Magnitude::Wanted(_)) => candle_core::bail!("magnitudes are not yet ratios beside the base"),
        };
        Ok(Self { a: pack(&pair.a, a)?, b: pack(&pair.b, b)?, scale: pair.scale as f32, ratio })
    }
}

fn pack(tensor: &Tensor, format: Format) -> Result<Matrix> {
    let (outputs, inputs) = tensor.dims2()?;
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let values = View::new(&tensor)?;
    let mut matrix = Matrix::zeros(outputs, inputs, format);
    for (mut panel, rows) in matrix.panels_mut().into_iter().zip(values.chunks(LANES * inputs)) {
        panel.fill_floats(rows, inputs)?;
    }
    Ok(matrix)
}
