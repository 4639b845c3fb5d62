//! Chat templates: a conversation → prompt segments.
//!
//! A template that shows tools and calls is used as it is. For one that shows no tools, the dialect writes the functions into
//! the system message and calls and results into the messages; for one that shows tools alone, the calls. Knows no token ids.

mod agreement;

use super::dialect::{Dialect, is_short_id};
use super::guard::{Guard, Nonce};
use super::jinja::Jinja;
use super::reasoning::Reasoning;
use super::{ChatError, Conversation, Message, Role, Tool, ToolCall, ToolChoice, history};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::Arc;

/// For models without a template of their own. The end of a turn is what the model itself stops at.
pub(crate) const PLAIN_TEMPLATE: &str = "{{ bos_token or '' }}{% for message in messages %}\
    {{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ (eos_token or '<|im_end|>') ~ '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A function's name that occurs in no template by chance.
const PROBED: &str = "find_lighthouse";

/// A stretch of a rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// The text of one control token, from the template itself.
    Control(String),
    /// Ordinary text: can never become a control token.
    Text(String),
}

/// A compiled chat template.
#[derive(Clone)]
pub struct ChatTemplate {
    jinja: Jinja,
    abilities: Abilities,
    dialect: Arc<dyn Dialect>,
    guard: Guard,
    bos: Option<String>,
    eos: Option<String>,
    /// The model may think aloud, if it can.
    thoughts: bool,
}

/// What a template can express by itself.
#[derive(Debug, Clone, Copy)]
struct Abilities {
    tools: bool,
    /// Of an assistant's turn.
    calls: bool,
    system_role: bool,
    tool_role: bool,
    /// Mistral's templates refuse call ids that are not nine alphanumeric characters.
    any_call_id: bool,
    /// Llama's templates refuse a turn of several calls.
    several_calls: bool,
    /// It knows `<think>`: so does its model.
    thoughts: bool,
}

impl ChatTemplate {
    /// Compiles `source`, or the dialect's own template when the model has none that shows tools.
    /// `control_tokens` are the texts of the tokenizer's special tokens.
    ///
    /// # Errors
    /// When the template does not compile, or cannot render the plainest conversation.
    pub fn new(
        source: Option<&str>,
        dialect: Arc<dyn Dialect>,
        control_tokens: Vec<String>,
        bos: Option<String>,
        eos: Option<String>,
    ) -> Result<Self, ChatError> {
        let source = source.unwrap_or(PLAIN_TEMPLATE);
        let jinja = Jinja::compile(source)?;
        let abilities = Abilities {
            tools: mentions(source, "tools"),
            calls: false,
            system_role: true,
            tool_role: true,
            any_call_id: !source.contains("length != 9"),
            several_calls: true,
            thoughts: source.contains("<think>"),
        };
        let guard = Guard::new(control_tokens);
        let mut template = Self { jinja, abilities, dialect, guard, bos, eos, thoughts: true };
        if abilities.tools {
            template.probe_calls();
        } else {
            template.probe_roles()?;
        }
        Ok(template)
    }

    /// The same for a model that shall not think aloud: templates that ask for `enable_thinking` are told so.
    #[must_use]
    pub fn without_thoughts(self) -> Self {
        Self { thoughts: false, ..self }
    }

    /// Whether a turn of the model may hold several calls and still be shown to it later.
    pub fn several_calls(&self) -> bool {
        self.abilities.several_calls
    }

    /// What the end of a rendered prompt leaves to the model.
    pub fn reasoning_after(&self, prompt: &[Segment]) -> Reasoning {
        match Reasoning::after(prompt) {
            _ if !self.abilities.thoughts => Reasoning::Absent,
            Reasoning::Optional if !self.thoughts => Reasoning::Absent,
            reasoning => reasoning,
        }
    }

    /// Finds out how a template with tools shows calls, beside functions and without. One that refuses all of these
    /// conversations is taken to show them.
    fn probe_calls(&mut self) {
        let call = |id: &&str| ToolCall { id: (*id).into(), name: PROBED.into(), arguments: json!({}) };
        let tool = Tool { name: "f".into(), description: None, parameters: None, strict: false };
        let shown = |ids: &[&str]| {
            let calls = ids.iter().map(call).collect();
            let messages =
                [Message::text(Role::User, "q"), Message { tool_calls: calls, ..Message::text(Role::Assistant, "") }];
            let messages: Value = messages.iter().map(|message| self.message_json(message)).collect();
            let tools = [None, Some(json!([tool_json(&tool)]))].into_iter();
            let shown = tools.filter_map(|tools| self.jinja.render(&self.context(messages.clone(), tools, false)).ok());
            shown.collect::<Vec<_>>()
        };
        let (one, two) = (shown(&["aaaaaaaaa"]), shown(&["aaaaaaaaa", "bbbbbbbbb"]));
        self.abilities.calls = one.is_empty() || one.iter().any(|text| text.contains(PROBED));
        // A template that cannot show one call says nothing about several.
        self.abilities.several_calls = one.is_empty() || !two.is_empty();
    }

    /// Finds out which roles a template without tools refuses.
    fn probe_roles(&mut self) -> Result<(), ChatError> {
        let user = json!({"role": "user", "content": "question"});
        let assistant = json!({"role": "assistant", "content": "answer"});
        let shows = |marker: &str, messages: Value| {
            self.jinja.render(&self.context(messages, None, true)).map(|text| text.contains(marker))
        };
        shows("question", json!([user]))?;
        let system_role = shows("rules", json!([{"role": "system", "content": "rules"}, user])).unwrap_or(false);
        let tool_role =
            shows("result", json!([user, assistant, {"role": "tool", "content": "result"}])).unwrap_or(false);
        (self.abilities.system_role, self.abilities.tool_role) = (system_role, tool_role);
        Ok(())
    }

    /// Renders the conversation; `add_generation_prompt` opens an assistant turn at the end.
    ///
    /// # Errors
    /// When the template refuses the conversation, or the prompt grows beyond 8 MiB.
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<Vec<Segment>, ChatError> {
        let tools = if conversation.tool_choice == ToolChoice::None { &[][..] } else { &conversation.tools };
        let mut messages = history::shown(&conversation.messages, self.abilities.several_calls);
        if self.wants_short_ids() {
            messages.to_mut().iter_mut().for_each(shorten_ids);
        }
        let (messages, tools) = match self.abilities {
            Abilities { tools: true, calls: true, .. } => (messages, tools),
            Abilities { tools: true, .. } => {
                (messages.iter().map(|message| self.plain_message(message)).collect(), tools)
            }
            _ => (Cow::Owned(self.plain_messages(&messages, tools, &conversation.tool_choice)?), &[][..]),
        };
        let mut content = json!({
            "messages": messages.iter().map(|message| self.message_json(message)).collect::<Vec<_>>(),
            "tools": tools.iter().map(tool_json).collect::<Vec<_>>(),
        });
        let nonce = Nonce::absent_from(&content);
        self.guard.seal(&mut content, &nonce);
        restore_roles(&mut content["messages"], &messages, |role| self.role_name(role));
        let tools = content["tools"].take();
        let tools = tools.as_array().is_some_and(|tools| !tools.is_empty()).then_some(tools);
        let context = self.context(content["messages"].take(), tools, add_generation_prompt);
        Ok(self.guard.open(&self.jinja.render(&context)?, &nonce))
    }

    /// A prompt that somebody has written out, control tokens included.
    pub fn written_out(&self, text: &str) -> Vec<Segment> {
        self.guard.open(text, &Nonce::absent_from(&Value::from(text)))
    }

    /// Whether the template, or else the dialect, refuses other call ids than nine letters and digits.
    fn wants_short_ids(&self) -> bool {
        if self.abilities.tools { !self.abilities.any_call_id } else { self.dialect.short_ids() }
    }

    fn context(&self, messages: Value, tools: Option<Value>, add_generation_prompt: bool) -> Value {
        let mut context = Map::new();
        context.insert("messages".into(), messages);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        // What is absent stays undefined, as in Hugging Face's tools: templates ask `is defined`.
        let optional = [
            ("tools", tools),
            ("bos_token", self.bos.clone().map(Value::from)),
            ("eos_token", self.eos.clone().map(Value::from)),
            ("enable_thinking", (!self.thoughts).then_some(Value::Bool(false))),
        ];
        context.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Value::Object(context)
    }

    fn role_name(&self, role: Role) -> &'static str {
        match role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool if self.abilities.tool_role => "tool",
            Role::Tool => "user",
        }
    }

    fn message_json(&self, message: &Message) -> Value {
        let mut json = Map::new();
        json.insert("role".into(), self.role_name(message.role).into());
        json.insert("content".into(), message.content.clone().into());
        if let Some(reasoning) = &message.reasoning {
            json.insert("reasoning_content".into(), reasoning.clone().into());
        }
        if !message.tool_calls.is_empty() {
            json.insert("tool_calls".into(), message.tool_calls.iter().map(call_json).collect());
        }
        if let Some(id) = &message.tool_call_id {
            json.insert("tool_call_id".into(), id.clone().into());
        }
        if let Some(name) = &message.name {
            json.insert("name".into(), name.clone().into());
        }
        Value::Object(json)
    }

    /// The conversation in plain text messages, as the dialect writes it.
    fn plain_messages(
        &self,
        messages: &[Message],
        tools: &[Tool],
        choice: &ToolChoice,
    ) -> Result<Vec<Message>, ChatError> {
        let mut plain = Vec::with_capacity(messages.len() + 1);
        for run in messages.chunk_by(|a, b| a.role == Role::Tool && b.role == Role::Tool) {
            match run {
                [single] if single.role != Role::Tool => plain.push(self.plain_message(single)),
                results => plain.push(Message::text(Role::Tool, self.dialect.render_results(results)?)),
            }
        }
        if !tools.is_empty() {
            append_to_system(&mut plain, &self.dialect.system_prompt(tools, choice)?);
        }
        if !self.abilities.system_role {
            fold_system_into_user(&mut plain);
        }
        Ok(plain)
    }

    fn plain_message(&self, message: &Message) -> Message {
        if message.tool_calls.is_empty() {
            return message.clone();
        }
        let calls = self.dialect.render_calls(&message.tool_calls);
        let content = join(&message.content, "\n", &calls);
        Message { content, tool_calls: Vec::new(), ..message.clone() }
    }
}

/// Gives calls and results ids of nine letters that stand for any others.
fn shorten_ids(message: &mut Message) {
    let calls = message.tool_calls.iter_mut().map(|call| &mut call.id);
    for id in calls.chain(&mut message.tool_call_id).filter(|id| !is_short_id(id)) {
        *id = Sha256::digest(&*id).iter().map(|byte| char::from(b'a' + byte % 26)).take(9).collect();
    }
}

fn call_json(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"type": "function", "id": call.id, "function": function})
}

/// Whether `word` stands in `source` as a whole word.
fn mentions(source: &str, word: &str) -> bool {
    source.split(|character: char| !character.is_alphanumeric() && character != '_').any(|token| token == word)
}

fn join(first: &str, separator: &str, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { format!("{first}{separator}{second}") }
}

fn append_to_system(messages: &mut Vec<Message>, text: &str) {
    match messages.first_mut() {
        Some(first) if first.role == Role::System => first.content = join(&first.content, "\n\n", text),
        _ => messages.insert(0, Message::text(Role::System, text)),
    }
}

fn fold_system_into_user(messages: &mut Vec<Message>) {
    if messages.first().is_none_or(|first| first.role != Role::System) {
        return;
    }
    let system = messages.remove(0).content;
    match messages.first_mut() {
        Some(first) if first.role == Role::User => first.content = join(&system, "\n\n", &first.content),
        _ => messages.insert(0, Message::text(Role::User, system)),
    }
}

/// Roles are ours, not the caller's: the template compares them.
fn restore_roles(sealed: &mut Value, messages: &[Message], name: impl Fn(Role) -> &'static str) {
    for (index, message) in messages.iter().enumerate() {
        sealed[index]["role"] = name(message.role).into();
    }
}

/// OpenAI's tool object. An absent description is written as an empty one: some templates print it unasked.
fn tool_json(tool: &Tool) -> Value {
    let parameters = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let description = tool.description.as_deref().unwrap_or_default();
    json!({"type": "function", "function": {"name": tool.name, "description": description, "parameters": parameters}})
}

#[cfg(test)]
mod tests;
