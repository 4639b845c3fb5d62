//! A Hugging Face model directory → one GGUF file with its tokenizer, through the library's own writer.

use crate::error::{Result, TrainError};
use callsmith::chat::tokenizer;
use callsmith::model::gguf::{self, Contents, Encoding};
use callsmith::model::{Checkpoint, decoder};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::fs;
use std::path::Path;

/// Writes `out`, whole or not at all.
///
/// # Errors
/// When `from` is no directory of a model that GGUF can say, its tokenizer is of a kind that GGUF has not, or the file cannot be
/// written.
pub fn from_hf(from: &Path, out: &Path, encoding: Encoding) -> Result<()> {
    if from.is_file() {
        return Err(TrainError::input(from, "is a file; name a Hugging Face model directory"));
    }
    let checkpoint = Checkpoint::open(from)?;
    let config = checkpoint.config();
    let tokenizer = tokenizer::gguf::metadata_of(from, config.vocab_size)?;
    let folder = from.canonicalize().map_err(TrainError::io(from))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
    }
    let bar = progress_bar(decoder::parameter_shapes(config).len());
    let contents = Contents { config, name: &name, encoding, tokenizer: &tokenizer };
    Ok(gguf::write(out, &contents, &mut |tensor| {
        bar.inc(1);
        checkpoint.tensor(tensor)
    })?)
}

fn progress_bar(tensors: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} tensors  {eta} left");
    let bar = ProgressBar::new(tensors as u64).with_finish(ProgressFinish::AndClear);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
