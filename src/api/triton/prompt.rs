//! A text and its parameters as a chat request, so that tools, sampling and their checks are those of chat completions.

use super::SAMPLING;
use crate::api::AppState;
use crate::api::error::{ApiError, Kind};
use crate::api::wire::fields::wrong_type;
use crate::api::wire::{ChatRequest, NOT_CHAT, parse_chat};
use serde_json::{Map, Value, json};

/// Parameters of the protocol itself, or of other servers, that change nothing here.
const RESERVED: [&str; 8] = [
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    "timeout",
    "headers",
    "binary_data_output",
    "exclude_input_in_output",
];
/// Parameters that a protocol of strings, numbers and booleans has to carry as JSON text.
const STRUCTURED: [&str; 6] = ["tools", "tool_choice", "response_format", "structured_outputs", "logit_bias", "stop"];

/// Parameters that are read elsewhere, or have no meaning here.
const ELSEWHERE: [&str; 11] = [
    "stream",
    "details",
    "n",
    "messages",
    "model",
    "lora_name",
    "lora_path",
    "logprobs",
    "top_logprobs",
    "return_tokens",
    "stream_options",
];

/// A request in the protocol's terms.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    pub(super) text: String,
    pub(super) parameters: Map<String, Value>,
}

impl Prompt {
    /// The chat request that asks `model` for the same. `system` is a system message; the text is the user's.
    pub(super) fn chat(mut self, state: &AppState, model: &str) -> Result<ChatRequest, ApiError> {
        self.parameters
            .retain(|key, value| !value.is_null() && !RESERVED.contains(&key.as_str()) && !key.starts_with("triton_"));
        let other_routes = NOT_CHAT.into_iter().map(|(key, _)| key);
        for key in ELSEWHERE.into_iter().chain(other_routes) {
            self.check_absent(key)?;
            self.parameters.remove(key);
        }
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(model));
        body.insert("messages".to_owned(), self.messages()?);
        for (key, value) in self.parameters {
            let value = if STRUCTURED.contains(&key.as_str()) { structured(&key, value)? } else { value };
            body.insert(key, value);
        }
        parse_chat(&body, state.wire_limits())
    }

    fn check_absent(&self, key: &str) -> Result<(), ApiError> {
        let harmless = |value: &Value| *value == Value::Bool(false) || (key == "n" && value == 1);
        if self.parameters.get(key).is_some_and(|value| !harmless(value)) {
            let message = format!("The parameter '{key}' is not supported here. Remove it.");
            return Err(ApiError::at(Kind::UnsupportedParameter, key, message));
        }
        Ok(())
    }

    fn messages(&mut self) -> Result<Value, ApiError> {
        let system = match self.parameters.remove("system") {
            None => None,
            Some(Value::String(text)) => Some(json!({"role": "system", "content": text})),
            Some(_) => return Err(ApiError::at(Kind::InvalidType, "system", "'system' must be a string.")),
        };
        let user = json!({"role": "user", "content": self.text});
        Ok(system.into_iter().chain([user]).collect())
    }
}

/// Parameters inside a parameter; those beside it are meant more.
pub(super) fn unpack_sampling(parameters: &mut Map<String, Value>) -> Result<(), ApiError> {
    let inner = match parameters.remove(SAMPLING) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
            ApiError::at(Kind::InvalidJson, SAMPLING, format!("'{SAMPLING}' must be a JSON object: {error}."))
        })?,
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong_type(SAMPLING, "an object or its JSON", &other)),
    };
    for (key, value) in inner {
        parameters.entry(key).or_insert(value);
    }
    Ok(())
}

/// Objects and lists may come as they are, or as their JSON.
fn structured(key: &str, value: Value) -> Result<Value, ApiError> {
    match &value {
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => match serde_json::from_str(text) {
            // A text that ends the answer may look like anything but a list of such texts.
            Ok(Value::Array(texts)) if key == "stop" && texts.iter().all(Value::is_string) => Ok(Value::Array(texts)),
            _ if key == "stop" => Ok(value),
            Ok(read) => Ok(read),
            Err(error) => {
                Err(ApiError::at(Kind::InvalidJson, key, format!("The parameter '{key}' is not valid JSON: {error}.")))
            }
        },
        _ => Ok(value),
    }
}

/// Takes a flag out of the parameters.
pub(super) fn take_flag(parameters: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, ApiError> {
    match parameters.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(ApiError::at(Kind::InvalidType, key, format!("The parameter '{key}' must be a boolean."))),
    }
}
