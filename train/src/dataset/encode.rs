//! Conversation → sample: rendered and tokenised exactly as the server does it, loss on what the assistant writes.

use super::{Example, Tag};
use crate::atomic;
use crate::data::Dialogue;
use crate::error::{Result, TrainError};
use crate::recipe::Recipe;
use callsmith::chat::dialect::{Dialect, DialectChoice};
use callsmith::chat::reasoning::Reasoning;
use callsmith::chat::template::{ChatTemplate, Segment};
use callsmith::chat::tokenizer::ChatTokenizer;
use callsmith::chat::{ChatError, Conversation, Role, ToolCall};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Loss weights beside the 1 of an ordinary answer token.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Tokens after the opening (system message and functions) that the assistant did not write.
    pub lm: f32,
    /// First token of a function name.
    pub name: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { lm: 0.0, name: 1.0 }
    }
}

/// How the project's own models write a conversation, with the control tokens of [`crate::data::tokenizer`].
const CHAT_TEMPLATE: &str = include_str!("../../../models/embedded/chat_template.jinja");

/// Writes the chat template of the project's own models beside the tokenizer files in `dir`.
pub fn write_template(dir: &Path) -> Result<()> {
    atomic::file(&dir.join("chat_template.jinja"), CHAT_TEMPLATE.as_bytes())
}

/// A model's prompt format and tokenizer.
pub struct Encoder {
    pub tokenizer: Arc<ChatTokenizer>,
    pub dialect: Arc<dyn Dialect>,
    template: ChatTemplate,
    /// What a soft prompt puts before each sample.
    virtual_tokens: Range<u32>,
}

impl Encoder {
    /// Reads the tokenizer and chat template of `dir` for a model with `logits_width` logits. The dialect is chosen
    /// from the template unless named.
    pub fn load(dir: &Path, dialect: &DialectChoice, logits_width: usize) -> Result<Self> {
        Self::of(ChatTokenizer::load(dir, logits_width)?, None, dialect)
    }

    /// The same of the model that ships inside the binary.
    pub fn embedded(dialect: &DialectChoice) -> Result<Self> {
        let (_, tokenizer) = callsmith::embedded::open().map_err(|error| TrainError::Data(error.to_string()))?;
        Self::of(tokenizer, None, dialect)
    }

    /// The same of a tokenizer that has been read, with another chat template than its own where there is one, as an adapter brings it.
    pub fn of(tokenizer: ChatTokenizer, template: Option<&str>, dialect: &DialectChoice) -> Result<Self> {
        let source = template.or(tokenizer.chat_template());
        let dialect = dialect.resolve(source)?;
        let (control, bos, eos) = (tokenizer.control_tokens(), tokenizer.bos_token(), tokenizer.eos_token());
        let template = ChatTemplate::new(source, dialect.clone(), control, bos, eos)?;
        template.check_dialect()?;
        let tokenizer = tokenizer.for_dialect(dialect.as_ref());
        Ok(Self { tokenizer: Arc::new(tokenizer), dialect, template, virtual_tokens: 0..0 })
    }

    /// What the run of a recipe shows its model.
    ///
    /// # Errors
    /// As [`Self::load`], and when the chat template shows calls that the dialect would not force.
    pub fn of_run(recipe: &Recipe, logits_width: usize) -> Result<Self> {
        let loaded = Self::load(&recipe.full_tokenizer_dir()?, &recipe.model.dialect(), logits_width);
        loaded.map_err(|error| match (error, &recipe.model.chat_template) {
            (TrainError::Chat(error @ ChatError::Disagreement { .. }), _) => {
                TrainError::field("model.dialect", error.to_string())
            }
            (TrainError::Chat(error @ ChatError::Template(_)), Some(file)) => {
                TrainError::input(file, error.to_string())
            }
            (error, _) => error,
        })
    }

    /// The same with a soft prompt's tokens before each sample.
    pub fn with_virtual_tokens(self, virtual_tokens: Range<u32>) -> Self {
        Self { virtual_tokens, ..self }
    }

    /// The prompt's token ids; `open` starts an assistant turn at the end.
    pub fn prompt(&self, conversation: &Conversation, open: bool) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(&self.template.render(conversation, open)?)?)
    }

    /// The prompt of an assistant turn, and what it leaves to the model of thoughts.
    pub fn turn(&self, conversation: &Conversation) -> Result<(Vec<u32>, Reasoning)> {
        let segments = self.template.render(conversation, true)?;
        Ok((self.tokenizer.encode(&segments)?, self.template.reasoning_after(&segments)))
    }

    /// Whether the chat template can show several calls of one turn.
    pub fn several_calls(&self) -> bool {
        self.template.several_calls()
    }

    /// The whole conversation as a sample; every assistant turn is an answer.
    ///
    /// # Errors
    /// When what the server would show before an assistant turn is not how the whole conversation starts.
    pub fn example(&self, conversation: &Conversation, weights: Weights) -> Result<Example> {
        self.dialogue(&conversation.clone().into(), weights)
    }

    /// The same, where some of the assistant's turns are shown without any loss on them.
    ///
    /// # Errors
    /// As [`Self::example`], and when nothing is left to learn from.
    pub fn dialogue(&self, dialogue: &Dialogue, weights: Weights) -> Result<Example> {
        let Dialogue { conversation, untrained, .. } = dialogue;
        let whole = self.whole(conversation)?;
        let mut example = Example::new(whole.tokens.clone());
        let mut shown = Vec::new();
        for (message, range) in self.answer_ranges(conversation, &whole)? {
            if untrained.contains(&message) {
                shown.push(range);
                continue;
            }
            example.answer(range.clone());
            self.tag(&mut example, range, &conversation.messages[message].tool_calls);
        }
        if example.answers.is_empty() {
            return Err(TrainError::Data("the conversation has no assistant message to learn from".into()));
        }
        // Only a loss outside the answers asks where the opening ends.
        let opening = if weights.lm > 0.0 { self.opening(conversation, &example.tokens) } else { 0 };
        apply(&mut example, weights, opening);
        // Not even as part of the text around the answers.
        shown.into_iter().for_each(|range| example.weights[range].fill(0.0));
        Ok(example.after(self.virtual_tokens.clone()))
    }

    /// Number of tokens before the first message that is not the system's; 0 when the chat template cannot show that much
    /// alone.
    fn opening(&self, conversation: &Conversation, tokens: &[u32]) -> usize {
        let mut head = conversation.clone();
        let system = head.messages.iter().take_while(|message| message.role == Role::System).count();
        head.messages.truncate(system);
        let opening = self.prompt(&head, false).unwrap_or_default();
        opening.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }

    /// The whole conversation, encoded piece by piece.
    fn whole(&self, conversation: &Conversation) -> Result<Whole> {
        let segments = self.template.render(conversation, false)?;
        let (mut tokens, mut ends) = (Vec::new(), Vec::new());
        for segment in &segments {
            tokens.extend(self.tokenizer.encode(std::slice::from_ref(segment))?);
            ends.push(tokens.len());
        }
        Ok(Whole { segments, ends, tokens })
    }

    /// The prompt of an assistant turn; what it has in common with the whole conversation is not encoded again.
    fn turn_within(&self, whole: &Whole, head: &Conversation) -> Result<Vec<u32>> {
        let segments = self.template.render(head, true)?;
        let common = segments.iter().zip(&whole.segments).take_while(|(one, other)| one == other).count();
        let end = common.checked_sub(1).map_or(0, |last| whole.ends[last]);
        let rest = self.tokenizer.encode(&segments[common..])?;
        Ok([&whole.tokens[..end], &rest].concat())
    }

    /// (message index, token range) of each assistant turn, in order.
    fn answer_ranges(&self, conversation: &Conversation, whole: &Whole) -> Result<Vec<(usize, Range<usize>)>> {
        let mut head = conversation.clone();
        let mut ranges = Vec::new();
        for index in (0..conversation.messages.len()).rev() {
            head.messages.truncate(index);
            if conversation.messages[index].role == Role::Assistant {
                ranges.push((index, self.answer_range(&head, whole, index)?));
            }
        }
        ranges.reverse();
        Ok(ranges)
    }

    fn answer_range(&self, head: &Conversation, whole: &Whole, message: usize) -> Result<Range<usize>> {
        let (prompt, tokens) = (self.turn_within(whole, head)?, &whole.tokens);
        if !tokens.starts_with(&prompt) {
            return Err(TrainError::Data(format!(
                "message {message}: the prompt before it is not how the whole conversation starts; the chat template \
                 rewrites earlier turns, so only its last assistant turn can be trained: cut the conversation there"
            )));
        }
        let ends = self.tokenizer.eos_token_ids();
        let end = tokens[prompt.len()..].iter().position(|token| ends.contains(token)).ok_or_else(|| {
            TrainError::Data(format!(
                "message {message}: no end-of-turn token follows it; name the template's end token as eos_token in tokenizer_config.json"
            ))
        })?;
        Ok(prompt.len()..prompt.len() + end + 1)
    }

    /// Marks the first token of each function name and the values of its arguments.
    fn tag(&self, example: &mut Example, answer: Range<usize>, calls: &[ToolCall]) {
        let mut text = Vec::new();
        let mut starts = Vec::new();
        for &token in &example.tokens[answer.clone()] {
            starts.push(text.len());
            text.extend_from_slice(self.tokenizer.shown_bytes(token));
        }
        let mut seek = Seek { text: &text, at: 0 };
        for call in calls {
            let Some(name) = seek.name(&call.name) else { return };
            let first = answer.start + starts.partition_point(|&start| start <= name) - 1;
            example.tags[first] = Tag::Name;
            for value in leaves(&call.arguments) {
                let Some(range) = seek.value(value) else { continue };
                for (offset, _) in starts.iter().enumerate().filter(|&(_, start)| range.contains(start)) {
                    example.tags[answer.start + offset] = Tag::Value;
                }
            }
        }
    }
}

/// A rendered conversation and its tokens.
struct Whole {
    segments: Vec<Segment>,
    /// Number of tokens up to the end of each segment.
    ends: Vec<usize>,
    tokens: Vec<u32>,
}

fn apply(example: &mut Example, weights: Weights, opening: usize) {
    for (index, weight) in example.weights.iter_mut().enumerate() {
        if example.tags[index] == Tag::Name {
            *weight = weights.name;
        } else if *weight == 0.0 && index >= opening {
            *weight = weights.lm;
        }
    }
}

/// The scalars of a JSON value, in order.
fn leaves(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        Value::Object(fields) => fields.values().flat_map(leaves).collect(),
        leaf => vec![leaf],
    }
}

/// Walks forward through the bytes of an answer.
struct Seek<'a> {
    text: &'a [u8],
    at: usize,
}

impl Seek<'_> {
    /// Where the function name starts: as a whole word, in every dialect.
    fn name(&mut self, name: &str) -> Option<usize> {
        let in_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte));
        loop {
            let start = self.find(name.as_bytes())?;
            self.at = start + name.len();
            if !in_word(start.checked_sub(1).and_then(|at| self.text.get(at))) && !in_word(self.text.get(self.at)) {
                return Some(start);
            }
        }
    }

    /// The bytes of a scalar's JSON text; of a string, those between its quotes.
    fn value(&mut self, value: &Value) -> Option<Range<usize>> {
        let json = value.to_string();
        let start = self.find(json.as_bytes())?;
        self.at = start + json.len();
        let quote = usize::from(value.is_string());
        Some(start + quote..self.at - quote)
    }

    fn find(&self, wanted: &[u8]) -> Option<usize> {
        self.text[self.at..].windows(wanted.len()).position(|window| window == wanted).map(|offset| self.at + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_values_are_found_in_order() {
        let text = br#"{"tool_uses":[{"recipient_name":"functions.get","parameters":{"get":"a \"b\"","n":[1,true]}}]}"#;
        let mut seek = Seek { text, at: 0 };
        let name = seek.name("get").unwrap();
        assert_eq!(&text[name - 10..name + 4], br#"functions.get""#);
        let arguments = json!({"get": "a \"b\"", "n": [1, true]});
        let found: Vec<_> = leaves(&arguments).into_iter().map(|leaf| seek.value(leaf).unwrap()).collect();
        let texts: Vec<_> = found.into_iter().map(|range| std::str::from_utf8(&text[range]).unwrap()).collect();
        assert_eq!(texts, [r#"a \"b\""#, "1", "true"]);
    }

    #[test]
    fn a_name_inside_a_word_is_not_taken() {
        let mut seek = Seek { text: br#"{"name": "forget", "arguments": {}} {"name": "get"}"#, at: 0 };
        assert_eq!(seek.name("get"), Some(46));
        let mut seek = Seek { text: b"[TOOL_CALLS]get_more[ARGS]{}[TOOL_CALLS]get[ARGS]{}", at: 0 };
        assert_eq!(seek.name("get"), Some(40));
    }
}
