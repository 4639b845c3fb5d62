//! Builds a conversation turn by turn: gives calls their ids, and results the calls that they answer.

use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Conversation, Message, Role, Tool, ToolCall, ToolChoice};
use serde_json::Value as Json;
use std::collections::VecDeque;

/// A call without its id.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    /// Always an object.
    pub(super) arguments: Json,
}

/// A conversation so far.
#[derive(Default)]
pub(super) struct Dialogue {
    messages: Vec<Message>,
    calls: usize,
    /// Calls without a result: id and function.
    open: VecDeque<(String, String)>,
}

impl Dialogue {
    /// Somebody says something; an empty system text is nothing.
    pub(super) fn say(&mut self, role: Role, text: &str) {
        if role != Role::System || !text.is_empty() {
            self.messages.push(Message::text(role, text));
        }
    }

    /// The assistant calls, and may say something beside it.
    pub(super) fn call(&mut self, text: &str, calls: Vec<Call>) {
        self.open.clear();
        let mut message = Message::text(Role::Assistant, text);
        for Call { name, arguments } in calls {
            self.calls += 1;
            let id = format!("call_{}", self.calls);
            self.open.push_back((id.clone(), name.clone()));
            message.tool_calls.push(ToolCall { id, name, arguments });
        }
        self.messages.push(message);
    }

    /// The result of the first call that has none.
    pub(super) fn result(&mut self, text: &str) -> Result<(), Flaw> {
        let (id, name) =
            self.open.pop_front().ok_or_else(|| Flaw::new(Reason::Result, "a result without a call before it"))?;
        let message = Message::text(Role::Tool, text);
        self.messages.push(Message { tool_call_id: Some(id), name: Some(name), ..message });
        Ok(())
    }

    /// The results of the calls before them: a JSON list with one for each, or else one text.
    pub(super) fn results(&mut self, text: &str) -> Result<(), Flaw> {
        let list = serde_json::from_str::<Vec<Json>>(text).ok();
        match list.filter(|list| self.open.len() > 1 && list.len() == self.open.len()) {
            Some(list) => list.iter().try_for_each(|result| self.result(&plain(result))),
            None => self.result(text),
        }
    }

    /// The messages alone.
    pub(super) fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    /// The whole, with the functions on offer.
    pub(super) fn finish(self, tools: Vec<Tool>) -> Result<Conversation, Flaw> {
        conversation(self.messages, tools)
    }
}

/// Messages and the functions on offer as a conversation.
pub(super) fn conversation(messages: Vec<Message>, tools: Vec<Tool>) -> Result<Conversation, Flaw> {
    if !messages.iter().any(|message| message.role == Role::Assistant) {
        return Err(Flaw::new(Reason::Dialogue, "the assistant says nothing"));
    }
    Ok(Conversation { messages, tools, tool_choice: ToolChoice::Auto, parallel_tool_calls: true })
}

/// JSON as it stands in a conversation: text without quotes.
pub(super) fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
