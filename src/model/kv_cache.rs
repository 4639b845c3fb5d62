//! The keys and values of all sequences, in blocks of a fixed number of positions.
//!
//! Storage only: which block belongs to whom is the engine's business.

use super::ops::PagedLayout;
use super::{ModelConfig, ModelError};
use candle_core::{DType, Device, Tensor};

/// Positions per block.
pub const BLOCK_SIZE: usize = 16;

/// Key and value storage of every layer, addressed by block id.
pub struct KvCache {
    /// Per layer `[blocks * BLOCK_SIZE, kv_heads, head_dim]` for keys and for values; written in place.
    layers: Vec<(Tensor, Tensor)>,
}

impl KvCache {
    /// Storage for `blocks` blocks of [`BLOCK_SIZE`] positions.
    pub fn new(config: &ModelConfig, blocks: usize, dtype: DType, device: &Device) -> Result<Self, ModelError> {
        let shape = (blocks * BLOCK_SIZE, config.num_kv_heads, config.head_dim);
        let layer =
            |_| candle_core::Result::Ok((Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?));
        Ok(Self { layers: (0..config.num_layers).map(layer).collect::<candle_core::Result<_>>()? })
    }

    /// Bytes that one block takes over all layers.
    pub fn block_bytes(config: &ModelConfig, dtype: DType) -> usize {
        2 * config.num_layers * BLOCK_SIZE * config.kv_width() * dtype.size_in_bytes()
    }

    /// Writes the new rows' keys and values (`[T, kv_heads, d]`) and returns the layer's whole storage.
    pub(super) fn write(
        &self,
        layer: usize,
        k: &Tensor,
        v: &Tensor,
        layout: &PagedLayout,
    ) -> candle_core::Result<(&Tensor, &Tensor)> {
        let (keys, values) = &self.layers[layer];
        for (row, len, slot) in runs(&layout.slots()) {
            keys.slice_set(&k.narrow(0, row, len)?.contiguous()?, 0, slot)?;
            values.slice_set(&v.narrow(0, row, len)?.contiguous()?, 0, slot)?;
        }
        Ok((keys, values))
    }
}

/// Maximal runs of consecutive slots: (first row, length, first slot).
fn runs(slots: &[u32]) -> Vec<(usize, usize, usize)> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (row, slot) in slots.iter().enumerate() {
        match runs.last_mut() {
            Some((_, len, first)) if *first + *len == *slot as usize => *len += 1,
            _ => runs.push((row, 1, *slot as usize)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_slots_are_written_together() {
        assert_eq!(runs(&[4, 5, 6, 32, 33, 7]), [(0, 3, 4), (3, 2, 32), (5, 1, 7)]);
    }
}
