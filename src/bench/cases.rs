//! Questions with the tools that answer them: a built-in handful, or a file of the caller's.
//!
//! Knows no server. A file is a JSON list of tools, or JSON lines of such lists or of objects with `tools` (BFCL's `function`
//! too) and `question`.

use super::BenchError;
use crate::grammar::schema::standardised;
use crate::inspect;
use serde_json::{Value, json};
use std::path::Path;

pub(super) const BUILT_IN: &str = include_str!("tools.jsonl");
const NO_QUESTION: &str = "Use one of the functions.";

/// A question, and the tools that it comes with (at least one).
#[derive(Debug)]
pub(super) struct Case {
    pub(super) question: String,
    pub(super) tools: Vec<Tool>,
}

/// A function with a check of its arguments.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    /// OpenAI's tool object.
    pub(super) json: Value,
    pub(super) arguments: jsonschema::Validator,
}

impl Tool {
    fn new(mut json: Value) -> Result<Self, String> {
        let function = &mut json["function"];
        let name = function["name"].as_str().ok_or("a tool has no function name")?.to_owned();
        let given = function.get("parameters").filter(|given| !given.is_null()).cloned();
        // Catalogues write Python's type names; other servers do not know them.
        let parameters = standardised(&given.unwrap_or_else(|| json!({"type": "object", "properties": {}})));
        let arguments = jsonschema::validator_for(&parameters).map_err(|error| format!("tool `{name}`: {error}"))?;
        function["parameters"] = parameters;
        Ok(Self { name, json, arguments })
    }

    pub(super) fn parameters(&self) -> &Value {
        &self.json["function"]["parameters"]
    }
}

/// The cases of a file; without one, the built-in ones.
pub(super) fn read(file: Option<&Path>) -> Result<Vec<Case>, BenchError> {
    let (name, text) = match file {
        Some(path) => (path.display().to_string(), std::fs::read_to_string(path).map_err(BenchError::io(path))?),
        None => ("built-in tools".to_owned(), BUILT_IN.to_owned()),
    };
    let cases = parse(&text).map_err(|reason| BenchError::Usage(format!("{name}: {reason}")))?;
    if cases.is_empty() {
        return Err(BenchError::Usage(format!("{name}: no tools")));
    }
    Ok(cases)
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    if let Ok(whole) = serde_json::from_str::<Value>(text) {
        return Ok(vec![case(&whole)?]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| read_line(line).map_err(|reason| format!("line {}: {reason}", index + 1))).collect()
}

fn read_line(line: &str) -> Result<Case, String> {
    case(&serde_json::from_str(line).map_err(|error| error.to_string())?)
}

fn case(given: &Value) -> Result<Case, String> {
    let tools = ["tools", "function", "functions"].iter().find_map(|key| given.get(key)).unwrap_or(given);
    let tools = inspect::tools(tools).map_err(|error| error.to_string())?;
    let tools = tools.into_iter().map(Tool::new).collect::<Result<Vec<_>, _>>()?;
    if tools.is_empty() {
        return Err("the list of tools is empty".to_owned());
    }
    Ok(Case { question: question(given).unwrap_or(NO_QUESTION).to_owned(), tools })
}

/// A text, or the last message of a (nested) list of messages.
fn question(given: &Value) -> Option<&str> {
    let mut asked = given.get("question").or_else(|| given.get("messages"))?;
    while let Value::Array(list) = asked {
        asked = list.last()?;
    }
    asked.as_str().or_else(|| asked["content"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::schema::admit_parameters;

    #[test]
    fn every_built_in_schema_can_be_enforced() {
        let cases = read(None).unwrap();
        let tools: Vec<&Tool> = cases.iter().flat_map(|case| &case.tools).collect();
        assert!(cases.len() >= 5 && tools.len() >= 10);
        for tool in tools {
            admit_parameters(&Some(tool.parameters().clone())).unwrap();
            assert!(!tool.arguments.is_valid(&json!({})), "{} demands nothing", tool.name);
        }
    }

    #[test]
    fn lists_lines_and_catalogue_rows_are_read() {
        let list = parse(r#"[{"name": "f"}, {"type": "function", "function": {"name": "g"}}]"#).unwrap();
        assert_eq!(list[0].tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["f", "g"]);
        let rows = r#"{"id": "a", "question": [[{"role": "user", "content": "How many?"}]], "function": [{"name": "f", "parameters": {"type": "dict", "properties": {}}}]}
                      {"question": "Who?", "tools": [{"name": "g"}]}"#;
        let rows = parse(rows).unwrap();
        assert_eq!((rows[0].question.as_str(), rows[1].question.as_str()), ("How many?", "Who?"));
        assert_eq!(rows[0].tools[0].parameters()["type"], "object");
    }

    #[test]
    fn what_is_no_tool_is_named_with_its_line() {
        for (text, told) in [
            ("[]", "empty"),
            ("7", "must be a list"),
            ("[{\"name\": \"f\"}]\n[{}]", "line 2"),
            (r#"[{"name": "f", "parameters": {"type": "strin"}}]"#, "tool `f`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
