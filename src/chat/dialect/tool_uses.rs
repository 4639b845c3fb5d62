//! The project's own dialect: `{"tool_uses":[{"recipient_name":"functions.NAME","parameters":{…}}]}`.
//!
//! A turn is either words or one such object, spelled without spaces. Knows no template and no tokenizer.

use super::super::json::JsonStyle;
use super::super::{Message, Tool, ToolCall, ToolChoice};
use super::envelope::{EnvelopeParser, Format};
use super::turn::{self, Layout};
use super::typescript;
use super::{Dialect, TurnParser, TurnSpec};
use serde_json::Value;

const PREFIX: &str = "functions.";

const FORMAT: Format = Format {
    open: &["{", "\"tool_uses\"", ":", "[", "{", "\"recipient_name\"", ":"],
    name_prefix: PREFIX,
    between: &[",", "\"parameters\"", ":"],
    close: &["}"],
    next: &[",", "{", "\"recipient_name\"", ":"],
    end: &["]", "}"],
    words_around: false,
};

/// The dialect `tool_uses`.
#[derive(Debug, Clone, Copy)]
pub struct ToolUses;

impl Dialect for ToolUses {
    fn name(&self) -> &'static str {
        "tool_uses"
    }

    fn grammar(&self, turn: &TurnSpec<'_>) -> String {
        let layout = Layout {
            envelope: include_str!("../../../grammars/tool_uses.lark"),
            before_arguments: before_parameters,
            after_arguments: "}",
            style: JsonStyle::compact(),
        };
        turn::grammar(&layout, turn)
    }

    fn parser(&self) -> Box<dyn TurnParser> {
        Box::new(EnvelopeParser::new(&FORMAT))
    }

    fn system_prompt(&self, tools: &[Tool], choice: &ToolChoice) -> String {
        let declarations = typescript::declarations(tools);
        let rule = match choice {
            ToolChoice::Named(name) => format!("Call the function {PREFIX}{name}."),
            ToolChoice::Required => "Answer with function calls only.".to_owned(),
            _ => "Where no function fits, answer in words.".to_owned(),
        };
        format!(
            "# Tools\n\n## functions\n\n{declarations}\n\n\
             To call functions, answer with nothing but compact JSON, one entry per call:\n\
             {{\"tool_uses\":[{{\"recipient_name\":\"{PREFIX}NAME\",\"parameters\":{{\"PARAMETER\":VALUE}}}}]}}\n\
             The results come back as a JSON list in the order of the calls. {rule}"
        )
    }

    fn render_results(&self, results: &[Message]) -> String {
        let items: Vec<_> = results.iter().map(|result| json_or_quoted(&result.content)).collect();
        format!("[{}]", items.join(","))
    }

    fn render_calls(&self, calls: &[ToolCall]) -> String {
        let entry = |call: &ToolCall| {
            format!("{}{}}}", before_parameters(&call.name), JsonStyle::compact().text(&call.arguments))
        };
        format!("{{\"tool_uses\":[{}]}}", calls.iter().map(entry).collect::<Vec<_>>().join(","))
    }
}

fn before_parameters(name: &str) -> String {
    let recipient = Value::from(format!("{PREFIX}{name}"));
    format!("{{\"recipient_name\":{recipient},\"parameters\":")
}

/// A result that is JSON stays as it is; anything else becomes a JSON string.
fn json_or_quoted(content: &str) -> String {
    let content = content.trim();
    match serde_json::from_str::<serde::de::IgnoredAny>(content) {
        Ok(_) => content.to_owned(),
        Err(_) => Value::from(content).to_string(),
    }
}
