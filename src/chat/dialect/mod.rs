//! How a model writes calls: one file per dialect with its grammar, its prompt and its incremental parser.

mod envelope;
pub mod hermes;
pub mod tool_uses;
mod turn;
mod typescript;

use super::ChatError;
use super::messages::{Tool, ToolChoice};
use serde_json::Value;
use std::sync::Arc;

/// What one turn may contain. The schemas are already admitted and normalised (see `grammar::schema`).
pub struct TurnSpec<'a> {
    /// Function name and normalised schema of each tool that may be called.
    pub tools: &'a [(String, Value)],
    pub choice: &'a ToolChoice,
    pub parallel: bool,
}

/// A piece of an assistant turn, as the parser finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Text for the user.
    Text(String),
    /// Call number `index` starts.
    CallStart { index: usize, name: String },
    /// A fragment of that call's JSON arguments.
    CallArguments { index: usize, fragment: String },
    /// That call's arguments are complete.
    CallEnd { index: usize },
}

/// Reads one assistant turn piece by piece; any split of the text gives the same calls.
pub trait TurnParser: Send {
    /// Takes the next text and returns what became certain.
    fn push(&mut self, text: &str) -> Vec<Delta>;
    /// The turn ended (finished or cut): returns what was held back.
    fn finish(&mut self) -> Vec<Delta>;
}

/// A model family's way to call functions.
pub trait Dialect: Send + Sync {
    /// The name used by `--dialect`.
    fn name(&self) -> &'static str;
    /// Lark text, as llguidance reads it, for everything the turn may say.
    fn grammar(&self, turn: &TurnSpec<'_>) -> String;
    /// A parser of the same text.
    fn parser(&self) -> Box<dyn TurnParser>;
    /// The function metadata for the system prompt, for models whose template shows no tools.
    fn system_prompt(&self, tools: &[Tool], choice: &ToolChoice) -> String;
    /// The text of `tool` messages that follow one another (results of one assistant turn), for such models.
    fn render_results(&self, results: &[super::Message]) -> String;
    /// The text of an assistant turn that makes these calls (for templates and training data).
    fn render_calls(&self, calls: &[super::ToolCall]) -> String;
}

/// Every dialect there is.
const ALL: [fn() -> Arc<dyn Dialect>; 2] = [|| Arc::new(tool_uses::ToolUses), || Arc::new(hermes::Hermes)];

/// Finds a dialect by name.
///
/// # Errors
/// When no dialect has that name; the error lists those that exist.
pub fn by_name(name: &str) -> Result<Arc<dyn Dialect>, ChatError> {
    let found = ALL.iter().map(|dialect| dialect()).find(|dialect| dialect.name() == name);
    found.ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|dialect| dialect().name()).collect();
        ChatError::UnknownDialect { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Chooses a dialect from a chat template's text: `<tool_call>` → hermes, else `tool_uses`.
pub fn for_template(template: Option<&str>) -> Arc<dyn Dialect> {
    if template.is_some_and(|text| text.contains("<tool_call>")) {
        Arc::new(hermes::Hermes)
    } else {
        Arc::new(tool_uses::ToolUses)
    }
}

#[cfg(test)]
mod tests;
