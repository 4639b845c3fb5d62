//! Meta's checkpoints (`consolidated.NN.pth`, `params.json`, as Llama 2 and 3 are published) ↔ Hugging Face directories.
//!
//! Two things differ beside the names. A checkpoint is cut into 1 to 8 shards, each matrix along one dimension (`Cut`). And the
//! rows of q and k stand in another order: Meta rotates neighbouring pairs of a head, Hugging Face its two halves.

mod from_hf;
mod names;
mod params;
mod shards;
mod to_hf;

pub use from_hf::from_hf;
pub use to_hf::to_hf;

use callsmith::model::ModelConfig;
use candle_core::{Result, Tensor};

/// Most shards that Meta publishes.
pub const MAX_SHARDS: usize = 8;
/// What a Meta tokenizer is called; it is copied where it is there.
const TOKENIZER: &str = "tokenizer.model";

/// How a tensor is divided among shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Rows,
    Columns,
    /// All shards have the same.
    None,
}

impl Cut {
    fn dimension(self) -> Option<usize> {
        match self {
            Self::Rows => Some(0),
            Self::Columns => Some(1),
            Self::None => None,
        }
    }
}

/// Heads of a tensor (by its Hugging Face name) that rotary embeddings turn, if they do.
fn rotated_heads(config: &ModelConfig, name: &str) -> Option<usize> {
    match name {
        _ if name.ends_with("self_attn.q_proj.weight") => Some(config.num_heads),
        _ if name.ends_with("self_attn.k_proj.weight") => Some(config.num_kv_heads),
        _ => None,
    }
}

/// `[heads · width, in]` with each head's rotary pairs as its two halves → as neighbours.
fn interleaved(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, width) = tensor.dims2()?;
    tensor.reshape((heads, 2, rows / heads / 2, width))?.transpose(1, 2)?.contiguous()?.reshape((rows, width))
}

/// The reverse of [`interleaved`].
fn halved(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, width) = tensor.dims2()?;
    tensor.reshape((heads, rows / heads / 2, 2, width))?.transpose(1, 2)?.contiguous()?.reshape((rows, width))
}

#[cfg(test)]
mod tests;
