//! Adapters: PEFT directories on disk, and the registry of immutable generations that serve requests.
//!
//! Knows the decoder's shape and nothing of prompts, requests or HTTP.

mod budget;
mod files;
mod generation;
mod names;
pub mod peft;
pub mod registry;
mod shelf;
#[cfg(test)]
mod testing;
pub mod watch;

pub use files::BuiltIn;

/// Why an adapter cannot be read, published or found.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The name is empty, too long, has characters outside `[A-Za-z0-9._:-]`, or is the base model's.
    #[error("adapter name `{name}` is not allowed: {reason}")]
    Name { name: String, reason: &'static str },
    /// The path is not inside the adapter root.
    #[error(
        "path `{path}` is outside the adapter root: only directories inside the one named by --adapter-root can be loaded"
    )]
    Forbidden { path: String },
    /// The path does not exist.
    #[error("no adapter directory at `{path}`")]
    FileNotFound { path: String },
    /// No adapter has this name.
    #[error("the adapter `{0}` is not loaded")]
    NotFound(String),
    /// The name is taken and `load_inplace` was not given.
    #[error("the adapter `{0}` is already loaded; give load_inplace to replace it")]
    AlreadyLoaded(String),
    /// Another generation than the caller expected has the name (or none has).
    #[error("the adapter `{name}` has the generation `{found}`, not the expected `{expected}`")]
    Generation { name: String, expected: String, found: String },
    /// The directory is not a valid adapter for this model.
    #[error("invalid adapter: {0}")]
    Invalid(String),
    /// The adapter's rank is larger than the server allows.
    #[error("rank {rank} is larger than the largest allowed, {most}")]
    Rank { rank: usize, most: usize },
    /// A file was written to while it was read.
    #[error("`{0}` was changed while it was read; write a new directory, then rename it")]
    Changed(&'static str),
    /// A file is larger than allowed.
    #[error("`{path}` has {bytes} bytes, more than the limit of {limit}")]
    TooLarge { path: String, bytes: u64, limit: u64 },
    /// The adapters' byte budget would be exceeded.
    #[error("adapter needs {needed} bytes; {free} of {budget} are free")]
    Budget { needed: u64, free: u64, budget: u64 },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Text from outside as an error message may repeat it: short, and without control characters.
fn shown(text: &str) -> String {
    excerpt(text, 120)
}

/// The same of at most so many characters.
fn excerpt(text: &str, longest: usize) -> String {
    let mut short: String = text.chars().take(longest).flat_map(char::escape_debug).collect();
    if text.chars().nth(longest).is_some() {
        short.push('…');
    }
    short
}
