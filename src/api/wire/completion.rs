//! The body of `POST /v1/completions`: text or token ids to go on from.

use super::fields::{Fields, empty_array, integer, string, wrong_type};
use super::format::{self, ResponseFormat};
use super::request::{MAX_CHOICES, WireLimits, include_usage};
use super::unsupported::{self, Elsewhere};
use super::{sampling, thinking};
use crate::api::error::{ApiError, Kind};
use crate::engine::SamplingParams;
use serde_json::{Map, Value};

/// Most prompts of one request.
const MAX_PROMPTS: usize = 64;
/// Most alternatives to report with each token.
const MAX_LOGPROBS: i64 = 20;
/// Tokens of an answer unless the request says otherwise, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What is to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A completion request, checked.
#[derive(Debug)]
pub(in crate::api) struct CompletionRequest {
    pub(in crate::api) model: String,
    pub(in crate::api) prompts: Vec<Prompt>,
    /// The answer repeats its prompt.
    pub(in crate::api) echo: bool,
    pub(in crate::api) params: SamplingParams,
    pub(in crate::api) max_tokens: usize,
    pub(in crate::api) stop: Vec<String>,
    /// Answers to each prompt.
    pub(in crate::api) n: usize,
    pub(in crate::api) stream: bool,
    pub(in crate::api) include_usage: bool,
    pub(in crate::api) format: ResponseFormat,
    /// The tokenizer puts what it always puts before a text.
    pub(in crate::api) add_special_tokens: bool,
}

/// Fields of the other routes.
pub(super) const NOT_COMPLETION: [Elsewhere; 8] = [
    ("messages", "prompt"),
    ("input", "prompt"),
    ("instructions", "prompt"),
    ("tools", ""),
    ("tool_choice", ""),
    ("top_logprobs", "logprobs"),
    ("max_output_tokens", "max_tokens"),
    ("text", "response_format"),
];

/// Checks a whole request body.
pub(in crate::api) fn parse_completion(
    body: &Map<String, Value>,
    limits: WireLimits,
) -> Result<CompletionRequest, ApiError> {
    let fields = Fields::root(body);
    unsupported::refuse(&fields, &["echo", "best_of"], &NOT_COMPLETION)?;
    unsupported::check_ignored(&fields, &[])?;
    // Nothing is thought before a text goes on.
    thinking::wanted(&fields)?;
    let n = fields.integer("n", 1..=MAX_CHOICES)?.unwrap_or(1) as usize;
    check_best_of(&fields, n)?;
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let logprobs = fields.integer("logprobs", 0..=MAX_LOGPROBS)?.map(|count| count as usize);
    if echo && logprobs.is_some() {
        let message = "'echo' with 'logprobs' is not supported: the prompt's own log-probabilities are not computed.";
        return Err(ApiError::at(Kind::UnsupportedParameter, "logprobs", message));
    }
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let prompts = prompts(&fields, limits)?;
    if prompts.len() * n > MAX_CHOICES as usize {
        let message = format!("Too many answers: 'n' for each prompt may make {MAX_CHOICES} altogether.");
        return Err(ApiError::at(Kind::IntegerAboveMax, "n", message));
    }
    Ok(CompletionRequest {
        model: fields.required_string("model")?.to_owned(),
        prompts,
        echo,
        params: sampling::parse(&fields, limits, logprobs)?,
        max_tokens: sampling::max_tokens(&fields)?.unwrap_or(DEFAULT_MAX_TOKENS),
        stop: sampling::stop(&fields)?,
        n,
        stream,
        include_usage: include_usage(&fields, stream)?,
        format: format::parse(&fields)?,
        add_special_tokens: fields.boolean("add_special_tokens")?.unwrap_or(true),
    })
}

/// Choosing the best of more answers than are returned is not done.
fn check_best_of(fields: &Fields<'_>, n: usize) -> Result<(), ApiError> {
    match fields.integer("best_of", 1..=20)? {
        Some(best_of) if best_of as usize != n => {
            let message = "'best_of' must equal 'n': more answers than are returned cannot be generated.";
            Err(ApiError::at(Kind::UnsupportedValue, "best_of", message))
        }
        _ => Ok(()),
    }
}

/// A text, several texts, token ids, or several lists of these.
fn prompts(fields: &Fields<'_>, limits: WireLimits) -> Result<Vec<Prompt>, ApiError> {
    let value = fields.required("prompt")?;
    let items = match value {
        Value::String(_) => return Ok(vec![prompt(value, "prompt", limits)?]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            return Ok(vec![prompt(value, "prompt", limits)?]);
        }
        Value::Array(items) => items,
        other => return Err(wrong_type("prompt", "a string or an array", other)),
    };
    if items.is_empty() {
        return Err(empty_array("prompt"));
    }
    if items.len() > MAX_PROMPTS {
        let message = format!("Invalid 'prompt': array too long. Expected at most {MAX_PROMPTS} prompts.");
        return Err(ApiError::at(Kind::ArrayTooLong, "prompt", message));
    }
    let one = |(index, item)| prompt(item, &format!("prompt[{index}]"), limits);
    items.iter().enumerate().map(one).collect()
}

fn prompt(value: &Value, path: &str, limits: WireLimits) -> Result<Prompt, ApiError> {
    match value {
        Value::Array(ids) if ids.is_empty() => Err(empty_array(path)),
        Value::Array(_) => Ok(Prompt::Tokens(token_ids(value, path, limits)?)),
        other => match string(other, path)? {
            "" => Err(ApiError::at(Kind::EmptyString, path, format!("Invalid '{path}': the prompt is empty."))),
            text => Ok(Prompt::Text(text.to_owned())),
        },
    }
}

/// A list of token ids.
pub(in crate::api) fn token_ids(value: &Value, path: &str, limits: WireLimits) -> Result<Vec<u32>, ApiError> {
    let most = limits.logits_width as i64 - 1;
    let items = super::fields::array(value, path)?;
    items.into_iter().map(|(item, path)| Ok(integer(item, &path, 0..=most)? as u32)).collect()
}
