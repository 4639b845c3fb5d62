//! instruction_tune: `instruction`, `input` with `user_question` and `function_call_example`, `output` with `function_call`.
//!
//! The example is a call, often the wanted one itself: only its name and the types of its arguments go into the
//! conversation, as the declaration of the function. The instruction is the system text.

use super::super::calls;
use super::super::dialogue::Dialogue;
use super::super::fields::{optional_text, text};
use super::super::literal;
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Conversation, Role, Tool};
use serde_json::{Map, Value as Json, json};

/// Whether a row is of this format and not plain Alpaca.
pub(super) fn has_example(row: &Json) -> bool {
    object(row, "input").is_ok_and(|input| input.get("function_call_example").is_some())
}

/// The conversation of a row.
pub(super) fn row(row: &Json) -> Result<Conversation, Flaw> {
    let (input, output) = (object(row, "input")?, object(row, "output")?);
    let example = calls::list(&input["function_call_example"])?;
    let wanted = calls::list(&output["function_call"])?;
    let mut dialogue = Dialogue::default();
    dialogue.say(Role::System, optional_text(row, "instruction")?.unwrap_or_default());
    dialogue.say(Role::User, text(&input, "user_question")?);
    if let Some(call) = wanted.iter().find(|call| !example.iter().any(|shown| shown.name == call.name)) {
        let detail = format!("`{}` is called, but the example shows another function", call.name);
        return Err(Flaw::new(Reason::Call, detail));
    }
    dialogue.call("", wanted);
    let tool = |name: String, arguments: &Json| Tool {
        name,
        description: None,
        parameters: Some(shape(arguments)),
        strict: false,
    };
    dialogue.finish(example.into_iter().map(|call| tool(call.name, &call.arguments)).collect())
}

/// An object field, perhaps as text.
fn object(row: &Json, field: &str) -> Result<Json, Flaw> {
    let value = match &row[field] {
        Json::String(text) => literal::read(text).unwrap_or_default(),
        value => value.clone(),
    };
    match value.is_object() {
        true => Ok(value),
        false => Err(Flaw::new(Reason::Field, format!("`{field}` must be an object"))),
    }
}

/// The schema that a value is an example of.
fn shape(value: &Json) -> Json {
    match value {
        Json::Null => json!({}),
        Json::Bool(_) => json!({"type": "boolean"}),
        Json::Number(_) => json!({"type": "number"}),
        Json::String(_) => json!({"type": "string"}),
        Json::Array(items) => match items.first() {
            Some(item) => json!({"type": "array", "items": shape(item)}),
            None => json!({"type": "array"}),
        },
        Json::Object(map) => {
            let properties: Map<_, _> = map.iter().map(|(name, value)| (name.clone(), shape(value))).collect();
            let required: Vec<_> = map.keys().collect();
            json!({"type": "object", "properties": properties, "required": required})
        }
    }
}
