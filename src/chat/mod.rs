//! Conversations, prompts, tokens and dialects: everything between wire JSON and token ids.
//!
//! Shared by the server and the trainer: what is trained is what is served. Knows no HTTP and no tensors.

pub(crate) mod clock;
pub mod dialect;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guard;
mod history;
mod jinja;
mod json;
pub mod messages;
mod names;
pub mod reasoning;
pub mod template;
pub mod tokenizer;

pub use messages::{Conversation, Message, Role, Tool, ToolCall, ToolChoice};
pub use names::Names;

/// White space as JSON and the grammars know it; everything else is text.
pub(crate) const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Why a conversation cannot become a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The chat template does not compile or refused the conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// The tokenizer file is missing or broken.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A dialect's file is wrong.
    #[error("{0}")]
    Dialect(String),
    /// The dialect has no way to write a function's arguments.
    #[error("the dialect `{dialect}` cannot write {reason}")]
    Inexpressible { function: String, dialect: String, reason: String },
    /// What a template shows a model as a call is none in its dialect.
    #[error(
        "the chat template shows a call as `{shown}`, and the dialect `{dialect}` writes `{written}`: name the dialect of the \
         template, or take a template that leaves functions to the dialect"
    )]
    Disagreement { shown: String, dialect: String, written: String },
    /// The dialect is not known.
    #[error("unknown dialect `{name}`; known: {known}")]
    UnknownDialect { name: String, known: String },
}
