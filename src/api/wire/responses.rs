//! The body of `POST /v1/responses`: input items instead of messages, flat tools, `text.format`.

use super::fields::{Fields, array, string, wrong_type, wrong_value};
use super::format::{self, ResponseFormat};
use super::input::{self, Input};
use super::request::{ChatRequest, WireLimits};
use super::unsupported::{self, Elsewhere, unsupported};
use super::{sampling, thinking, tools};
use crate::api::error::{ApiError, Kind};
use crate::chat::{Conversation, Message, Names, Role};
use serde_json::{Map, Value, json};

/// Fields of the other routes, and of OpenAI's own prompts.
pub(super) const NOT_RESPONSE: [Elsewhere; 8] = [
    ("messages", "input"),
    ("prompt", "input"),
    ("max_tokens", "max_output_tokens"),
    ("max_completion_tokens", "max_output_tokens"),
    ("response_format", "text.format"),
    ("structured_outputs", "text.format"),
    ("logprobs", "include"),
    ("return_tokens", ""),
];

/// A request for a response, checked.
#[derive(Debug)]
pub(in crate::api) struct ResponsesRequest {
    /// The same as a chat request; its messages are complete after [`Self::converse`].
    pub(in crate::api) chat: ChatRequest,
    pub(in crate::api) input: Input,
    instructions: Option<String>,
    pub(in crate::api) previous: Option<String>,
    /// The response can be asked for later.
    pub(in crate::api) store: bool,
    /// What the response object repeats of the request.
    pub(in crate::api) repeated: Map<String, Value>,
}

impl ResponsesRequest {
    /// Puts the whole conversation together: instructions, what went before, and the input.
    pub(in crate::api) fn converse(&mut self, history: &[Message]) -> Result<Vec<Message>, ApiError> {
        let mut messages = [history, &self.input.messages].concat();
        input::check_answered(&messages)?;
        input::name_results(&mut messages);
        let system = self.instructions.as_ref().map(|text| Message::text(Role::System, text.clone()));
        self.chat.conversation.messages = system.into_iter().chain(messages.iter().cloned()).collect();
        self.chat.names = Names::legalise(&mut self.chat.conversation);
        Ok(messages)
    }
}

/// Checks a whole request body.
pub(in crate::api) fn parse_responses(
    body: &Map<String, Value>,
    limits: WireLimits,
) -> Result<ResponsesRequest, ApiError> {
    let fields = Fields::root(body);
    refuse(&fields)?;
    let tools = flat_tools(&fields)?;
    let (tool_choice, callable) = tools::flat_choice(&fields, &tools)?;
    let conversation = Conversation {
        messages: Vec::new(),
        tools,
        tool_choice,
        parallel_tool_calls: fields.boolean("parallel_tool_calls")?.unwrap_or(true),
    };
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let max_tokens = fields.integer("max_output_tokens", 1..=i64::from(i32::MAX))?;
    let chat = ChatRequest {
        model: fields.required_string("model")?.to_owned(),
        conversation,
        names: Names::default(),
        callable,
        params: sampling::parse(&fields, limits, logprobs(&fields)?)?,
        max_tokens: max_tokens.map(|tokens| tokens as usize),
        stop: sampling::stop(&fields)?,
        n: 1,
        stream,
        include_usage: true,
        format: text_format(&fields)?,
        return_tokens: false,
        thoughts: thinking::wanted(&fields)?,
    };
    Ok(ResponsesRequest {
        chat,
        input: input::parse(&fields)?,
        instructions: fields.string("instructions")?.map(str::to_owned),
        previous: fields.string("previous_response_id")?.map(str::to_owned),
        store: fields.boolean("store")?.unwrap_or(true),
        repeated: repeated(body),
    })
}

fn refuse(fields: &Fields<'_>) -> Result<(), ApiError> {
    unsupported::refuse(fields, &[], &NOT_RESPONSE)?;
    unsupported::check_ignored(fields, &["store"])?;
    fields.integer("n", 1..=1)?;
    if let Some(options) = fields.object("stream_options")? {
        options.boolean("include_obfuscation")?;
    }
    match fields.string("truncation")? {
        None | Some("disabled") => Ok(()),
        Some(other) => {
            let message = format!("'truncation': '{other}' is not supported: send \"disabled\" or leave it out.");
            Err(ApiError::at(Kind::UnsupportedValue, "truncation", message))
        }
    }
}

/// Function tools; those that OpenAI runs itself do not exist here.
fn flat_tools(fields: &Fields<'_>) -> Result<Vec<crate::chat::Tool>, ApiError> {
    let items = fields.array("tools")?.unwrap_or_default();
    tools::collect(items, |fields| match fields.required_string("type")? {
        "function" => Ok(fields.clone()),
        other => Err(wrong_value(&fields.path("type"), other, "Supported values are: 'function'.")),
    })
}

/// Alternatives to report with each token, if `include` asks for log-probabilities.
fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    const LOGPROBS: &str = "message.output_text.logprobs";
    let top = fields.integer("top_logprobs", 0..=20)?.unwrap_or(0) as usize;
    let mut wanted = top > 0;
    for (item, path) in fields.array("include")?.unwrap_or_default() {
        match string(item, &path)? {
            LOGPROBS => wanted = true,
            // Thoughts are never encrypted here: they come back as they are.
            "reasoning.encrypted_content" => {}
            other => {
                let known = format!("Supported values are: '{LOGPROBS}' and 'reasoning.encrypted_content'.");
                return Err(wrong_value(&path, other, &known));
            }
        }
    }
    Ok(wanted.then_some(top))
}

fn text_format(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    let Some(text) = fields.object("text")? else { return Ok(ResponseFormat::Text) };
    if text.string("verbosity")?.is_some_and(|verbosity| verbosity != "medium") {
        return Err(unsupported("text.verbosity"));
    }
    let Some(format) = text.object("format")? else { return Ok(ResponseFormat::Text) };
    format::typed(&format, |fields| Ok(fields.clone()), "text.format.schema")
}

fn repeated(body: &Map<String, Value>) -> Map<String, Value> {
    let defaults = json!({
        "instructions": null, "max_output_tokens": null, "metadata": {}, "parallel_tool_calls": true,
        "previous_response_id": null, "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [], "top_p": 1.0, "truncation": "disabled", "store": true, "user": null,
    });
    let Value::Object(mut map) = defaults else { return Map::new() };
    for (key, value) in &mut map {
        if let Some(given) = body.get(key).filter(|given| !given.is_null()) {
            *value = given.clone();
        }
    }
    if let Some(tools) = map.get_mut("tools").and_then(Value::as_array_mut) {
        tools.iter_mut().for_each(complete_tool);
    }
    map
}

/// Every function has these fields in a response.
fn complete_tool(tool: &mut Value) {
    if tool["strict"].is_null() {
        tool["strict"] = false.into();
    }
    if tool["parameters"].is_null() {
        tool["parameters"] = Value::Null;
    }
}

/// What a list of input items may be given as.
pub(super) fn parts<'a>(value: &'a Value, path: &str) -> Result<Vec<(&'a Value, String)>, ApiError> {
    if value.is_array() { array(value, path) } else { Err(wrong_type(path, "a string or an array of parts", value)) }
}
