//! The tools of a request: admitted once, for the grammar and for the check of finished calls.
//!
//! The caller's own schema, with standard type names, is what the check uses; only the grammar sees the normalised copy.

use super::spoken::Call;
use crate::api::error::{ApiError, Kind};
use crate::api::wire::ChatRequest;
use crate::chat::dialect::Function;
use crate::chat::{Names, Tool, ToolChoice};
use crate::grammar::{GrammarError, schema, strict_json};
use jsonschema::Validator;
use serde_json::{Value, json};

/// Tools whose schemas are enforceable: those that may be called.
#[derive(Default)]
pub(in crate::api) struct AdmittedTools {
    /// Names, and schemas normalised for the grammar.
    pub(super) functions: Vec<Function>,
    /// Of each function: its place in the caller's `tools`, and the caller's schema.
    callers: Vec<(usize, Validator)>,
    /// What the caller calls them.
    pub(super) names: Names,
}

impl AdmittedTools {
    /// Admits every tool's schema; the first that cannot be enforced exactly is refused by name.
    pub(in crate::api) fn admit(request: &ChatRequest) -> Result<Self, ApiError> {
        let conversation = &request.conversation;
        let mut tools = Self { names: request.names.clone(), ..Self::default() };
        for (index, tool) in conversation.tools.iter().enumerate() {
            let (schema, validator) = admit(index, tool, request.names.given(&tool.name))?;
            if request.callable.contains(&index) && may_name(&conversation.tool_choice, &tool.name) {
                tools.functions.push((tool.name.clone(), schema));
                tools.callers.push((index, validator));
            }
        }
        Ok(tools)
    }

    /// The refusal of the function at `position`, in the caller's words; `None` without such a function.
    pub(super) fn refusal(&self, position: usize, message: &str) -> Option<ApiError> {
        let ((name, _), (index, _)) = self.functions.get(position).zip(self.callers.get(position))?;
        Some(bad_parameters(*index, self.names.given(name), message))
    }

    /// Checks a finished call's arguments against the caller's schema.
    pub(super) fn check_call(&self, call: &Call) -> Result<(), String> {
        let position = self.functions.iter().position(|(name, _)| self.names.given(name) == call.name);
        let Some((_, validator)) = position.map(|position| &self.callers[position]) else {
            return Err(format!("call of `{}`, which may not be called", call.name));
        };
        check(validator, &call.arguments).map_err(|cause| format!("call of `{}`: {cause}", call.name))
    }
}

fn may_name(choice: &ToolChoice, name: &str) -> bool {
    !matches!(choice, ToolChoice::Named(wanted) if wanted != name)
}

/// The schema for the grammar and the check of the caller's own; `given` is the caller's name of the tool.
fn admit(index: usize, tool: &Tool, given: &str) -> Result<(Value, Validator), ApiError> {
    let none = json!({"type": "object", "properties": {}});
    let original = tool.parameters.as_ref().unwrap_or(&none);
    if let Some(parameters) = tool.parameters.as_ref().filter(|_| tool.strict) {
        schema::check_strict(parameters).map_err(|error| bad_parameters(index, given, &explain(&error)))?;
    }
    let schema =
        schema::admit_parameters(&tool.parameters).map_err(|error| bad_parameters(index, given, &explain(&error)))?;
    let validator = validator(original).map_err(|cause| bad_parameters(index, given, &cause))?;
    Ok((schema, validator))
}

/// `format` is not asserted: it is an annotation, and the grammar enforces what it can.
pub(super) fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::options().should_validate_formats(false).build(schema).map_err(|error| error.to_string())
}

/// Reads JSON strictly and validates it.
pub(super) fn check(validator: &Validator, text: &str) -> Result<(), String> {
    let value = strict_json::parse(text).map_err(|error| error.to_string())?;
    validator.validate(&value).map_err(|error| format!("at `{}`: {error}", error.instance_path()))
}

/// The place in the caller's schema, then what is wrong there.
pub(super) fn explain(error: &GrammarError) -> String {
    match error {
        GrammarError::Schema { pointer, message } => format!("In context=({pointer}), {message}"),
        GrammarError::TooComplex { pointer, message } => {
            format!("In context=({pointer}), schema_too_complex: {message}")
        }
        other => other.to_string(),
    }
}

fn bad_parameters(index: usize, name: &str, cause: &str) -> ApiError {
    let message = format!("Invalid schema for function '{name}': {cause}");
    ApiError::at(Kind::InvalidFunctionParameters, format!("tools[{index}].function.parameters"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_against_the_callers_schema_without_formats() {
        let schema = json!({"type": "object", "properties": {"day": {"type": "string", "format": "date"}, "n": {"type": "integer", "maximum": 3}}, "required": ["n"]});
        let validator = validator(&schema).unwrap();
        assert!(check(&validator, r#"{"n":3,"day":"someday"}"#).is_ok());
        assert!(check(&validator, r#"{"n":4}"#).unwrap_err().contains("/n"));
        assert!(check(&validator, r#"{"n":"#).is_err());
    }

    #[test]
    fn a_schema_error_names_the_tool_and_the_place() {
        let error = GrammarError::Schema { pointer: "/properties/x".into(), message: "unknown type `foo`".into() };
        let error = bad_parameters(13, "f", &explain(&error));
        assert_eq!(error.param(), Some("tools[13].function.parameters"));
        assert_eq!(
            error.to_string(),
            "Invalid schema for function 'f': In context=(/properties/x), unknown type `foo`"
        );
    }

    #[test]
    fn a_strict_function_is_held_to_openais_rules() {
        let parameters =
            json!({"type": "object", "properties": {"b": {"type": "null"}}, "additionalProperties": false});
        let tool = |strict| Tool { name: "f".into(), description: None, parameters: Some(parameters.clone()), strict };
        assert!(admit(0, &tool(false), "f").is_ok());
        let error = admit(0, &tool(true), "f").err().unwrap();
        assert_eq!(error.param(), Some("tools[0].function.parameters"));
        assert_eq!(
            error.to_string(),
            "Invalid schema for function 'f': In context=(), 'required' is required to be supplied and to be an array \
             including every key in properties. Missing 'b'."
        );
    }

    #[test]
    fn a_remote_reference_is_not_fetched() {
        assert!(validator(&json!({"$ref": "http://127.0.0.1:1/schema.json"})).is_err());
    }
}
