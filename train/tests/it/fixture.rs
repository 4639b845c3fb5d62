//! A small tokenizer with its chat template, made in memory's time.

use callsmith::chat::dialect::{self, DialectChoice};
use callsmith_train::data::synth::bpe_corpus;
use callsmith_train::data::tokenizer::{train_bpe, write_tokenizer};
use callsmith_train::dataset::encode::{Encoder, write_template};
use std::path::Path;

/// Tokens of the small tokenizer.
pub(crate) const VOCAB: usize = 600;

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
