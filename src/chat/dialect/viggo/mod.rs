//! ViGGO's meaning representations, one a turn: `inform(name[Portal 2], genres[puzzle, platformer], has_mac_release[yes])`.
//!
//! A function is a dialogue act, a parameter an attribute whose value stands in brackets without quotes. What such text
//! cannot hold (nested objects, patterns, brackets) makes a function inexpressible. Knows no template and no tokenizer.

mod attribute;
mod parser;

use super::lark::{ANSWER_OR_CALLS, alternatives, answer_or_calls, start_rule};
use super::{Dialect, Function, TurnParser, TurnSpec, escape};
use crate::chat::json::JsonStyle;
use crate::chat::{ChatError, Message, Tool, ToolCall, ToolChoice, reasoning};
use attribute::Act;
use parser::ActParser;
use serde_json::Value;

const ENVELOPE: &str = include_str!("../../../../grammars/viggo.lark");
/// Separates what every turn needs from what only a turn with a call needs.
const CALLS_MARK: &str = "// --- calls ---\n";

/// The dialect `viggo`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Viggo;

impl Dialect for Viggo {
    fn name(&self) -> &'static str {
        "viggo"
    }

    fn detect(&self) -> &[String] {
        &[]
    }

    fn fixed_texts(&self) -> Vec<&str> {
        Vec::new()
    }

    fn grammar(&self, turn: &TurnSpec<'_>) -> Result<String, ChatError> {
        let start = start_rule(turn);
        let (words, calls) = ENVELOPE.split_once(CALLS_MARK).unwrap_or((ENVELOPE, ""));
        let mut lark = reasoning::start(turn.reasoning, start);
        let names: Vec<String> = turn.tools.iter().map(|(name, _)| escape(name)).collect();
        let call = if names.is_empty() { String::new() } else { format!(" & ~/({})\\((.|\\n)*/", names.join("|")) };
        let thoughts = reasoning::excluded_start(turn.reasoning);
        if start == ANSWER_OR_CALLS {
            // Below, `words_or_calls` stays unused.
            lark.push_str(&answer_or_calls(turn));
        }
        lark.push_str(&words.replace("$CALL", &call).replace("$THOUGHTS", &thoughts));
        if start != "words" {
            lark.push_str(&with_acts(calls, turn)?);
        }
        Ok(lark)
    }

    fn parser(&self, tools: &[Function]) -> Box<dyn TurnParser> {
        // A function that cannot be read has been refused when the grammar was made.
        Box::new(ActParser::new(tools.iter().filter_map(|tool| Act::new(tool).ok()).collect()))
    }

    fn system_prompt(&self, tools: &[Tool], choice: &ToolChoice) -> Result<String, ChatError> {
        let rule = match choice {
            ToolChoice::Named(name) => format!("Use the function {name}."),
            ToolChoice::Required => "Answer with a function only.".to_owned(),
            _ => "Where no function fits, answer in words.".to_owned(),
        };
        let values = Values::of(tools);
        let lines: Vec<_> = tools.iter().map(|tool| values.signature(tool)).collect();
        Ok(format!(
            "Write what the user means as one function with its attributes, each value in brackets:\n\
             FUNCTION(attribute[value], attribute[value])\nThe functions and their attributes, in this order:\n{}\n{}{rule}",
            lines.join("\n"),
            values.line()
        ))
    }

    fn render_results(&self, results: &[Message]) -> Result<String, ChatError> {
        Ok(results.iter().map(|result| result.content.as_str()).collect::<Vec<_>>().join("\n"))
    }

    fn render_calls(&self, calls: &[ToolCall]) -> String {
        calls.iter().map(render_call).collect::<Vec<_>>().join("\n")
    }
}

fn with_acts(envelope: &str, turn: &TurnSpec<'_>) -> Result<String, ChatError> {
    let mut rules = String::new();
    let mut count = 0;
    for (index, tool) in turn.callable().enumerate() {
        let inexpressible =
            |reason| ChatError::Inexpressible { function: tool.0.clone(), dialect: "viggo".to_owned(), reason };
        rules.push_str(&Act::new(tool).map_err(inexpressible)?.rules(index));
        count += 1;
    }
    Ok(envelope.replace("$ACTS", &alternatives("act", count)) + &rules)
}

/// The sets of values that attributes are chosen from, each by the attribute that has it first: functions often share them.
struct Values<'a>(Vec<(&'a str, String)>);

impl<'a> Values<'a> {
    fn of(tools: &'a [Tool]) -> Self {
        let mut known: Vec<(&str, String)> = Vec::new();
        for (name, schema) in tools.iter().flat_map(properties) {
            let is_new = known.iter().all(|(other, _)| *other != name);
            known.extend(alternatives_of(schema).filter(|_| is_new).map(|values| (name.as_str(), values)));
        }
        Self(known)
    }

    /// `name(attribute, attribute[one | other]) - description`; values where they are others than those of the line below.
    fn signature(&self, tool: &Tool) -> String {
        let attribute = |(name, schema): (&String, &Value)| match alternatives_of(schema) {
            Some(values) if !self.0.iter().any(|(other, set)| other == name && *set == values) => {
                format!("{name}[{values}]")
            }
            _ => name.clone(),
        };
        let attributes: Vec<_> = properties(tool).map(attribute).collect();
        let description = tool.description.as_deref().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let description = description.filter(|text| !text.is_empty()).map(|text| format!(" - {text}"));
        format!("{}({}){}", tool.name, attributes.join(", "), description.unwrap_or_default())
    }

    /// `Values: attribute[one | other]` and a line break; nothing where there are none.
    fn line(&self) -> String {
        let sets: Vec<_> = self.0.iter().map(|(name, values)| format!("{name}[{values}]")).collect();
        if sets.is_empty() { String::new() } else { format!("Values: {}\n", sets.join(", ")) }
    }
}

fn properties(tool: &Tool) -> impl Iterator<Item = (&String, &Value)> {
    tool.parameters.as_ref().and_then(|schema| schema["properties"].as_object()).into_iter().flatten()
}

/// `one | other`
fn alternatives_of(schema: &Value) -> Option<String> {
    let values = schema["enum"].as_array()?;
    Some(values.iter().map(plain).collect::<Vec<_>>().join(" | "))
}

fn render_call(call: &ToolCall) -> String {
    let attribute = |(name, value): (&String, &Value)| format!("{name}[{}]", rendered(value));
    let attributes: Vec<_> = call.arguments.as_object().into_iter().flatten().map(attribute).collect();
    format!("{}({})", call.name, attributes.join(", "))
}

fn rendered(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => plain(other),
    }
}

/// A value without quotes. Brackets, which would end it, become round.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => JsonStyle::compact().text(other),
    };
    text.replace('[', "(").replace(']', ")")
}

#[cfg(test)]
mod tests;
