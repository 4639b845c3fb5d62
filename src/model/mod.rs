//! The decoder: token ids in, hidden states and logits out. Tensors only.
//!
//! Knows nothing of adapter files, HTTP, JSON requests or scheduling. A LoRA adapter is an argument of the forward pass
//! ([`lora::AdapterBatch`]), never a part of the model, so one batch may hold rows of many adapters and the trainer
//! uses the same decoder. There is no prefill or decode mode: a pass computes the new tokens of each sequence.

pub mod backward;
pub mod config;
pub mod cpu;
pub mod decoder;
pub mod gguf;
pub mod kv_cache;
pub mod lora;
pub mod ops;
pub mod prompt;
pub mod weights;

mod attention;
mod linear;
mod mlp;
mod stored;
mod weight;

pub use backward::{Found, Predict, Recompute};
pub use config::{Family, ModelConfig, RopeScaling};
pub use cpu::{CpuDecoder, CpuPass, KvType, LogitRow, Precision, Quantise};
pub use decoder::Decoder;
pub use kv_cache::KvCache;
pub use lora::{AdapterBatch, AdapterWeights, LoraPair, Magnitude, Packing, Site, TargetModule};
pub use ops::Dropout;
pub use weights::Checkpoint;

/// What went wrong while loading or running a model. Messages name the tensor, the field or the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` is not one this decoder can run.
    #[error("model config: {0}")]
    Config(String),
    /// A tensor that the architecture needs is absent.
    #[error("missing tensor `{0}`")]
    MissingTensor(String),
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    /// A tensor's values are of a type that no decoder computes with.
    #[error("tensor `{name}` is stored as {found}; supported: F32, F16, BF16")]
    Encoding { name: String, found: String },
    /// A file could not be read or is not what it should be.
    #[error("{path}: {message}")]
    File { path: String, message: String },
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// One forward pass over the new tokens of one or more sequences, laid end to end (no padding).
pub struct ForwardPass<'a> {
    /// Token ids, length T.
    pub tokens: &'a [u32],
    /// Position of each token in its own sequence, length T.
    pub positions: &'a [u32],
    /// How the T rows are divided into sequences, and what each may look back at.
    pub attention: Attention<'a>,
    /// Which rows use which adapter.
    pub adapters: &'a AdapterBatch,
}

/// What the rows of a pass attend to.
pub enum Attention<'a> {
    /// Training and whole-prompt scoring: segment lengths (sum T), each causal within itself, no cache.
    Causal(&'a [usize]),
    /// Serving: new keys and values are written to the block cache, then each row attends to its own sequence's
    /// cached positions `0..=position`.
    Paged { cache: &'a mut KvCache, sequences: &'a [PagedSequence<'a>] },
}

/// One sequence's part of a paged pass.
pub struct PagedSequence<'a> {
    /// Block ids of the sequence in order; position `p` lives in `blocks[p / block_size]` at offset `p % block_size`.
    pub blocks: &'a [u32],
    /// Tokens already in the cache (= position of the first new token).
    pub cached: usize,
    /// New tokens of this pass.
    pub new: usize,
}

#[cfg(test)]
mod tests;
