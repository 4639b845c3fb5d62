//! How a model writes calls. A dialect is one file: `grammars/NAME.toml` where calls are JSON in fixed text, or a module of
//! its own (`viggo`). Each has a grammar, a prompt and an incremental parser.

mod cursor;
mod description;
mod envelope;
mod lark;
mod parameter_list;
mod parser;
mod prompt;
mod set;
mod typescript;
mod viggo;

pub(super) use lark::escape;
pub use set::{DialectChoice, Dialects};

use super::ChatError;
use super::messages::{Tool, ToolChoice};
use super::reasoning::Reasoning;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The tokens that ordinary text can never become, by their text.
pub type ControlTokens = HashMap<String, u32>;

/// A function's name and normalised schema (see `grammar::schema`).
pub type Function = (String, Value);

/// What one turn may contain. The schemas are already admitted and normalised.
#[derive(Debug, Clone, Copy)]
pub struct TurnSpec<'a> {
    /// The tools that may be called.
    pub tools: &'a [Function],
    pub choice: &'a ToolChoice,
    pub parallel: bool,
    pub reasoning: Reasoning,
    /// The tokenizer's control tokens: where a dialect's fixed text contains one, the model writes it as that token.
    pub control: &'a ControlTokens,
    /// Lark rules of a rule `answer` that stands in place of words: the demanded form of a turn without calls.
    pub answer: Option<&'a str>,
}

impl<'a> TurnSpec<'a> {
    /// The tools that the choice leaves.
    fn callable(&self) -> impl Iterator<Item = &'a Function> {
        let choice = self.choice;
        self.tools.iter().filter(move |(name, _)| !matches!(choice, ToolChoice::Named(wanted) if wanted != name))
    }
}

/// A piece of an assistant turn, as the parser finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Thoughts before the answer.
    Thought(String),
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
    fn name(&self) -> &str;
    /// A chat template that contains one of these texts speaks this dialect.
    fn detect(&self) -> &[String];
    /// The text around calls; control tokens in it must be shown to the parser.
    fn fixed_texts(&self) -> Vec<&str>;
    /// Call ids must be nine letters and digits.
    fn short_ids(&self) -> bool {
        false
    }
    /// Lark text, as llguidance reads it, for everything the turn may say.
    ///
    /// # Errors
    /// [`ChatError::Inexpressible`] when the dialect has no way to write a function's arguments.
    fn grammar(&self, turn: &TurnSpec<'_>) -> Result<String, ChatError>;
    /// A parser of the same text.
    fn parser(&self, tools: &[Function]) -> Box<dyn TurnParser>;
    /// The function metadata for the system prompt, for models whose template shows no tools.
    ///
    /// # Errors
    /// When the dialect's template fails.
    fn system_prompt(&self, tools: &[Tool], choice: &ToolChoice) -> Result<String, ChatError>;
    /// The text of `tool` messages that follow one another (results of one assistant turn), for such models.
    ///
    /// # Errors
    /// When the dialect's template fails.
    fn render_results(&self, results: &[super::Message]) -> Result<String, ChatError>;
    /// The text of an assistant turn that makes these calls (for templates and training data).
    fn render_calls(&self, calls: &[super::ToolCall]) -> String;
}

/// Finds a built-in dialect by name.
///
/// # Errors
/// When no dialect has that name; the error lists those that exist.
pub fn by_name(name: &str) -> Result<Arc<dyn Dialect>, ChatError> {
    Dialects::built_in().by_name(name)
}

/// Chooses a built-in dialect from a chat template's text; `tool_uses` when none is named or recognised.
///
/// # Errors
/// When the template names a dialect that is not built in.
pub fn for_template(template: Option<&str>) -> Result<Arc<dyn Dialect>, ChatError> {
    Dialects::built_in().for_template(template)
}

/// Nine letters and digits, as Mistral's templates want call ids.
pub fn is_short_id(id: &str) -> bool {
    id.len() == description::ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
