//! The small model that ships inside the binary (`models/embedded/`, see its MODEL_CARD.md).
//!
//! Knows nothing of serving: bytes in the binary → weights and tokenizer.

use crate::chat::tokenizer::{ChatTokenizer, TokenizerFiles};
use crate::model::Checkpoint;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/embedded/", $name))
    };
}

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
    let config = file!("config.json");
    let checkpoint = Checkpoint::from_bytes(config, file!("model.safetensors"))?;
    let files = TokenizerFiles {
        tokenizer: Some(file!("tokenizer.json")),
        tokenizer_config: Some(file!("tokenizer_config.json")),
        chat_template: Some(file!("chat_template.jinja")),
        generation_config: None,
        config: Some(config),
    };
    let tokenizer = ChatTokenizer::from_files(&files, checkpoint.config().vocab_size)?;
    Ok((checkpoint, tokenizer))
}
