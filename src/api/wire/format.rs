//! The form of an answer: OpenAI's `response_format`, or vLLM's `structured_outputs`.

use super::fields::{Fields, array, string, wrong_type, wrong_value};
use super::unsupported::unsupported;
use crate::api::error::{ApiError, Kind};
use serde_json::Value;

/// The form of the answer's text.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) enum ResponseFormat {
    Text,
    JsonObject,
    /// JSON that this schema describes, as the caller wrote it; `strict` asks for OpenAI's subset.
    JsonSchema {
        schema: Value,
        strict: bool,
        /// Where the schema stands in the request.
        param: &'static str,
    },
    /// Text that the whole expression describes.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text of a Lark grammar, as llguidance reads it.
    Lark(String),
}

impl ResponseFormat {
    /// The field that asks for it.
    pub(in crate::api) fn param(&self) -> &'static str {
        match self {
            Self::Text | Self::JsonObject => "response_format",
            Self::JsonSchema { param, .. } => param,
            Self::Regex(_) => "structured_outputs.regex",
            Self::Choice(_) => "structured_outputs.choice",
            Self::Lark(_) => "structured_outputs.grammar",
        }
    }
}

/// Checks `response_format` and `structured_outputs`, of which one may ask for a form.
pub(super) fn parse(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    let format = response_format(fields)?;
    let Some(structured) = fields.object("structured_outputs")? else { return Ok(format) };
    if format != ResponseFormat::Text {
        let message = "Send either 'response_format' or 'structured_outputs', not both.";
        return Err(ApiError::at(Kind::ParameterCombination, "structured_outputs", message));
    }
    structured_outputs(&structured)
}

fn response_format(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    match fields.object("response_format")? {
        Some(format) => typed(&format, |format| format.required_object("json_schema"), "response_format"),
        None => Ok(ResponseFormat::Text),
    }
}

/// An object with a `type`; `described` finds in it what describes a schema, `param` is the name that errors give it.
pub(super) fn typed<'a>(
    format: &Fields<'a>,
    described: impl Fn(&Fields<'a>) -> Result<Fields<'a>, ApiError>,
    param: &'static str,
) -> Result<ResponseFormat, ApiError> {
    match format.required_string("type")? {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => json_schema(&described(format)?, param),
        other => {
            let known = "Supported values are: 'text', 'json_object' and 'json_schema'.";
            Err(wrong_value(&format.path("type"), other, known))
        }
    }
}

/// One of vLLM's kinds of constraint. Its switches are accepted where they say what is done anyway.
fn structured_outputs(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    const KINDS: [&str; 5] = ["json", "json_object", "regex", "choice", "grammar"];
    let mut wanted = None;
    for key in fields.keys() {
        match key {
            _ if fields.get(key) == Some(&Value::Bool(false)) => {}
            "disable_fallback" | "disable_any_whitespace" if fields.boolean(key)? == Some(true) => {}
            kind if KINDS.contains(&kind) && wanted.is_none() => wanted = Some(kind),
            kind if KINDS.contains(&kind) => {
                let message = format!("'structured_outputs' takes one of: {}.", KINDS.join(", "));
                return Err(ApiError::at(Kind::ParameterCombination, fields.path(kind), message));
            }
            other => return Err(unsupported(&fields.path(other))),
        }
    }
    let Some(kind) = wanted else { return Ok(ResponseFormat::Text) };
    match kind {
        "json" => structured_json(fields),
        "regex" => Ok(ResponseFormat::Regex(fields.required_string("regex")?.to_owned())),
        "grammar" => Ok(ResponseFormat::Lark(fields.required_string("grammar")?.to_owned())),
        "choice" => {
            let texts = array(fields.required("choice")?, &fields.path("choice"))?;
            let texts = texts.into_iter().map(|(text, path)| Ok(string(text, &path)?.to_owned()));
            Ok(ResponseFormat::Choice(texts.collect::<Result<_, ApiError>>()?))
        }
        _ => Ok(if fields.boolean(kind)? == Some(true) { ResponseFormat::JsonObject } else { ResponseFormat::Text }),
    }
}

/// A schema, or its text.
fn structured_json(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    let path = fields.path("json");
    let schema = match fields.required("json")? {
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object),
        schema => Some(schema.clone()).filter(Value::is_object),
    };
    let schema = schema.ok_or_else(|| {
        ApiError::at(Kind::InvalidType, path, "'structured_outputs.json' must be a JSON Schema object, or its text.")
    })?;
    Ok(ResponseFormat::JsonSchema { schema, strict: false, param: "structured_outputs.json" })
}

fn json_schema(fields: &Fields<'_>, param: &'static str) -> Result<ResponseFormat, ApiError> {
    fields.required_string("name")?;
    fields.string("description")?;
    let strict = fields.boolean("strict")?.unwrap_or(false);
    match fields.required("schema")? {
        schema @ Value::Object(_) => Ok(ResponseFormat::JsonSchema { schema: schema.clone(), strict, param }),
        other => Err(wrong_type(&fields.path("schema"), "an object", other)),
    }
}
