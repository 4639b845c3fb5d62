//! The GGUF container: typed metadata and named tensors in one file, read from a slice and written in one pass.
//!
//! Knows no models and no tokenizers: `model::gguf` and `chat::tokenizer` say what the names mean.

mod read;
mod write;

pub use read::{Header, TensorInfo};
pub use write::{Metadata, TensorPlan, write};

use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// What is wrong with a file, or with reading or writing it; the message names the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GgufError(pub String);

impl From<std::io::Error> for GgufError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Every file begins so.
const MAGIC: &[u8; 4] = b"GGUF";
/// Where a file's tensors begin is a multiple of this, unless its metadata say otherwise.
const ALIGNMENT: usize = 32;

/// Element types of metadata, as files number them.
mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// Maps a file into memory.
///
/// # Errors
/// When the file cannot be opened or mapped.
#[expect(unsafe_code, reason = "the base weights are memory-mapped so that loading does not double the memory")]
pub fn map(path: &Path) -> Result<Mmap, GgufError> {
    let file = File::open(path)?;
    // SAFETY: the operator must not truncate the base weights while the server runs; adapters, which do change at run time,
    // are not mapped.
    Ok(unsafe { Mmap::map(&file) }?)
}

#[cfg(test)]
mod tests;
