//! How tokens are chosen and when to stop: temperature to `logit_bias`, `max_tokens`, `stop`.

use super::fields::{Decimal, Fields, array, decimal, string, wrong_type, wrong_value};
use super::request::WireLimits;
use crate::api::error::{ApiError, Kind};
use crate::engine::SamplingParams;
use serde_json::Value;

/// Most stop strings.
const MAX_STOPS: usize = 4;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 1024;
/// Most entries of `logit_bias`.
const MAX_BIASES: usize = 300;

/// Checks everything that shapes the choice of tokens. `logprobs` are the alternatives to report with each.
pub(super) fn parse(
    fields: &Fields<'_>,
    limits: WireLimits,
    logprobs: Option<usize>,
) -> Result<SamplingParams, ApiError> {
    let defaults = SamplingParams::default();
    let penalty = || Decimal { min: -2.0, max: 2.0, above: false };
    let unit = |above| Decimal { min: 0.0, max: 1.0, above };
    let temperature = Decimal { min: 0.0, max: 2.0, above: false };
    // Below this, logits divided by it leave what f32 can hold.
    let repetition = Decimal { min: 0.01, max: 10.0, above: false };
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?.unwrap_or(0);
    Ok(SamplingParams {
        temperature: fields.decimal("temperature", temperature)?.unwrap_or(defaults.temperature),
        top_p: fields.decimal("top_p", unit(true))?.unwrap_or(defaults.top_p),
        // -1 is how other servers write "off".
        top_k: usize::try_from(top_k).unwrap_or(0),
        min_p: fields.decimal("min_p", unit(false))?.unwrap_or(defaults.min_p),
        repetition_penalty: fields.decimal("repetition_penalty", repetition)?.unwrap_or(defaults.repetition_penalty),
        frequency_penalty: fields.decimal("frequency_penalty", penalty())?.unwrap_or(defaults.frequency_penalty),
        presence_penalty: fields.decimal("presence_penalty", penalty())?.unwrap_or(defaults.presence_penalty),
        seed: seed(fields)?,
        logit_bias: logit_bias(fields, limits)?,
        logprobs,
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
    })
}

/// Any integer of 64 bits, signed or not.
fn seed(fields: &Fields<'_>) -> Result<Option<u64>, ApiError> {
    match fields.get("seed").and_then(Value::as_u64) {
        Some(seed) => Ok(Some(seed)),
        None => Ok(fields.integer("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64)),
    }
}

fn logit_bias(fields: &Fields<'_>, limits: WireLimits) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(map) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    if map.keys().count() > MAX_BIASES {
        let message = format!("Invalid 'logit_bias': too many properties. Expected at most {MAX_BIASES}.");
        return Err(ApiError::at(Kind::ObjectTooLarge, "logit_bias", message));
    }
    map.keys().map(|key| Ok((token_id(key, limits)?, bias(&map, key)?))).collect()
}

fn token_id(key: &str, limits: WireLimits) -> Result<u32, ApiError> {
    let written_plainly = !key.starts_with('+') && (key == "0" || !key.starts_with('0'));
    let id = key.parse::<u32>().ok().filter(|_| written_plainly).filter(|&id| (id as usize) < limits.logits_width);
    id.ok_or_else(|| {
        let hint =
            format!("Keys of 'logit_bias' must be token ids from 0 to {}.", limits.logits_width.saturating_sub(1));
        wrong_value("logit_bias", key, &hint)
    })
}

fn bias(map: &Fields<'_>, key: &str) -> Result<f32, ApiError> {
    let bounds = Decimal { min: -100.0, max: 100.0, above: false };
    decimal(map.required(key)?, &map.path(key), &bounds)
}

/// A chat request's `logprobs` and `top_logprobs`.
pub(super) fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=20)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        let message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.";
        return Err(ApiError::at(Kind::InvalidValue, "top_logprobs", message));
    }
    Ok(wanted.then_some(top.unwrap_or(0) as usize))
}

/// `max_completion_tokens`, or its old name `max_tokens`.
pub(super) fn max_tokens(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let range = 1..=i64::from(i32::MAX);
    let old = fields.integer("max_tokens", range.clone())?;
    let new = fields.integer("max_completion_tokens", range)?;
    if old.is_some() && new.is_some() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(ApiError::at(Kind::ParameterCombination, "max_tokens", message));
    }
    Ok(new.or(old).map(|tokens| tokens as usize))
}

/// Strings that end the text.
pub(super) fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    match fields.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![stop_string(text, "stop")?]),
        Some(value @ Value::Array(_)) => stop_list(value),
        Some(other) => Err(wrong_type("stop", "a string or an array of strings", other)),
    }
}

fn stop_list(value: &Value) -> Result<Vec<String>, ApiError> {
    let items = array(value, "stop")?;
    if items.len() > MAX_STOPS {
        let message =
            format!("Invalid 'stop': array too long. Expected at most {MAX_STOPS} strings, but got {}.", items.len());
        return Err(ApiError::at(Kind::ArrayTooLong, "stop", message));
    }
    items.into_iter().map(|(item, path)| stop_string(string(item, &path)?, &path)).collect()
}

fn stop_string(text: &str, path: &str) -> Result<String, ApiError> {
    if text.is_empty() {
        let message = format!("Invalid '{path}': empty string. A stop string needs at least one character.");
        return Err(ApiError::at(Kind::EmptyString, path, message));
    }
    if text.len() > MAX_STOP_BYTES {
        let message = format!("Invalid '{path}': string too long. Expected at most {MAX_STOP_BYTES} bytes.");
        return Err(ApiError::at(Kind::StringTooLong, path, message));
    }
    Ok(text.to_owned())
}
