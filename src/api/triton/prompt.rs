//! A text and its parameters as a chat request, so that tools, sampling and their checks are those of chat completions.

use crate::api::AppState;
use crate::api::error::{ApiError, Kind};
use crate::api::wire::{ChatRequest, parse_chat};
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
        for key in ["stream", "details", "n", "messages", "model"] {
            self.check_absent(key)?;
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

    /// A parameter that is read elsewhere, or has no meaning here.
    fn check_absent(&self, key: &str) -> Result<(), ApiError> {
        if self.parameters.contains_key(key) {
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

/// Objects and lists may come as they are, or as their JSON.
fn structured(key: &str, value: Value) -> Result<Value, ApiError> {
    match &value {
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
            let wrong = |error: serde_json::Error| {
                ApiError::at(Kind::InvalidJson, key, format!("The parameter '{key}' is not valid JSON: {error}."))
            };
            serde_json::from_str(text).map_err(wrong)
        }
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
