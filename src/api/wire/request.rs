//! The body of `POST /v1/chat/completions` as a whole.

use super::fields::Fields;
use super::format::{self, ResponseFormat};
use super::{messages, sampling, tools, unsupported};
use crate::api::error::{ApiError, Kind};
use crate::chat::{Conversation, Names, ToolChoice};
use crate::engine::SamplingParams;
use serde_json::{Map, Value};

/// Most answers to one request.
const MAX_CHOICES: i64 = 4;

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
}

/// Checks a whole request body.
pub(in crate::api) fn parse_chat(body: &Map<String, Value>, limits: WireLimits) -> Result<ChatRequest, ApiError> {
    let fields = Fields::root(body);
    unsupported::refuse(&fields)?;
    unsupported::check_ignored(&fields)?;
    let model = fields.required_string("model")?.to_owned();
    let messages = messages::parse(&fields)?;
    let tools = tools::parse(&fields)?;
    let (tool_choice, callable) = tools::choice(&fields, &tools)?;
    let parallel_tool_calls = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let format = format::parse(&fields)?;
    refuse_format_with_calls(&format, tools.is_empty(), &tool_choice)?;
    let mut conversation = Conversation { messages, tools, tool_choice, parallel_tool_calls };
    Ok(ChatRequest {
        model,
        callable,
        names: Names::legalise(&mut conversation),
        params: sampling::parse(&fields, limits)?,
        max_tokens: sampling::max_tokens(&fields)?,
        stop: sampling::stop(&fields)?,
        n: fields.integer("n", 1..=MAX_CHOICES)?.unwrap_or(1) as usize,
        stream,
        include_usage: include_usage(&fields, stream)?,
        format,
        conversation,
    })
}

fn include_usage(fields: &Fields<'_>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.object("stream_options")? else { return Ok(false) };
    if !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(ApiError::at(Kind::InvalidValue, "stream_options", message));
    }
    options.boolean("include_obfuscation")?;
    Ok(options.boolean("include_usage")?.unwrap_or(false))
}

/// One turn is either JSON text of a given form or may hold calls.
fn refuse_format_with_calls(format: &ResponseFormat, no_tools: bool, choice: &ToolChoice) -> Result<(), ApiError> {
    if no_tools || *choice == ToolChoice::None || matches!(format, ResponseFormat::Text) {
        return Ok(());
    }
    let message = "A JSON 'response_format' cannot be combined with tools that may be called; \
                   drop it, or send tool_choice \"none\".";
    Err(ApiError::at(Kind::UnsupportedParameter, "response_format", message))
}
