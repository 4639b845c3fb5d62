//! Text ↔ token ids, so that content can never produce a control token.

use super::template::Segment;
use super::ChatError;
use std::path::Path;
use std::sync::Arc;

/// A model's tokenizer.
pub struct ChatTokenizer {
    _private: (),
}

impl ChatTokenizer {
    /// Reads `tokenizer.json` (and, if present, `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json`,
    /// `config.json` for bos/eos/template). `logits_width` is the model's vocabulary size (may be padded).
    pub fn load(dir: &Path, logits_width: usize) -> Result<Self, ChatError> {
        let _ = (dir, logits_width);
        todo!()
    }

    /// Encodes a rendered prompt.
    pub fn encode(&self, segments: &[Segment]) -> Result<Vec<u32>, ChatError> {
        let _ = segments;
        todo!()
    }

    /// Encodes plain text; never yields a control token.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let _ = text;
        todo!()
    }

    /// The bytes of one token (empty for control tokens).
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let _ = id;
        todo!()
    }

    /// Bytes → text of many tokens, control tokens left out, invalid UTF-8 replaced.
    pub fn decode(&self, ids: &[u32]) -> String {
        let _ = ids;
        todo!()
    }

    /// Texts of all control (special) tokens.
    pub fn control_tokens(&self) -> Vec<String> {
        todo!()
    }

    /// The model's own chat template, if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        todo!()
    }

    pub fn bos_token(&self) -> Option<String> {
        todo!()
    }

    pub fn eos_token(&self) -> Option<String> {
        todo!()
    }

    /// Ids that end an assistant turn.
    pub fn eos_token_ids(&self) -> &[u32] {
        todo!()
    }

    /// What llguidance needs: a trie as wide as the logits, with this tokenizer's encoding.
    pub fn tok_env(&self) -> toktrie::TokEnv {
        todo!()
    }
}

/// Turns a stream of token ids into text without ever splitting a character.
pub struct IncrementalDetokenizer {
    _tokenizer: Arc<ChatTokenizer>,
}

impl IncrementalDetokenizer {
    pub fn new(tokenizer: Arc<ChatTokenizer>) -> Self {
        Self { _tokenizer: tokenizer }
    }

    /// The text that became complete with this token (may be empty).
    pub fn push(&mut self, id: u32) -> String {
        let _ = id;
        todo!()
    }

    /// What is left at the end, invalid bytes replaced.
    pub fn finish(&mut self) -> String {
        todo!()
    }
}
