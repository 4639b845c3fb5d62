//! A conversation to learn from, and which of its assistant messages only stand there as context.
//!
//! Knows no file format and no tokens.

use callsmith::chat::{Conversation, Role};
use std::collections::BTreeSet;

/// A conversation to learn from.
#[derive(Debug, Clone, Default)]
pub struct Dialogue {
    pub conversation: Conversation,
    /// Indices of assistant messages that are shown but not trained on: mistakes that are put right later.
    pub untrained: BTreeSet<usize>,
    /// What it is an example of, where its source says.
    pub class: Option<String>,
}

impl Dialogue {
    /// Indices of the assistant messages that are trained on, in order.
    pub fn trained(&self) -> impl Iterator<Item = usize> {
        let messages = self.conversation.messages.iter().enumerate();
        let assistant = messages.filter(|(_, message)| message.role == Role::Assistant).map(|(index, _)| index);
        assistant.filter(|index| !self.untrained.contains(index))
    }
}

impl From<Conversation> for Dialogue {
    /// All of it is trained on.
    fn from(conversation: Conversation) -> Self {
        Self { conversation, ..Self::default() }
    }
}
