//! A demanded form of an answer's text: the Lark rules that force it, and the check of the finished text.

use super::tools::{check, explain, validator};
use crate::api::error::{ApiError, Kind};
use crate::api::wire::ResponseFormat;
use crate::grammar::{FREE_NAMES, GrammarError, custom, schema, strict_json};
use jsonschema::Validator;
use serde_json::Value;
use std::fmt::Write as _;

/// The rule that a form's rules define.
pub(super) const ANSWER: &str = "answer";
/// Deepest nesting of a `json_object` answer.
const JSON_OBJECT_DEPTH: usize = 16;

/// What a text must be.
pub(in crate::api) struct Form {
    /// Lark rules of a rule [`ANSWER`].
    pub(super) lark: String,
    /// The request's field that demanded it.
    param: &'static str,
    check: Check,
}

enum Check {
    JsonObject,
    Schema(Box<Validator>),
    OneOf(Vec<String>),
    /// The grammar alone can tell.
    Grammar,
}

impl Form {
    /// The form that a request asks for; `None` = free text.
    pub(in crate::api) fn of(format: &ResponseFormat) -> Result<Option<Self>, ApiError> {
        let param = format.param();
        let made = |lark, check| Some(Self { lark, param, check });
        Ok(match format {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => made(json_object_lark(), Check::JsonObject),
            ResponseFormat::JsonSchema { schema, strict, param } => Some(Self::of_schema(schema, *strict, param)?),
            ResponseFormat::Regex(regex) => {
                made(custom::regex(ANSWER, regex).map_err(|error| refused(param, &error))?, Check::Grammar)
            }
            ResponseFormat::Choice(texts) => {
                let lark = custom::choice(ANSWER, texts).map_err(|error| refused(param, &error))?;
                made(lark, Check::OneOf(texts.clone()))
            }
            ResponseFormat::Lark(source) => {
                made(custom::lark(ANSWER, source).map_err(|error| refused(param, &error))?, Check::Grammar)
            }
        })
    }

    fn of_schema(schema: &Value, strict: bool, param: &'static str) -> Result<Self, ApiError> {
        let bad_schema = |cause: &str| bad_schema(param, cause);
        if strict {
            schema::check_strict(schema).map_err(|error| bad_schema(&explain(&error)))?;
        }
        let admitted = schema::admit(schema).map_err(|error| bad_schema(&explain(&error)))?;
        let validator = validator(schema).map_err(|cause| bad_schema(&cause))?;
        let lark = format!("{ANSWER}: %json {admitted}\n");
        Ok(Self { lark, param, check: Check::Schema(Box::new(validator)) })
    }

    /// Its grammar does not compile.
    pub(super) fn refusal(&self, cause: &str) -> ApiError {
        match self.check {
            Check::Schema(_) => bad_schema(self.param, cause),
            _ => ApiError::at(Kind::InvalidGrammar, self.param, format!("Invalid '{}': {cause}", self.param)),
        }
    }

    /// The grammar is the caller's own work: what goes wrong with it is the caller's to mend.
    pub(super) fn is_callers_own(&self) -> bool {
        matches!(self.check, Check::Grammar)
    }

    /// Checks a finished text.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let outcome = match &self.check {
            Check::JsonObject => strict_json::parse(text).map_err(|error| error.to_string()).map(drop),
            Check::Schema(validator) => check(validator, text),
            Check::OneOf(texts) if texts.iter().any(|one| one == text) => Ok(()),
            Check::OneOf(_) => Err("it is none of the choices".to_owned()),
            Check::Grammar => Ok(()),
        };
        outcome.map_err(|cause| format!("formatted text: {cause}"))
    }
}

fn bad_schema(param: &str, cause: &str) -> ApiError {
    ApiError::at(Kind::InvalidJsonSchema, param, format!("Invalid schema for {param}: {cause}"))
}

fn refused(param: &str, error: &GrammarError) -> ApiError {
    ApiError::at(Kind::InvalidGrammar, param, format!("Invalid '{param}': {error}"))
}

/// Any compact JSON object up to a fixed depth: plain parsers limit theirs, so endless nesting must not be sayable.
fn json_object_lark() -> String {
    let mut lark = format!("{FREE_NAMES}{ANSWER}: object0\n");
    lark.push_str(
        "scalar: STRING | NUMBER | \"true\" | \"false\" | \"null\"\n\
         STRING: /\"([^\"\\\\\\x00-\\x1F\\x7F]|\\\\[\"\\\\bfnrt])*\"/\n\
         NUMBER: /-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?/\n",
    );
    for depth in 0..JSON_OBJECT_DEPTH {
        let value = if depth + 1 < JSON_OBJECT_DEPTH { format!("value{}", depth + 1) } else { "scalar".to_owned() };
        let _ = writeln!(lark, "object{depth}: \"{{\" (STRING \":\" {value} (\",\" STRING \":\" {value})*)? \"}}\"");
        if depth > 0 {
            let _ = writeln!(lark, "array{depth}: \"[\" ({value} (\",\" {value})*)? \"]\"");
            let _ = writeln!(lark, "value{depth}: scalar | object{depth} | array{depth}");
        }
    }
    lark
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::text::{self, TextGrammars};

    #[test]
    fn a_json_object_says_no_key_twice() {
        let grammars = TextGrammars::new().unwrap();
        let start = grammars.compile(&format!("start: {ANSWER}\n{}", json_object_lark())).unwrap();
        let accepted = |text: &str| text::verdict(start.fork(), text.as_bytes()).unwrap().accepted;
        assert!(accepted(r#"{"a":1,"b":[{"a":"\n"}],"\\":{}}"#));
        assert!(!accepted(r#"{"a":1,"a":2}"#) && !accepted(r#"{"b":[{"a":1,"a":1}]}"#) && !accepted(r#"{"\/":1}"#));
    }

    #[test]
    fn a_form_checks_its_finished_text() {
        let form = |format| Form::of(&format).unwrap().unwrap();
        let choice = form(ResponseFormat::Choice(vec!["a".into(), "b".into()]));
        assert!(choice.check("b").is_ok() && choice.check("c").is_err());
        let object = form(ResponseFormat::JsonObject);
        assert!(object.check("{\"a\":1}").is_ok() && object.check("{\"a\":1,\"a\":1}").is_err());
    }
}
