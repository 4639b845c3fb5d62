//! The small model that ships inside the binary (`models/embedded/`, see its MODEL_CARD.md).
//!
//! Knows nothing of serving: bytes in the binary → decoder and tokenizer.

use crate::chat::tokenizer::{ChatTokenizer, TokenizerFiles};
use crate::model::{Decoder, weights::Checkpoint};
use candle_core::{DType, Device};

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

/// Loads the embedded decoder and tokenizer.
pub fn load(dtype: DType, device: &Device) -> Result<(Decoder, ChatTokenizer), EmbeddedError> {
    let config = file!("config.json");
    let decoder = Checkpoint::from_bytes(config, file!("model.safetensors"))?.decoder(dtype, device)?;
    let files = TokenizerFiles {
        tokenizer: Some(file!("tokenizer.json")),
        tokenizer_config: Some(file!("tokenizer_config.json")),
        chat_template: Some(file!("chat_template.jinja")),
        generation_config: None,
        config: Some(config),
    };
    let tokenizer = ChatTokenizer::from_files(&files, decoder.config().vocab_size)?;
    Ok((decoder, tokenizer))
}
