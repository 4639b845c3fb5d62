//! The keys and values of all sequences, in blocks of a fixed number of positions.

use super::{ModelConfig, ModelError};
use candle_core::Device;

/// Positions per block.
pub const BLOCK_SIZE: usize = 16;

/// Key and value storage of every layer, addressed by block id.
pub struct KvCache {}

impl KvCache {
    /// Storage for `blocks` blocks of [`BLOCK_SIZE`] positions.
    pub fn new(config: &ModelConfig, blocks: usize, device: &Device) -> Result<Self, ModelError> {
        let _ = (config, blocks, device);
        todo!()
    }

    /// Bytes that one block takes over all layers.
    pub fn block_bytes(config: &ModelConfig) -> usize {
        2 * config.num_layers * BLOCK_SIZE * config.num_kv_heads * config.head_dim * 4
    }
}
