//! `messages`: roles, text, calls made before and their results.

use super::fields::{Fields, array, empty_array, missing, wrong_type, wrong_value};
use super::unsupported::unsupported;
use crate::api::error::{ApiError, Kind, echo};
use crate::chat::{Message, Role, ToolCall};
use serde_json::Value;
use std::collections::HashMap;

/// Call id → function name of the calls seen so far.
type Calls = HashMap<String, String>;

/// Checks `messages`.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Vec<Message>, ApiError> {
    let items = fields.array("messages")?.ok_or_else(|| missing("messages"))?;
    if items.is_empty() {
        return Err(empty_array("messages"));
    }
    let mut calls = Calls::new();
    let parsed: Result<Vec<Message>, ApiError> =
        items.into_iter().map(|(item, path)| message(&Fields::of(item, path)?, &mut calls)).collect();
    let messages = parsed?;
    check_answered(&messages)?;
    Ok(messages)
}

/// The first result before which there stands something else than calls and other results.
fn stray_result(messages: &[Message]) -> Option<usize> {
    let mut after_calls = false;
    messages.iter().position(|message| {
        let is_result = message.role == Role::Tool;
        after_calls = if is_result { after_calls } else { !message.tool_calls.is_empty() };
        is_result && !after_calls
    })
}

/// Each call has exactly one result, in the tool messages right after its turn; in any order.
fn check_answered(messages: &[Message]) -> Result<(), ApiError> {
    if let Some(stray) = stray_result(messages) {
        let path = format!("messages[{stray}].role");
        let hint = "A tool message must follow the assistant message whose call it answers.";
        return Err(wrong_value(&path, "tool", hint));
    }
    for (index, turn) in messages.iter().enumerate().filter(|(_, message)| !message.tool_calls.is_empty()) {
        let results = messages[index + 1..].iter().take_while(|message| message.role == Role::Tool);
        let mut open: Vec<&str> = turn.tool_calls.iter().map(|call| call.id.as_str()).collect();
        for (offset, result) in results.enumerate() {
            let id = result.tool_call_id.as_deref().unwrap_or_default();
            let Some(place) = open.iter().position(|call| *call == id) else {
                let path = format!("messages[{}].tool_call_id", index + 1 + offset);
                let hint = "The calls of the assistant message before it have no such id, or it has a result already.";
                return Err(wrong_value(&path, id, hint));
            };
            open.swap_remove(place);
        }
        if !open.is_empty() {
            let missing = open.iter().take(3).map(|id| echo(id)).collect::<Vec<_>>().join(", ");
            let message = format!(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
                 'tool_call_id'. The following tool_call_ids did not have response messages: {missing}"
            );
            return Err(ApiError::at(Kind::InvalidValue, format!("messages[{index}].tool_calls"), message));
        }
    }
    Ok(())
}

fn message(fields: &Fields<'_>, calls: &mut Calls) -> Result<Message, ApiError> {
    let role = fields.required_string("role")?;
    fields.string("name")?;
    match role {
        "system" | "developer" => plain(fields, Role::System),
        "user" => plain(fields, Role::User),
        "assistant" => assistant(fields, calls),
        "tool" => tool_result(fields, calls),
        "function" => Err(wrong_value(&fields.path("role"), role, "Send results under the role 'tool'.")),
        other => {
            let known = "Supported values are: 'system', 'developer', 'user', 'assistant' and 'tool'.";
            Err(wrong_value(&fields.path("role"), other, known))
        }
    }
}

fn plain(fields: &Fields<'_>, role: Role) -> Result<Message, ApiError> {
    let text = text_content(fields.required("content")?, &fields.path("content"))?;
    Ok(Message::text(role, text))
}

fn assistant(fields: &Fields<'_>, calls: &mut Calls) -> Result<Message, ApiError> {
    for key in ["function_call", "audio"] {
        if fields.get(key).is_some() {
            return Err(unsupported(&fields.path(key)));
        }
    }
    let tool_calls = tool_calls(fields)?;
    let content = match fields.get("content") {
        Some(value) => text_content(value, &fields.path("content"))?,
        None if tool_calls.is_empty() => {
            fields.string("refusal")?.ok_or_else(|| missing(&fields.path("content")))?.to_owned()
        }
        None => String::new(),
    };
    calls.extend(tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
    // vLLM's newer name for the same.
    let reasoning = fields.string("reasoning_content")?.or(fields.string("reasoning")?).map(str::to_owned);
    Ok(Message { tool_calls, reasoning, ..Message::text(Role::Assistant, content) })
}

fn tool_calls(fields: &Fields<'_>) -> Result<Vec<ToolCall>, ApiError> {
    let items = fields.array("tool_calls")?.unwrap_or_default();
    let mut calls: Vec<ToolCall> = Vec::with_capacity(items.len());
    for (item, path) in items {
        let item = Fields::of(item, path)?;
        let call = tool_call(&item)?;
        if calls.iter().any(|earlier| earlier.id == call.id) {
            return Err(wrong_value(&item.path("id"), &call.id, "Each call of a message needs its own id."));
        }
        calls.push(call);
    }
    Ok(calls)
}

fn tool_call(fields: &Fields<'_>) -> Result<ToolCall, ApiError> {
    let id = fields.required_string("id")?.to_owned();
    match fields.required_string("type")? {
        "function" => {}
        other => return Err(wrong_value(&fields.path("type"), other, "Supported values are: 'function'.")),
    }
    let function = fields.required_object("function")?;
    let name = function.required_string("name")?.to_owned();
    let text = function.required_string("arguments")?;
    match arguments(text) {
        Ok(arguments) if arguments.is_object() => Ok(ToolCall { id, name, arguments }),
        _ => {
            let hint = "The arguments of a call must be a string that holds a JSON object.";
            Err(wrong_value(&function.path("arguments"), text, hint))
        }
    }
}

/// The arguments of an earlier call; some clients write none as nothing.
pub(super) fn arguments(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(if text.is_empty() { "{}" } else { text })
}

fn tool_result(fields: &Fields<'_>, calls: &Calls) -> Result<Message, ApiError> {
    let id = fields.required_string("tool_call_id")?;
    let Some(name) = calls.get(id) else {
        let path = fields.path("tool_call_id");
        let message = format!(
            "Invalid parameter: '{path}' must be the id of a call in an earlier assistant message; '{}' is not.",
            echo(id)
        );
        return Err(ApiError::at(Kind::InvalidValue, path, message));
    };
    let text = text_content(fields.required("content")?, &fields.path("content"))?;
    Ok(Message { tool_call_id: Some(id.to_owned()), name: Some(name.clone()), ..Message::text(Role::Tool, text) })
}

/// The text of a content that is a string or a list of text parts.
fn text_content(value: &Value, path: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) => text_parts(value, path),
        other => Err(wrong_type(path, "a string or an array of text parts", other)),
    }
}

fn text_parts(value: &Value, path: &str) -> Result<String, ApiError> {
    let parts = array(value, path)?;
    if parts.is_empty() {
        return Err(empty_array(path));
    }
    let mut text = String::new();
    for (part, path) in parts {
        let part = Fields::of(part, path)?;
        match part.required_string("type")? {
            "text" => text.push_str(part.required_string("text")?),
            "refusal" => text.push_str(part.required_string("refusal")?),
            other => {
                let hint = "Only text parts are supported: {\"type\":\"text\",\"text\":…}.";
                return Err(wrong_value(&part.path("type"), other, hint));
            }
        }
    }
    Ok(text)
}
