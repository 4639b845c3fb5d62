//! Whether messages follow one another as a dialogue.

use callsmith::chat::{Message, Role};
use std::collections::HashSet;

/// What is wrong with the first message that is out of place.
pub(super) fn problem(messages: &[Message]) -> Option<String> {
    let system = messages.iter().take_while(|message| message.role == Role::System).count();
    let mut ids = HashSet::new();
    let mut before: Option<&Message> = None;
    let mut called: &[_] = &[];
    for (at, message) in messages.iter().enumerate().skip(system) {
        if let Some(problem) = misplaced(before, message) {
            return Some(format!("messages[{at}]: {problem}"));
        }
        if message.role == Role::Assistant {
            called = &message.tool_calls;
        }
        if let Some(call) = message.tool_calls.iter().find(|call| !call.id.is_empty() && !ids.insert(&call.id)) {
            return Some(format!("messages[{at}]: the call id `{}` is used twice", call.id));
        }
        let answers = |id: &String| called.iter().any(|call| call.id == *id);
        if let Some(id) = message.tool_call_id.as_ref().filter(|id| !answers(id)) {
            return Some(format!("messages[{at}]: no call of the turn before has the id `{id}`"));
        }
        before = Some(message);
    }
    let ends = before.is_some_and(|last| last.role == Role::Assistant);
    (!ends).then(|| "the last message is not the assistant's".to_owned())
}

fn misplaced(before: Option<&Message>, message: &Message) -> Option<&'static str> {
    let calls = |message: &Message| !message.tool_calls.is_empty();
    match (before.map(|before| before.role), message.role) {
        (_, Role::System) => Some("a system message inside the dialogue"),
        (None, Role::User) => None,
        (None, _) => Some("the user does not speak first"),
        (Some(Role::User), Role::Assistant) | (Some(Role::Tool), Role::Assistant) => {
            (message.content.trim().is_empty() && !calls(message)).then_some("the assistant says nothing")
        }
        (Some(Role::Assistant), Role::Tool) => {
            before.is_some_and(|turn| !calls(turn)).then_some("a result without a call before it")
        }
        (Some(Role::Assistant), Role::User) | (Some(Role::Tool), Role::Tool) => None,
        (Some(Role::User), Role::Tool) => Some("a result without a call before it"),
        (Some(Role::Tool), Role::User) => Some("the assistant does not answer a result"),
        (Some(_), _) => Some("the same role twice in a row"),
    }
}
