//! OpenAI's wire JSON ↔ domain types: every field's type and range is checked here, and nowhere else.
//!
//! Knows no engine and no state beyond a few numbers of the model ([`WireLimits`]).

mod completion;
pub(in crate::api) mod fields;
mod format;
mod input;
mod messages;
mod request;
mod responses;
mod sampling;
mod thinking;
mod tools;
mod unsupported;

#[cfg(test)]
mod tests;

pub(in crate::api) use completion::{CompletionRequest, Prompt, parse_completion, token_ids};
pub(in crate::api) use fields::Fields;
pub(in crate::api) use format::ResponseFormat;
pub(in crate::api) use request::{ChatRequest, NOT_CHAT, WireLimits, parse_chat};
pub(in crate::api) use responses::{ResponsesRequest, parse_responses};
