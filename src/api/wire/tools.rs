//! `tools` and `tool_choice`.
//!
//! Schemas are only checked to be objects here, and get standard type names; `grammar::schema` admits them.

use super::fields::{Fields, array, empty_array, string, wrong_type, wrong_value};
use crate::api::error::{ApiError, Kind, echo};
use crate::chat::{Tool, ToolChoice};
use crate::grammar::schema::standardised;
use serde_json::Value;

/// Most tools of one request.
const MAX_TOOLS: usize = 128;
/// Longest function name.
const MAX_NAME: usize = 64;
/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 64 * 1024;

/// Checks `tools`; absent = none. The names are the caller's.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    let Some(items) = fields.array("tools")? else { return Ok(Vec::new()) };
    if items.is_empty() {
        return Err(empty_array("tools"));
    }
    collect(items, function_of)
}

/// The tools of a list; `function_of` finds in an item what describes its function.
pub(super) fn collect<'a>(
    items: Vec<(&'a Value, String)>,
    function_of: impl Fn(&Fields<'a>) -> Result<Fields<'a>, ApiError>,
) -> Result<Vec<Tool>, ApiError> {
    if items.len() > MAX_TOOLS {
        let message =
            format!("Invalid 'tools': array too long. Expected at most {MAX_TOOLS} tools, but got {}.", items.len());
        return Err(ApiError::at(Kind::ArrayTooLong, "tools", message));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (item, path) in items {
        let function = function_of(&Fields::of(item, path)?)?;
        let tool = tool(&function)?;
        if tools.iter().any(|earlier| earlier.name == tool.name) {
            return Err(wrong_value(&function.path("name"), &tool.name, "Function names must be unique."));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// The `function` object of `{"type":"function","function":{…}}`.
fn function_of<'a>(fields: &Fields<'a>) -> Result<Fields<'a>, ApiError> {
    match fields.required_string("type")? {
        "function" => fields.required_object("function"),
        other => Err(wrong_value(&fields.path("type"), other, "Supported values are: 'function'.")),
    }
}

fn tool(fields: &Fields<'_>) -> Result<Tool, ApiError> {
    let name = fields.required_string("name")?;
    check_name(name, &fields.path("name"))?;
    let description = fields.string("description")?;
    if description.is_some_and(|text| text.len() > MAX_DESCRIPTION) {
        let path = fields.path("description");
        let message = format!("Invalid '{path}': string too long. Expected at most {MAX_DESCRIPTION} bytes.");
        return Err(ApiError::at(Kind::StringTooLong, path, message));
    }
    let parameters = match fields.get("parameters") {
        Some(value @ Value::Object(_)) => Some(standardised(value)),
        Some(other) => return Err(wrong_type(&fields.path("parameters"), "an object", other)),
        None => None,
    };
    let strict = fields.boolean("strict")?.unwrap_or(false);
    Ok(Tool { name: name.to_owned(), description: description.map(str::to_owned), parameters, strict })
}

fn check_name(name: &str, path: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::at(Kind::EmptyString, path, format!("Invalid '{path}': empty string.")));
    }
    if name.len() > MAX_NAME {
        let message = format!("Invalid '{path}': string too long. Expected at most {MAX_NAME} characters.");
        return Err(ApiError::at(Kind::StringTooLong, path, message));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return Err(wrong_value(path, name, "Expected a string that matches the pattern '^[a-zA-Z0-9_.-]+$'."));
    }
    Ok(())
}

/// Checks `tool_choice`: the choice, and the indexes of the tools that may be called.
pub(super) fn choice(fields: &Fields<'_>, tools: &[Tool]) -> Result<(ToolChoice, Vec<usize>), ApiError> {
    let all = (0..tools.len()).collect();
    let Some(value) = fields.get("tool_choice") else { return Ok((ToolChoice::Auto, all)) };
    let choice = match value {
        Value::String(word) => (word_choice(word, "tool_choice")?, all),
        Value::Object(_) => object_choice(&Fields::of(value, "tool_choice".to_owned())?, tools, all)?,
        other => return Err(wrong_choice(other)),
    };
    if tools.is_empty() {
        let message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.";
        return Err(ApiError::at(Kind::ToolChoiceWithoutTools, "tool_choice", message));
    }
    Ok(choice)
}

/// The same as the Responses API writes it: flat, and without tools only a call that is demanded is an error.
pub(super) fn flat_choice(fields: &Fields<'_>, tools: &[Tool]) -> Result<(ToolChoice, Vec<usize>), ApiError> {
    let all: Vec<usize> = (0..tools.len()).collect();
    let Some(value) = fields.get("tool_choice") else { return Ok((ToolChoice::Auto, all)) };
    let choice = match value {
        Value::String(word) => (word_choice(word, "tool_choice")?, all),
        Value::Object(_) => flat_object_choice(&Fields::of(value, "tool_choice".to_owned())?, tools, all)?,
        other => return Err(wrong_choice(other)),
    };
    if tools.is_empty() && !matches!(choice.0, ToolChoice::None | ToolChoice::Auto) {
        let message = "Tool choice 'required' must be specified with 'tools' parameter.";
        return Err(ApiError::at(Kind::ToolChoiceWithoutTools, "tool_choice", message));
    }
    Ok(choice)
}

fn flat_object_choice(
    fields: &Fields<'_>,
    tools: &[Tool],
    all: Vec<usize>,
) -> Result<(ToolChoice, Vec<usize>), ApiError> {
    match fields.required_string("type")? {
        "function" => {
            let name = fields.required_string("name")?;
            find(tools, name)?;
            Ok((ToolChoice::Named(name.to_owned()), all))
        }
        "allowed_tools" => allowed_tools(fields, tools, |item| Ok(item.clone())),
        other => Err(unknown_choice(fields, other)),
    }
}

fn wrong_choice(found: &Value) -> ApiError {
    wrong_type("tool_choice", "a string or an object", found)
}

fn unknown_choice(fields: &Fields<'_>, found: &str) -> ApiError {
    wrong_value(&fields.path("type"), found, "Supported values are: 'function' and 'allowed_tools'.")
}

fn word_choice(word: &str, path: &str) -> Result<ToolChoice, ApiError> {
    match word {
        "none" => Ok(ToolChoice::None),
        "auto" => Ok(ToolChoice::Auto),
        "required" => Ok(ToolChoice::Required),
        other => Err(wrong_value(path, other, "Supported values are: 'none', 'auto' and 'required'.")),
    }
}

fn object_choice(fields: &Fields<'_>, tools: &[Tool], all: Vec<usize>) -> Result<(ToolChoice, Vec<usize>), ApiError> {
    match fields.required_string("type")? {
        "function" => {
            let function = fields.required_object("function")?;
            let name = function.required_string("name")?;
            find(tools, name)?;
            Ok((ToolChoice::Named(name.to_owned()), all))
        }
        "allowed_tools" => allowed_tools(&fields.required_object("allowed_tools")?, tools, function_of),
        other => Err(unknown_choice(fields, other)),
    }
}

fn allowed_tools<'a>(
    fields: &Fields<'a>,
    tools: &[Tool],
    function_of: impl Fn(&Fields<'a>) -> Result<Fields<'a>, ApiError>,
) -> Result<(ToolChoice, Vec<usize>), ApiError> {
    let mode_path = fields.path("mode");
    let mode = string(fields.required("mode")?, &mode_path)?;
    if mode == "none" {
        return Err(wrong_value(&mode_path, mode, "Supported values are: 'auto' and 'required'."));
    }
    let choice = word_choice(mode, &mode_path)?;
    let items = array(fields.required("tools")?, &fields.path("tools"))?;
    if items.is_empty() {
        return Err(empty_array(&fields.path("tools")));
    }
    let mut callable = Vec::with_capacity(items.len());
    for (item, path) in items {
        let function = function_of(&Fields::of(item, path)?)?;
        callable.push(find(tools, function.required_string("name")?)?);
    }
    callable.sort_unstable();
    callable.dedup();
    Ok((choice, callable))
}

fn find(tools: &[Tool], name: &str) -> Result<usize, ApiError> {
    // Without any tool the caller hears of the missing tools instead.
    if tools.is_empty() {
        return Ok(0);
    }
    tools.iter().position(|tool| tool.name == name).ok_or_else(|| {
        let message = format!("Tool choice 'function' not found in 'tools' parameter: '{}'.", echo(name));
        ApiError::at(Kind::InvalidValue, "tool_choice", message)
    })
}
