//! The `input` of a response: text or items, as messages.

use super::fields::{Fields, empty_array, missing, string, wrong_value};
use super::messages;
use super::responses::parts;
use crate::api::error::{ApiError, Kind, echo};
use crate::chat::{Message, Role, ToolCall};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The input, checked.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Input {
    /// Calls of one turn are one message; results name the call that they answer.
    pub(in crate::api) messages: Vec<Message>,
    /// The items in the form that clients expect of a list of them.
    pub(in crate::api) items: Vec<Value>,
}

/// Checks `input`.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Input, ApiError> {
    let value = fields.required("input")?;
    if let Value::String(text) = value {
        let item = listed(json!({"role": "user", "content": text}));
        return Ok(Input { messages: vec![Message::text(Role::User, text.clone())], items: vec![item] });
    }
    let mut reader = Reader::default();
    let items = parts(value, "input")?;
    if items.is_empty() {
        return Err(empty_array("input"));
    }
    for (item, path) in items {
        reader.item(&Fields::of(item, path)?)?;
    }
    let items = value.as_array().into_iter().flatten().cloned().map(listed).collect();
    Ok(Input { messages: reader.messages, items })
}

/// An item with what may be left out of an input. Its fields have been checked.
fn listed(mut item: Value) -> Value {
    let defaults = match item["type"].as_str() {
        None | Some("message") => {
            let part = if item["role"] == "assistant" { "output_text" } else { "input_text" };
            if item["content"].is_string() {
                item["content"] = json!([{"type": part, "text": item["content"]}]);
            }
            json!({"type": "message", "status": "completed"})
        }
        Some("reasoning") => json!({"summary": [], "status": "completed"}),
        Some(_) => json!({"status": "completed"}),
    };
    for (key, value) in defaults.as_object().into_iter().flatten() {
        if item[key].is_null() {
            item[key] = value.clone();
        }
    }
    item
}

/// Each call has exactly one result after it, and each result a call before it.
pub(super) fn check_answered(messages: &[Message]) -> Result<(), ApiError> {
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        if let (Role::Tool, Some(id)) = (message.role, message.tool_call_id.as_deref()) {
            let place = open.iter().position(|call| *call == id);
            let place = place.ok_or_else(|| {
                bad(&format!("No tool call found for function call output with call_id {}.", echo(id)))
            })?;
            open.swap_remove(place);
        } else if let Some(id) = open.first() {
            return Err(bad(&format!("No tool output found for function call {}.", echo(id))));
        }
        open.extend(message.tool_calls.iter().map(|call| call.id.as_str()));
    }
    match open.first() {
        None => Ok(()),
        Some(id) => Err(bad(&format!("No tool output found for function call {}.", echo(id)))),
    }
}

fn bad(message: &str) -> ApiError {
    ApiError::at(Kind::InvalidValue, "input", message)
}

/// Folds items into messages.
#[derive(Default)]
struct Reader {
    messages: Vec<Message>,
    /// Thoughts that belong to the assistant's next message.
    thoughts: Option<String>,
}

impl Reader {
    fn item(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        match fields.string("type")?.unwrap_or("message") {
            "message" => self.message(fields),
            "function_call" => self.call(fields),
            "function_call_output" => self.result(fields),
            "reasoning" => self.reasoning(fields),
            other => {
                let known = "Supported values are: 'message', 'function_call', 'function_call_output' and 'reasoning'.";
                Err(wrong_value(&fields.path("type"), other, known))
            }
        }
    }

    fn message(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        let role = match fields.required_string("role")? {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let known = "Supported values are: 'assistant', 'developer', 'system' and 'user'.";
                return Err(wrong_value(&fields.path("role"), other, known));
            }
        };
        let text = text(fields.required("content")?, &fields.path("content"))?;
        let reasoning = if role == Role::Assistant { self.thoughts.take() } else { None };
        self.messages.push(Message { reasoning, ..Message::text(role, text) });
        Ok(())
    }

    /// A call belongs to the assistant's message right before it.
    fn call(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        let id = fields.required_string("call_id")?.to_owned();
        let name = fields.required_string("name")?.to_owned();
        let text = fields.required_string("arguments")?;
        let Ok(Value::Object(arguments)) = messages::arguments(text) else {
            let hint = "The arguments of a call must be a string that holds a JSON object.";
            return Err(wrong_value(&fields.path("arguments"), text, hint));
        };
        if self.messages.last().is_none_or(|last| last.role != Role::Assistant) {
            self.messages.push(Message { reasoning: self.thoughts.take(), ..Message::text(Role::Assistant, "") });
        }
        let Some(turn) = self.messages.last_mut() else { return Ok(()) };
        turn.reasoning = turn.reasoning.take().or(self.thoughts.take());
        if turn.tool_calls.iter().any(|call| call.id == id) {
            return Err(wrong_value(&fields.path("call_id"), &id, "Each call of a turn needs its own id."));
        }
        turn.tool_calls.push(ToolCall { id, name, arguments: Value::Object(arguments) });
        Ok(())
    }

    fn result(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        let id = fields.required_string("call_id")?;
        let output = text(fields.required("output")?, &fields.path("output"))?;
        self.messages.push(Message { tool_call_id: Some(id.to_owned()), ..Message::text(Role::Tool, output) });
        Ok(())
    }

    fn reasoning(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        if let Some(content) = fields.get("content") {
            self.thoughts = Some(text(content, &fields.path("content"))?).filter(|thoughts| !thoughts.is_empty());
        }
        Ok(())
    }
}

/// The text of a string or of a list of text parts.
fn text(value: &Value, path: &str) -> Result<String, ApiError> {
    if let Value::String(text) = value {
        return Ok(text.clone());
    }
    let mut whole = String::new();
    for (part, path) in parts(value, path)? {
        let part = Fields::of(part, path)?;
        match part.required_string("type")? {
            "input_text" | "output_text" | "text" | "reasoning_text" | "summary_text" => {
                whole.push_str(string(
                    part.get("text").ok_or_else(|| missing(&part.path("text")))?,
                    &part.path("text"),
                )?);
            }
            "refusal" => whole.push_str(part.required_string("refusal")?),
            other => {
                let hint = "Only text parts are supported: 'input_text' and 'output_text'.";
                return Err(wrong_value(&part.path("type"), other, hint));
            }
        }
    }
    Ok(whole)
}

/// Gives each result the name of the function whose call it answers.
pub(super) fn name_results(messages: &mut [Message]) {
    let mut names: HashMap<String, String> = HashMap::new();
    for message in messages {
        names.extend(message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
        message.name = message.tool_call_id.as_ref().and_then(|id| names.get(id).cloned());
    }
}
