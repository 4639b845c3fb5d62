//! Chat templates: a conversation → prompt segments.

use super::dialect::Dialect;
use super::{ChatError, Conversation};
use std::sync::Arc;

/// A stretch of a rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// The text of one control token, from the template itself.
    Control(String),
    /// Ordinary text: can never become a control token.
    Text(String),
}

/// A compiled chat template.
pub struct ChatTemplate {
    _private: (),
}

impl ChatTemplate {
    /// Compiles `source`, or the dialect's own template when the model has none that shows tools.
    /// `control_tokens` are the texts of the tokenizer's special tokens.
    pub fn new(source: Option<&str>, dialect: Arc<dyn Dialect>, control_tokens: Vec<String>, bos: Option<String>, eos: Option<String>) -> Result<Self, ChatError> {
        let _ = (source, dialect, control_tokens, bos, eos);
        todo!()
    }

    /// Renders the conversation; `add_generation_prompt` opens an assistant turn at the end.
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<Vec<Segment>, ChatError> {
        let _ = (conversation, add_generation_prompt);
        todo!()
    }
}
