//! Training data: the native file format, importers of others, the seeded generators of dialogues, the tokenizer made from
//! them, and the functions of known tasks.
//!
//! Knows conversations and text files; knows no tokens ids of a model, no tensors and no training loop.

pub mod catalogue;
pub mod check;
mod dialogue;
pub mod import;
mod json;
pub mod lines;
pub mod native;
pub mod rows;
pub mod seen;
pub mod synth;
pub mod tokenizer;
pub mod viggo;
pub mod world;

pub use dialogue::Dialogue;

use std::path::PathBuf;

/// Why data cannot be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A field of a data line is wrong.
    #[error("{place}: `{field}`: {problem}")]
    Field { place: String, field: String, problem: String },
    /// A line is not JSON.
    #[error("{place}: not JSON: {problem}")]
    Json { place: String, problem: String },
    /// A setting is out of range.
    #[error("`{field}`: {problem}")]
    Setting { field: &'static str, problem: String },
    /// A file cannot be read or written.
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    /// Files of which no row makes a conversation; what was found in them.
    #[error("no row makes a conversation; name the format with --format, or see what is wrong with the rows:\n{0}")]
    Nothing(Box<import::Report>),
    /// Rows that cannot be kept and may not be dropped; what was found.
    #[error("unreadable rows, so nothing is written; add drop-unreadable to --fix:\n{0}")]
    Unfixed(Box<check::Report>),
    /// Problems that are left; what was found.
    #[error("the data has problems that are not fixed (--fix):\n{0}")]
    Problems(String),
    /// The tokenizer cannot be trained or stored.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

impl DataError {
    /// A file error with its path.
    pub fn file(path: &std::path::Path, problem: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_path_buf(), problem: problem.to_string() }
    }
}
