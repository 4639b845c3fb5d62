//! A small tokenizer with its chat template, made in memory's time.

use callsmith::chat::dialect::{self, DialectChoice};
use callsmith_train::data::synth::bpe_corpus;
use callsmith_train::data::tokenizer::{train_bpe, write_tokenizer};
use callsmith_train::dataset::encode::{Encoder, write_template};
use std::fs;
use std::path::Path;

/// Tokens of the small tokenizer.
pub(crate) const VOCAB: usize = 600;

/// The shape of a model that trains in no time, as a recipe's `[model.shape]` has it; the context is missing.
pub(crate) const SHAPE: &str =
    "hidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 1";

/// A directory with the small tokenizer in `tokenizer`.
pub(crate) fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    tokenizer_below(root.path());
    root
}

/// Writes the small tokenizer into a new directory `tokenizer` below `root`.
pub(crate) fn tokenizer_below(root: &Path) {
    fs::create_dir(root.join("tokenizer")).unwrap();
    tokenizer(&root.join("tokenizer"));
}

/// Writes a tokenizer and chat template into `dir`.
pub(crate) fn tokenizer(dir: &Path) {
    let corpus = bpe_corpus(1, 60, dialect::by_name("tool_uses").unwrap().as_ref()).collect::<Vec<_>>();
    write_tokenizer(&train_bpe(corpus.into_iter(), VOCAB, &[]).unwrap(), dir).unwrap();
    write_template(dir).unwrap();
}

/// An encoder over the small tokenizer.
pub(crate) fn encoder(dir: &Path) -> Encoder {
    tokenizer(dir);
    Encoder::load(dir, &DialectChoice::default(), VOCAB).unwrap()
}
