//! The body of `POST /v1/chat/completions` as a whole.

use super::fields::Fields;
use super::format::{self, ResponseFormat};
use super::unsupported::{self, Elsewhere};
use super::{messages, sampling, thinking, tools};
use crate::api::error::{ApiError, Kind};
use crate::chat::{Conversation, Names};
use crate::engine::SamplingParams;
use serde_json::{Map, Value};

/// Most answers to one request.
pub(super) const MAX_CHOICES: i64 = 128;

/// What the model allows, for range checks.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct WireLimits {
    /// Ids in `logit_bias` must be below this.
    pub(in crate::api) logits_width: usize,
}

/// A chat request, checked.
#[derive(Debug)]
pub(in crate::api) struct ChatRequest {
    pub(in crate::api) model: String,
    /// Messages and all tools, as the caller ordered them; function names as the model shall see them.
    pub(in crate::api) conversation: Conversation,
    /// What the caller calls those functions.
    pub(in crate::api) names: Names,
    /// Which of the tools may be called (`allowed_tools`); all of them otherwise.
    pub(in crate::api) callable: Vec<usize>,
    pub(in crate::api) params: SamplingParams,
    pub(in crate::api) max_tokens: Option<usize>,
    pub(in crate::api) stop: Vec<String>,
    /// Number of answers.
    pub(in crate::api) n: usize,
    pub(in crate::api) stream: bool,
    pub(in crate::api) include_usage: bool,
    pub(in crate::api) format: ResponseFormat,
    /// Extension: the answer's tokens are shown, and which of them the grammar forced.
    pub(in crate::api) return_tokens: bool,
    /// A model that can think aloud may do so.
    pub(in crate::api) thoughts: bool,
}

/// Fields of the other routes.
pub(in crate::api) const NOT_CHAT: [Elsewhere; 6] = [
    ("input", "messages"),
    ("prompt", "messages"),
    ("instructions", "messages"),
    ("previous_response_id", "messages"),
    ("max_output_tokens", "max_completion_tokens"),
    ("text", "response_format"),
];

/// Checks a whole request body.
pub(in crate::api) fn parse_chat(body: &Map<String, Value>, limits: WireLimits) -> Result<ChatRequest, ApiError> {
    let fields = Fields::root(body);
    unsupported::refuse(&fields, &[], &NOT_CHAT)?;
    unsupported::check_ignored(&fields, &[])?;
    let model = fields.required_string("model")?.to_owned();
    let messages = messages::parse(&fields)?;
    let tools = tools::parse(&fields)?;
    let (tool_choice, callable) = tools::choice(&fields, &tools)?;
    let parallel_tool_calls = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let format = format::parse(&fields)?;
    let mut conversation = Conversation { messages, tools, tool_choice, parallel_tool_calls };
    Ok(ChatRequest {
        model,
        callable,
        names: Names::legalise(&mut conversation),
        params: sampling::parse(&fields, limits, sampling::logprobs(&fields)?)?,
        max_tokens: sampling::max_tokens(&fields)?,
        stop: sampling::stop(&fields)?,
        n: fields.integer("n", 1..=MAX_CHOICES)?.unwrap_or(1) as usize,
        stream,
        include_usage: include_usage(&fields, stream)?,
        format,
        return_tokens: fields.boolean("return_tokens")?.unwrap_or(false),
        thoughts: thinking::wanted(&fields)?,
        conversation,
    })
}

pub(super) fn include_usage(fields: &Fields<'_>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.object("stream_options")? else { return Ok(false) };
    if !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(ApiError::at(Kind::InvalidValue, "stream_options", message));
    }
    options.boolean("include_obfuscation")?;
    Ok(options.boolean("include_usage")?.unwrap_or(false))
}
