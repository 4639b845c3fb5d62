//! Hermes / Qwen: `<tool_call>{"name":…,"arguments":…}</tool_call>`.
//!
//! Words may stand before the calls. JSON is spelled as Python's `json.dumps` spells it, because that is what the templates
//! of these models print. Knows no template and no tokenizer.

use super::super::json::JsonStyle;
use super::super::{Message, Tool, ToolCall, ToolChoice};
use super::envelope::{EnvelopeParser, Format};
use super::turn::{self, Layout};
use super::{Dialect, TurnParser, TurnSpec};
use serde_json::{Value, json};

const FORMAT: Format = Format {
    open: &["<tool_call>", "{", "\"name\"", ":"],
    name_prefix: "",
    between: &[",", "\"arguments\"", ":"],
    close: &["}", "</tool_call>"],
    next: &[],
    end: &[],
    words_around: true,
};

/// The dialect `hermes`.
#[derive(Debug, Clone, Copy)]
pub struct Hermes;

impl Dialect for Hermes {
    fn name(&self) -> &'static str {
        "hermes"
    }

    fn grammar(&self, turn: &TurnSpec<'_>) -> String {
        let layout = Layout {
            envelope: include_str!("../../../grammars/hermes.lark"),
            before_arguments,
            after_arguments: "}",
            style: JsonStyle::spaced(),
        };
        turn::grammar(&layout, turn)
    }

    fn parser(&self) -> Box<dyn TurnParser> {
        Box::new(EnvelopeParser::new(&FORMAT))
    }

    fn system_prompt(&self, tools: &[Tool], choice: &ToolChoice) -> String {
        let lines: Vec<_> = tools.iter().map(signature).collect();
        let rule = match choice {
            ToolChoice::Named(name) => format!("\n\nCall the function {name}."),
            ToolChoice::Required => "\n\nAnswer with function calls only.".to_owned(),
            _ => String::new(),
        };
        format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
             You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\n\
             For each function call, return a json object with function name and arguments within \
             <tool_call></tool_call> XML tags:\n\
             <tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>{rule}",
            lines.join("\n")
        )
    }

    fn render_results(&self, results: &[Message]) -> String {
        let block = |result: &Message| format!("<tool_response>\n{}\n</tool_response>", result.content);
        results.iter().map(block).collect::<Vec<_>>().join("\n")
    }

    fn render_calls(&self, calls: &[ToolCall]) -> String {
        let block = |call: &ToolCall| {
            let arguments = JsonStyle::spaced().text(&call.arguments);
            format!("<tool_call>\n{}{arguments}}}\n</tool_call>", before_arguments(&call.name))
        };
        calls.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

fn before_arguments(name: &str) -> String {
    format!("{{\"name\": {}, \"arguments\": ", Value::from(name))
}

fn signature(tool: &Tool) -> String {
    let mut function = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        function["description"] = description.clone().into();
    }
    function["parameters"] = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    JsonStyle::spaced().text(&json!({"type": "function", "function": function}))
}
