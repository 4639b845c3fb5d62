//! `response_format`: free text, any JSON object, or JSON of a given schema.

use super::fields::{Fields, wrong_type, wrong_value};
use crate::api::error::ApiError;
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
    },
}

/// Checks `response_format`.
pub(super) fn parse(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    let Some(format) = fields.object("response_format")? else { return Ok(ResponseFormat::Text) };
    match format.required_string("type")? {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => json_schema(&format.required_object("json_schema")?),
        other => {
            let known = "Supported values are: 'text', 'json_object' and 'json_schema'.";
            Err(wrong_value(&format.path("type"), other, known))
        }
    }
}

fn json_schema(fields: &Fields<'_>) -> Result<ResponseFormat, ApiError> {
    fields.required_string("name")?;
    fields.string("description")?;
    let strict = fields.boolean("strict")?.unwrap_or(false);
    match fields.required("schema")? {
        schema @ Value::Object(_) => Ok(ResponseFormat::JsonSchema { schema: schema.clone(), strict }),
        other => Err(wrong_type(&fields.path("schema"), "an object", other)),
    }
}
