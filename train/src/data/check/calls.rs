//! Calls against the schemas of their functions, as the server validates them: by the `jsonschema` crate, formats apart.

use callsmith::chat::{Conversation, Tool, ToolCall};
use jsonschema::Validator;
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};

/// Compiled schemas that are kept; files repeat few of them.
const KEPT: usize = 256;

/// The compiled schemas of functions, by their text.
#[derive(Default)]
pub(super) struct Schemas(HashMap<String, Result<Validator, String>>);

impl Schemas {
    /// What is wrong with the first function whose parameters are no schema, or whose name another one has.
    pub(super) fn declarations(&mut self, conversation: &Conversation) -> Option<String> {
        let mut names = HashSet::new();
        if let Some(tool) = conversation.tools.iter().find(|tool| !names.insert(&tool.name)) {
            return Some(format!("two functions are called `{}`", tool.name));
        }
        conversation.tools.iter().find_map(|tool| {
            let problem = self.of(tool).as_ref().err()?;
            Some(format!("parameters of `{}`: {problem}", tool.name))
        })
    }

    /// What is wrong with the first call that may not be.
    pub(super) fn calls(&mut self, conversation: &Conversation) -> Option<String> {
        let mut calls = conversation.messages.iter().flat_map(|message| &message.tool_calls);
        calls.find_map(|call| self.call(&conversation.tools, call))
    }

    fn call(&mut self, tools: &[Tool], call: &ToolCall) -> Option<String> {
        let Some(tool) = tools.iter().find(|tool| tool.name == call.name) else {
            return Some(format!("function `{}` is not offered", call.name));
        };
        // A schema that is none is a problem of its own.
        let error = self.of(tool).as_ref().ok()?.validate(&call.arguments).err()?;
        Some(format!("call of `{}`, at `{}`: {error}", call.name, error.instance_path()))
    }

    fn of(&mut self, tool: &Tool) -> &Result<Validator, String> {
        let none = || json!({"type": "object", "properties": {}});
        let schema = tool.parameters.clone().unwrap_or_else(none);
        let text = schema.to_string();
        if self.0.len() >= KEPT && !self.0.contains_key(&text) {
            self.0.clear();
        }
        self.0.entry(text).or_insert_with(|| compile(&schema))
    }
}

fn compile(schema: &Json) -> Result<Validator, String> {
    jsonschema::options().should_validate_formats(false).build(schema).map_err(|error| error.to_string())
}
