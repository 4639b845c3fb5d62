//! What ships inside the binary: a small model (`models/embedded/`, see its MODEL_CARD.md) and adapters for it
//! (`models/NAME/`).
//!
//! Knows nothing of serving: bytes in the binary → weights, tokenizer, adapters' files.

use crate::adapter::BuiltIn;
use crate::chat::tokenizer::{ChatTokenizer, TokenizerFiles};
use crate::model::Checkpoint;
use sha2::{Digest, Sha256};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/", $name))
    };
}

/// The adapters of the embedded model by name, served beside it from the start.
pub const ADAPTERS: &[(&str, BuiltIn)] = &[];

/// Why the embedded model cannot be used (a broken build).
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
}

/// The embedded model's weights and tokenizer.
pub fn open() -> Result<(Checkpoint<'static>, ChatTokenizer), EmbeddedError> {
    let config = file!("embedded/config.json");
    let checkpoint = Checkpoint::from_bytes(config, file!("embedded/model.safetensors"))?;
    let files = TokenizerFiles {
        tokenizer: Some(file!("embedded/tokenizer.json")),
        tokenizer_config: Some(file!("embedded/tokenizer_config.json")),
        chat_template: Some(file!("embedded/chat_template.jinja")),
        generation_config: None,
        config: Some(config),
    };
    let tokenizer = ChatTokenizer::from_files(&files, checkpoint.config().vocab_size)?;
    Ok((checkpoint, tokenizer))
}

/// SHA-256 of the weights in hexadecimal digits: what tells one shipped model from the next.
pub fn digest() -> String {
    Sha256::digest(file!("embedded/model.safetensors")).iter().map(|byte| format!("{byte:02x}")).collect()
}
