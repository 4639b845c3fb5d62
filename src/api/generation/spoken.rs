//! What an answer has said so far, and what it cost. Knows no protocol.

use crate::engine::TokenLogprobs;

/// One answer as far as it has been generated.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Spoken {
    /// Thoughts before the answer, and how many tokens they took.
    pub(in crate::api) thoughts: String,
    pub(in crate::api) thought_tokens: usize,
    pub(in crate::api) content: String,
    pub(in crate::api) calls: Vec<Call>,
    /// The turn as the model wrote it, control tokens of the dialect included.
    pub(in crate::api) raw: String,
    /// Its tokens, as far as somebody wants to see them.
    pub(in crate::api) tokens: Vec<SpokenToken>,
}

/// A call in an answer.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct Call {
    pub(in crate::api) id: String,
    pub(in crate::api) name: String,
    pub(in crate::api) arguments: String,
    /// The arguments are whole.
    pub(in crate::api) complete: bool,
}

/// A token of an answer.
#[derive(Debug, Clone)]
pub(in crate::api) struct SpokenToken {
    pub(in crate::api) id: u32,
    /// The grammar left no alternative.
    pub(in crate::api) forced: bool,
    pub(in crate::api) logprobs: Option<TokenLogprobs>,
    /// Where its text begins in the answer's text, in characters.
    pub(in crate::api) offset: usize,
}

/// Tokens read and written for a request.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::api) struct Usage {
    pub(in crate::api) prompt: usize,
    /// Of the prompt's tokens, those that were computed before.
    pub(in crate::api) cached: usize,
    pub(in crate::api) completion: usize,
    /// Of the tokens written, those of thoughts.
    pub(in crate::api) thoughts: usize,
}
