//! Training data: the native file format, the seeded generator of dialogues and the tokenizer made from them.
//!
//! Knows conversations and text files; knows no tokens ids of a model, no tensors and no training loop.

pub mod native;
pub mod synth;
pub mod tokenizer;

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

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// When the folder cannot be made or the file cannot be written.
pub fn write_atomically(
    path: &std::path::Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<(), DataError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| std::path::Path::new("."));
    let attempt = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut buffered = std::io::BufWriter::new(file.as_file_mut());
        write(&mut buffered)?;
        std::io::Write::flush(&mut buffered)?;
        drop(buffered);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    attempt().map_err(|e| DataError::file(path, e))
}
