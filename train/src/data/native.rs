//! The native file format: one OpenAI chat conversation a line, `{"messages":[…],"tools":[…]}`, both ways. As in OpenAI's
//! fine-tuning format `"weight": 0` on an assistant message keeps it from being trained on; `"metadata": {"class": …}` says what
//! the conversation is an example of.
//!
//! Knows the field names and what each must hold; does not check calls against their schemas.

use super::{DataError, Dialogue, json};
use callsmith::chat::{Conversation, Message, Names, Role, Tool, ToolCall, ToolChoice};
use callsmith::grammar::schema::standardised;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

/// The conversation as one JSON object. Arguments are JSON text, as in the OpenAI format.
pub fn to_json(conversation: &Conversation) -> Json {
    let mut object = json!({"messages": conversation.messages.iter().map(message_to_json).collect::<Vec<_>>()});
    if !conversation.tools.is_empty() {
        object["tools"] = conversation.tools.iter().map(tool_to_json).collect();
    }
    match &conversation.tool_choice {
        ToolChoice::Auto => {}
        ToolChoice::None => object["tool_choice"] = json!("none"),
        ToolChoice::Required => object["tool_choice"] = json!("required"),
        ToolChoice::Named(name) => object["tool_choice"] = json!({"type": "function", "function": {"name": name}}),
    }
    if !conversation.parallel_tool_calls {
        object["parallel_tool_calls"] = json!(false);
    }
    object
}

/// As [`to_json`], with the class and `"weight": 0` on the messages that are not trained on.
pub fn dialogue_to_json(dialogue: &Dialogue) -> Json {
    let mut object = to_json(&dialogue.conversation);
    for &index in &dialogue.untrained {
        object["messages"][index]["weight"] = json!(0);
    }
    if let Some(class) = &dialogue.class {
        object["metadata"] = json!({"class": class});
    }
    object
}

fn message_to_json(message: &Message) -> Json {
    let mut object = json!({"role": message.role, "content": message.content});
    if !message.tool_calls.is_empty() {
        if message.content.is_empty() {
            object["content"] = Json::Null;
        }
        object["tool_calls"] = message.tool_calls.iter().map(call_to_json).collect();
    }
    if let Some(reasoning) = &message.reasoning {
        object["reasoning_content"] = json!(reasoning);
    }
    if let Some(id) = &message.tool_call_id {
        object["tool_call_id"] = json!(id);
    }
    if let Some(name) = &message.name {
        object["name"] = json!(name);
    }
    object
}

fn call_to_json(call: &ToolCall) -> Json {
    let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
    json!({"id": call.id, "type": "function", "function": function})
}

fn tool_to_json(tool: &Tool) -> Json {
    let mut function = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    if let Some(parameters) = &tool.parameters {
        function["parameters"] = parameters.clone();
    }
    if tool.strict {
        function["strict"] = json!(true);
    }
    json!({"type": "function", "function": function})
}

/// Reads one line, for what asks only what was said; `place` says where it comes from, for errors.
///
/// # Errors
/// Text that is not JSON, or a field that is missing or wrong, by name.
pub fn from_line(line: &str, place: &str) -> Result<Conversation, DataError> {
    Ok(dialogue_from_line(line, place)?.conversation)
}

/// Reads one line with the weights of its messages; `place` says where it comes from, for errors.
///
/// # Errors
/// As [`from_line`].
pub fn dialogue_from_line(line: &str, place: &str) -> Result<Dialogue, DataError> {
    let json = json::read(line).map_err(|e| DataError::Json { place: place.to_owned(), problem: e.to_string() })?;
    dialogue_from_json(&json, place)
}

/// Reads one conversation; `place` says where it comes from, for errors.
///
/// # Errors
/// A field that is missing or wrong, by name.
pub fn from_json(json: &Json, place: &str) -> Result<Conversation, DataError> {
    Ok(dialogue_from_json(json, place)?.conversation)
}

/// Reads one conversation with the weights of its messages; `place` says where it comes from, for errors.
///
/// # Errors
/// As [`from_json`].
pub fn dialogue_from_json(json: &Json, place: &str) -> Result<Dialogue, DataError> {
    let root = Reader { place, path: String::new(), value: json };
    let object = root.object()?;
    root.refuse_older(object, "functions", "tools")?;
    root.refuse_older(object, "function_call", "tool_choice")?;
    let items = root.field(object, "messages")?.items()?;
    let messages = items.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let untrained = untrained(&items)?;
    if messages.is_empty() {
        return Err(root.at("messages", json).error("must hold at least one message"));
    }
    let tools = match root.optional(object, "tools") {
        Some(tools) => tools.items()?.iter().map(tool).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let tool_choice = root.optional(object, "tool_choice").map_or(Ok(ToolChoice::Auto), |c| choice(&c))?;
    let parallel_tool_calls = root.optional(object, "parallel_tool_calls").map_or(Ok(true), |p| p.boolean())?;
    let mut conversation = Conversation { messages, tools, tool_choice, parallel_tool_calls };
    // As the server shows them: what is trained is what is served.
    Names::legalise(&mut conversation);
    let class = json["metadata"]["class"].as_str().map(str::to_owned);
    Ok(Dialogue { conversation, untrained, class })
}

/// The messages with `"weight": 0`.
fn untrained(messages: &[Reader<'_>]) -> Result<BTreeSet<usize>, DataError> {
    let mut untrained = BTreeSet::new();
    for (index, message) in messages.iter().enumerate() {
        let object = message.object()?;
        let Some(weight) = message.optional(object, "weight") else { continue };
        if object.get("role").and_then(Json::as_str) != Some("assistant") {
            return Err(weight.error("belongs to assistant messages, the only ones that are trained on; remove it"));
        }
        match weight.value.as_f64() {
            Some(0.0) => drop(untrained.insert(index)),
            Some(1.0) => {}
            _ => return Err(weight.error("must be 0 (shown, but not trained on) or 1")),
        }
    }
    Ok(untrained)
}

/// A JSON value and the way to it.
struct Reader<'a> {
    place: &'a str,
    path: String,
    value: &'a Json,
}

impl<'a> Reader<'a> {
    fn error(&self, problem: impl Into<String>) -> DataError {
        DataError::Field { place: self.place.to_owned(), field: self.path.clone(), problem: problem.into() }
    }

    fn at(&self, key: &str, value: &'a Json) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { place: self.place, path, value }
    }

    fn object(&self) -> Result<&'a Map<String, Json>, DataError> {
        self.value.as_object().ok_or_else(|| self.error("must be an object"))
    }

    fn field(&self, object: &'a Map<String, Json>, key: &str) -> Result<Self, DataError> {
        self.optional(object, key).ok_or_else(|| self.at(key, self.value).error("is missing"))
    }

    /// A field that is there and not null.
    fn optional(&self, object: &'a Map<String, Json>, key: &str) -> Option<Self> {
        object.get(key).filter(|v| !v.is_null()).map(|value| self.at(key, value))
    }

    /// OpenAI's API had other names for calls once; a file that has them would lose its calls.
    fn refuse_older(&self, object: &'a Map<String, Json>, older: &str, name: &str) -> Result<(), DataError> {
        match self.optional(object, older) {
            Some(field) => Err(field.error(format!("is the older form, which is not read; write it as `{name}`"))),
            None => Ok(()),
        }
    }

    /// A text, or the text of a list of text parts.
    fn content(&self) -> Result<String, DataError> {
        if !self.value.is_array() {
            return self.string();
        }
        let part = |part: Self| {
            let fields = part.object()?;
            match part.field(fields, "type")?.string()?.as_str() {
                "text" => part.field(fields, "text")?.string(),
                other => Err(part.error(format!("is a part of type `{other}`; only text is read"))),
            }
        };
        self.items()?.into_iter().map(part).collect()
    }

    fn items(&self) -> Result<Vec<Self>, DataError> {
        let items = self.value.as_array().ok_or_else(|| self.error("must be a list"))?;
        let one =
            |(at, value): (usize, &'a Json)| Self { place: self.place, path: format!("{}[{at}]", self.path), value };
        Ok(items.iter().enumerate().map(one).collect())
    }

    fn string(&self) -> Result<String, DataError> {
        self.value.as_str().map(str::to_owned).ok_or_else(|| self.error("must be a string"))
    }

    fn boolean(&self) -> Result<bool, DataError> {
        self.value.as_bool().ok_or_else(|| self.error("must be true or false"))
    }
}

fn message(reader: &Reader<'_>) -> Result<Message, DataError> {
    let object = reader.object()?;
    reader.refuse_older(object, "function_call", "tool_calls")?;
    let role = reader.field(object, "role")?;
    let calls = match reader.optional(object, "tool_calls") {
        Some(calls) => calls.items()?.iter().map(call).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let text = |key: &str| reader.optional(object, key).map(|r| r.string()).transpose();
    let content = reader.optional(object, "content").map(|r| r.content()).transpose()?;
    if content.is_none() && calls.is_empty() {
        return Err(reader
            .at("content", reader.value)
            .error("is missing; only a message with `tool_calls` may go without"));
    }
    Ok(Message {
        role: role_named(&role)?,
        content: content.unwrap_or_default(),
        reasoning: text("reasoning_content")?,
        tool_calls: calls,
        tool_call_id: text("tool_call_id")?,
        name: text("name")?,
    })
}

fn role_named(reader: &Reader<'_>) -> Result<Role, DataError> {
    match reader.string()?.as_str() {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => Err(reader.error(format!("unknown role `{other}`; known: system, user, assistant, tool"))),
    }
}

fn call(reader: &Reader<'_>) -> Result<ToolCall, DataError> {
    let object = reader.object()?;
    let function = reader.field(object, "function")?;
    let fields = function.object()?;
    let id = reader.optional(object, "id").map(|r| r.string()).transpose()?.unwrap_or_default();
    let name = function.field(fields, "name")?.string()?;
    let written = function.field(fields, "arguments")?;
    let arguments = match written.value {
        Json::String(text) => json::read(text).map_err(|e| written.error(format!("is not JSON text: {e}")))?,
        other => other.clone(),
    };
    if !arguments.is_object() {
        return Err(written.error("must be a JSON object, or the text of one"));
    }
    Ok(ToolCall { id, name, arguments })
}

fn tool(reader: &Reader<'_>) -> Result<Tool, DataError> {
    let object = reader.object()?;
    let function = reader.field(object, "function")?;
    let fields = function.object()?;
    let parameters = function.optional(fields, "parameters");
    if let Some(parameters) = &parameters {
        parameters.object()?;
    }
    Ok(Tool {
        name: function.field(fields, "name")?.string()?,
        description: function.optional(fields, "description").map(|r| r.string()).transpose()?,
        parameters: parameters.map(|p| standardised(p.value)),
        strict: function.optional(fields, "strict").map_or(Ok(false), |r| r.boolean())?,
    })
}

fn choice(reader: &Reader<'_>) -> Result<ToolChoice, DataError> {
    match reader.value.as_str() {
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("none") => return Ok(ToolChoice::None),
        Some("required") => return Ok(ToolChoice::Required),
        Some(other) => {
            return Err(reader.error(format!("unknown `{other}`; known: auto, none, required or a named function")));
        }
        None => {}
    }
    let function = reader.field(reader.object()?, "function")?;
    Ok(ToolChoice::Named(function.field(function.object()?, "name")?.string()?))
}

#[cfg(test)]
mod tests;
