//! Whether messages follow one another as a dialogue that the server takes, but for one thing: a turn of calls may go without
//! results altogether, before the user speaks again. What it teaches is to call.

use callsmith::chat::{Message, Role};
use std::collections::HashSet;

/// What is wrong with the first message that is out of place.
pub(super) fn problem(messages: &[Message]) -> Option<String> {
    let system = messages.iter().take_while(|message| message.role == Role::System).count();
    let mut ids = HashSet::new();
    let mut before: Option<&Message> = None;
    let mut calls = Calls::default();
    for (at, message) in messages.iter().enumerate().skip(system) {
        let problem = misplaced(before, message).map(str::to_owned).or_else(|| calls.follow(message));
        if let Some(problem) = problem {
            return Some(format!("messages[{at}]: {problem}"));
        }
        if let Some(call) = message.tool_calls.iter().find(|call| !call.id.is_empty() && !ids.insert(&call.id)) {
            return Some(format!("messages[{at}]: the call id `{}` is used twice", call.id));
        }
        before = Some(message);
    }
    let ends = before.is_some_and(|last| last.role == Role::Assistant);
    (!ends).then(|| "the last message is not the assistant's".to_owned())
}

/// The calls of the assistant's last turn, and those of them without a result.
#[derive(Default)]
struct Calls<'a> {
    ids: Vec<&'a str>,
    open: Vec<&'a str>,
}

impl<'a> Calls<'a> {
    /// What is wrong with a message as an answer to them, or to their results.
    fn follow(&mut self, message: &'a Message) -> Option<String> {
        match message.role {
            Role::Tool => self.answer(message.tool_call_id.as_deref()),
            Role::Assistant => {
                let answered = self.open.len() < self.ids.len();
                let missing = self.open.first().filter(|_| answered);
                let problem = missing.map(|id| format!("the call `{id}` before it has no result"));
                self.ids = message.tool_calls.iter().map(|call| call.id.as_str()).collect();
                self.open.clone_from(&self.ids);
                problem
            }
            _ => None,
        }
    }

    /// Without an id a result is that of the first call that has none.
    fn answer(&mut self, id: Option<&str>) -> Option<String> {
        let place = self.open.iter().position(|open| id.is_none_or(|id| id == *open));
        match (place, id) {
            (Some(place), _) => drop(self.open.remove(place)),
            (None, Some(id)) if self.ids.contains(&id) => return Some(format!("the call `{id}` has a result already")),
            (None, Some(id)) => return Some(format!("no call of the turn before has the id `{id}`")),
            (None, None) => return Some("a result more than there are calls".to_owned()),
        }
        None
    }
}

fn misplaced(before: Option<&Message>, message: &Message) -> Option<&'static str> {
    let calls = |message: &Message| !message.tool_calls.is_empty();
    let silent = message.content.trim().is_empty() && !calls(message);
    match (before.map(|before| before.role), message.role) {
        (_, Role::System) => Some("a system message inside the dialogue"),
        (_, Role::User | Role::Tool) if calls(message) => Some("only the assistant calls"),
        (None, Role::User) | (Some(Role::Assistant), Role::User) => silent.then_some("the user says nothing"),
        (None, _) => Some("the user does not speak first"),
        (Some(Role::User), Role::Assistant) | (Some(Role::Tool), Role::Assistant) => {
            silent.then_some("the assistant says nothing")
        }
        (Some(Role::Assistant), Role::Tool) => {
            before.is_some_and(|turn| !calls(turn)).then_some("a result without a call before it")
        }
        (Some(Role::Tool), Role::Tool) => None,
        (Some(Role::User), Role::Tool) => Some("a result without a call before it"),
        (Some(Role::Tool), Role::User) => Some("the assistant does not answer a result"),
        (Some(_), _) => Some("the same role twice in a row"),
    }
}
