//! How a dialect shows tools and results to models whose chat template shows none: two small Jinja templates.

use super::super::jinja::Jinja;
use super::super::{ChatError, Message, Tool, ToolChoice};
use super::description::PromptFile;
use super::{parameter_list, typescript};
use minijinja::Environment;
use minijinja::value::Serde;
use serde_json::{Value, json};

/// The compiled templates.
#[derive(Debug)]
pub(super) struct Prompt {
    system: Jinja,
    results: Jinja,
}

impl Prompt {
    /// Compiles both and renders them once, so that a broken file is told at start.
    pub(super) fn new(file: &PromptFile) -> Result<Self, ChatError> {
        let system = Jinja::compile_with(&file.system, add_filters)?;
        let results = Jinja::compile_with(&file.results, add_filters)?;
        let prompt = Self { system, results };
        let tool = Tool { name: "example".into(), description: None, parameters: None, strict: false };
        prompt.system(&[tool], &ToolChoice::Auto)?;
        prompt.results(&[Message::text(super::super::Role::Tool, "example")])?;
        Ok(prompt)
    }

    pub(super) fn system(&self, tools: &[Tool], choice: &ToolChoice) -> Result<String, ChatError> {
        let (choice, function) = match choice {
            ToolChoice::None => ("none", None),
            ToolChoice::Auto => ("auto", None),
            ToolChoice::Required => ("required", None),
            ToolChoice::Named(name) => ("named", Some(name)),
        };
        let tools: Vec<Value> = tools.iter().map(signature).collect();
        self.system.render(&json!({"tools": tools, "choice": choice, "function": function}))
    }

    pub(super) fn results(&self, results: &[Message]) -> Result<String, ChatError> {
        let result =
            |message: &Message| json!({"id": message.tool_call_id, "name": message.name, "content": message.content});
        self.results.render(&json!({"results": results.iter().map(result).collect::<Vec<_>>()}))
    }
}

/// OpenAI's tool object.
fn signature(tool: &Tool) -> Value {
    let mut function = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        function["description"] = description.clone().into();
    }
    function["parameters"] = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    json!({"type": "function", "function": function})
}

fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter("typescript", |tools: Serde<Vec<Value>>| typescript::declarations(&tools.0));
    environment.add_filter("parameter_lists", |tools: Serde<Vec<Value>>| Serde(parameter_list::functions(&tools.0)));
    environment.add_filter("as_json", |text: &str| json_or_quoted(text));
}

/// A result that is JSON stays as it is; anything else becomes a JSON string.
fn json_or_quoted(content: &str) -> String {
    let content = content.trim();
    match serde_json::from_str::<serde::de::IgnoredAny>(content) {
        Ok(_) => content.to_owned(),
        Err(_) => Value::from(content).to_string(),
    }
}
