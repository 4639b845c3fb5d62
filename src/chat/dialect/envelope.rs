//! A dialect made of one file: a [`Description`] gives grammar, parser and rendering, so that they cannot disagree.

use super::description::Description;
use super::parser::{EnvelopeParser, Format};
use super::prompt::Prompt;
use super::{Delta, Dialect, Function, TurnParser, TurnSpec, lark};
use crate::chat::{ChatError, Message, Tool, ToolCall, ToolChoice};
use serde_json::json;
use std::sync::Arc;

/// A dialect whose calls are a name and a JSON object in fixed text.
#[derive(Debug)]
pub(super) struct Envelope {
    description: Description,
    format: Arc<Format>,
    prompt: Prompt,
}

impl Envelope {
    /// Reads the text of a dialect file.
    pub(super) fn parse(source: &str) -> Result<Self, ChatError> {
        let (description, prompt) = Description::parse(source)?;
        let wrong = |error: ChatError| ChatError::Dialect(format!("dialect `{}`: [prompt]: {error}", description.name));
        let prompt = Prompt::new(&prompt).map_err(wrong)?;
        let envelope = Self { format: Arc::new(Format::new(&description)), description, prompt };
        envelope.check_reading()?;
        Ok(envelope)
    }

    /// What the file describes must be read back, in whatever pieces it comes.
    fn check_reading(&self) -> Result<(), ChatError> {
        let call = |name: &str, id: &str| ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: json!({"a": ["}", 1]}),
        };
        let calls = [call("first", "abc123XYZ"), call("the_second-1", "none")];
        let most = if self.description.between.is_some() { 2 } else { 1 };
        let expected: Vec<&str> = calls[..most].iter().map(|call| call.name.as_str()).collect();
        let text = self.render_calls(&calls[..most]);
        let mut parser = self.parser(&[]);
        let mut deltas: Vec<Delta> =
            text.chars().flat_map(|character| parser.push(character.encode_utf8(&mut [0; 4]))).collect();
        deltas.extend(parser.finish());
        let names = deltas.iter().filter_map(|delta| match delta {
            Delta::CallStart { name, .. } => Some(name.as_str()),
            _ => None,
        });
        let words = deltas.iter().any(|delta| matches!(delta, Delta::Text(_)));
        if names.eq(expected) && !words {
            return Ok(());
        }
        let message = "its own calls cannot be told apart when they are read; give them more fixed text";
        Err(ChatError::Dialect(format!("dialect `{}`: {message}: {text}", self.description.name)))
    }

    fn render_call(&self, call: &ToolCall) -> String {
        let description = &self.description;
        let id = Some(call.id.as_str()).filter(|id| super::is_short_id(id));
        let arguments = description.json.text(&call.arguments);
        format!("{}{arguments}{}", description.before_arguments(&call.name, id), description.tail.text(id))
    }
}

impl Dialect for Envelope {
    fn name(&self) -> &str {
        &self.description.name
    }

    fn detect(&self) -> &[String] {
        &self.description.detect
    }

    fn fixed_texts(&self) -> Vec<&str> {
        self.description.texts().collect()
    }

    fn short_ids(&self) -> bool {
        self.description.writes_ids()
    }

    fn grammar(&self, turn: &TurnSpec<'_>) -> Result<String, ChatError> {
        Ok(lark::grammar(&self.description, turn))
    }

    fn parser(&self, _: &[Function]) -> Box<dyn TurnParser> {
        Box::new(EnvelopeParser::new(Arc::clone(&self.format)))
    }

    fn system_prompt(&self, tools: &[Tool], choice: &ToolChoice) -> Result<String, ChatError> {
        self.prompt.system(tools, choice)
    }

    fn render_results(&self, results: &[Message]) -> Result<String, ChatError> {
        self.prompt.results(results)
    }

    fn render_calls(&self, calls: &[ToolCall]) -> String {
        let description = &self.description;
        let calls: Vec<_> = calls.iter().map(|call| self.render_call(call)).collect();
        let between = description.between.as_deref().unwrap_or("\n");
        format!("{}{}{}", description.begin, calls.join(between), description.end)
    }
}
