//! Bytes → a hostile conversation → prompt ids: panics where what a caller wrote reached a control token.
//!
//! The body of the fuzz target `chat_render_tokens` and of the tests that try many conversations.

use super::dialect::for_template;
use super::template::{ChatTemplate, Segment};
use super::tokenizer::{ChatTokenizer, TokenizerFiles};
use super::{ChatError, Conversation, Message, Role, Tool, ToolCall, ToolChoice};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::OnceLock;

/// Pieces that matter to templates and tokenizers, beside the control tokens themselves.
const PIECES: [&str; 40] = [
    "",
    " ",
    "\n",
    "\t",
    "x",
    "é",
    "日本",
    "😀",
    "\u{0}",
    "\u{feff}",
    "\u{200b}",
    "\u{301}",
    "\u{ff5c}",
    "＜|end|＞",
    "<",
    "|",
    ">",
    "<|",
    "|>",
    "[",
    "]",
    "{",
    "}",
    "{\"",
    "\"}",
    "]}",
    "\"",
    "\\",
    "\\u003c|",
    "'",
    "{{ x }}",
    "{% if %}",
    "&lt;",
    "]}<|",
    "system",
    "assistant\n",
    "7",
    "0123456801234568",
    "</s",
    "tool_call>",
];

/// A chat template with its tokenizer, and the words to attack them with.
pub struct Prompts {
    template: ChatTemplate,
    tokenizer: ChatTokenizer,
    control: HashSet<u32>,
    words: Vec<String>,
}

impl Prompts {
    /// A template over a tokenizer; `template` replaces the tokenizer's own.
    ///
    /// # Errors
    /// When the template does not fit.
    pub fn new(tokenizer: ChatTokenizer, template: Option<&str>) -> Result<Self, ChatError> {
        let source = template.or(tokenizer.chat_template());
        let texts = tokenizer.control_tokens();
        let (bos, eos) = (tokenizer.bos_token(), tokenizer.eos_token());
        let template = ChatTemplate::new(source, for_template(source)?, texts.clone(), bos, eos)?;
        let control = texts.iter().filter_map(|text| tokenizer.control_token_id(text)).collect();
        let mut words: Vec<String> = PIECES.iter().map(|&piece| piece.to_owned()).collect();
        words.extend(texts.iter().flat_map(|text| variants(text)));
        Ok(Self { template, tokenizer, control, words })
    }

    /// The built-in model's.
    ///
    /// # Errors
    /// When its files are broken.
    pub fn embedded() -> Result<Self, ChatError> {
        let files = TokenizerFiles {
            tokenizer: Some(include_bytes!("../../models/embedded/tokenizer.json")),
            tokenizer_config: Some(include_bytes!("../../models/embedded/tokenizer_config.json")),
            chat_template: Some(include_bytes!("../../models/embedded/chat_template.jinja")),
            generation_config: None,
            config: Some(include_bytes!("../../models/embedded/config.json")),
        };
        Self::new(ChatTokenizer::from_files(&files, 4096)?, None)
    }

    /// Renders the conversation that the bytes describe beside a harmless one of the same shape.
    ///
    /// # Panics
    /// When the control tokens of the two differ, or a text became a control token.
    pub fn check(&self, bytes: &[u8]) {
        let mut hostile = Source::new(bytes, Some(&self.words));
        let mut harmless = Source::new(bytes, None);
        self.compare(&conversation(&mut hostile), &conversation(&mut harmless));
    }

    fn compare(&self, hostile: &Conversation, harmless: &Conversation) {
        match (self.controls(hostile), self.controls(harmless)) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{hostile:?}"),
            (Err(_), Err(_)) => {}
            (found, expected) => panic!("{found:?} but {expected:?} when harmless: {hostile:?}"),
        }
    }

    /// The control tokens of a prompt in order. Each comes from the template: no text holds one.
    fn controls(&self, conversation: &Conversation) -> Result<Vec<u32>, ChatError> {
        let segments = self.template.render(conversation, true)?;
        for segment in &segments {
            if let Segment::Text(text) = segment {
                let ids = self.tokenizer.encode_text(text)?;
                assert!(!ids.iter().any(|id| self.control.contains(id)), "{text:?} of {conversation:?}");
            }
        }
        let ids = self.tokenizer.encode(&segments)?;
        Ok(ids.into_iter().filter(|id| self.control.contains(id)).collect())
    }
}

/// A control token whole, in two halves, doubled, spaced and in look-alike characters.
fn variants(text: &str) -> Vec<String> {
    let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let wide = text.replace('<', "\u{ff1c}").replace('|', "\u{ff5c}").replace('>', "\u{ff1e}");
    let spaced = text.replace('|', "| ");
    let (upper, joined) = (text.to_uppercase(), text.replace('|', "\u{200d}|"));
    vec![text.to_owned(), text[..half].to_owned(), text[half..].to_owned(), text.repeat(2), wide, spaced, upper, joined]
}

/// Choices read from bytes. The strings are hostile or harmless; the shape is the same.
struct Source<'a> {
    bytes: &'a [u8],
    words: Option<&'a [String]>,
    /// The strings so far: templates compare messages, so that no two may be equal in one shape and differ in the other.
    used: HashSet<String>,
}

impl<'a> Source<'a> {
    fn new(bytes: &'a [u8], words: Option<&'a [String]>) -> Self {
        Self { bytes, words, used: HashSet::new() }
    }

    fn next(&mut self) -> usize {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(first)
    }

    fn even(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    /// A string that is not blank, since templates may leave blank ones out, and that has not been there before.
    fn text(&mut self) -> String {
        let pieces: Vec<usize> = (0..self.next() % 6).map(|_| self.next()).collect();
        let words = self.words.unwrap_or_default();
        let mut text: String =
            pieces.iter().filter_map(|&piece| words.get(piece % words.len().max(1))).cloned().collect();
        if text.trim().is_empty() {
            text = "harmless".to_owned();
        }
        while !self.used.insert(text.clone()) {
            text.push_str(&self.used.len().to_string());
        }
        text
    }
}

/// Turns in the order that every template takes: a question, then perhaps calls with results, then an answer.
fn conversation(source: &mut Source<'_>) -> Conversation {
    let mut messages = Vec::new();
    if source.even() {
        messages.push(Message::text(Role::System, source.text()));
    }
    for _ in 0..=source.next() % 3 {
        messages.push(Message::text(Role::User, source.text()));
        if source.even() {
            exchange(source, &mut messages);
        }
        messages.push(Message::text(Role::Assistant, source.text()));
    }
    messages.push(Message::text(Role::User, source.text()));
    let tools = (0..source.next() % 3).map(|_| tool(source)).collect();
    Conversation { messages, tools, tool_choice: ToolChoice::Auto, parallel_tool_calls: true }
}

fn exchange(source: &mut Source<'_>, messages: &mut Vec<Message>) {
    let (name, id) = (source.text(), source.text());
    let arguments = json!({source.text(): source.text()});
    let call = ToolCall { id: id.clone(), name: name.clone(), arguments };
    messages.push(Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") });
    messages.push(Message { tool_call_id: Some(id), name: Some(name), ..Message::text(Role::Tool, source.text()) });
}

fn tool(source: &mut Source<'_>) -> Tool {
    let (name, description, key) = (source.text(), source.text(), source.text());
    let property = json!({"type": "string", "description": source.text(), "enum": [source.text()]});
    let parameters: Value = json!({"type": "object", "properties": {key.clone(): property}, "required": [key]});
    Tool { name, description: Some(description), parameters: Some(parameters), strict: false }
}

/// The fuzz target: a conversation in the built-in model's prompt.
///
/// # Panics
/// See [`Prompts::check`]; also when the built-in model's files are broken.
pub fn chat_render_tokens(bytes: &[u8]) {
    static EMBEDDED: OnceLock<Prompts> = OnceLock::new();
    EMBEDDED.get_or_init(|| Prompts::embedded().unwrap_or_else(|error| panic!("{error}"))).check(bytes);
}

#[cfg(test)]
#[path = "fuzzing_tests.rs"]
mod tests;
