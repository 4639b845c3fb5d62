//! Whether a dialogue stands up: roles, schemas, results, end state, and no value that comes from nowhere.
//!
//! Looks at the conversation as it is written, not at how it was made.

use super::execute::Refusal;
use super::families::Field;
use super::kind::{Kind, occurs};
use super::{Sample, Script};
use callsmith::chat::{Message, Role, Tool, ToolCall};
use serde_json::Value as Json;

/// What is wrong with a dialogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("message {0} cannot follow the one before it")]
    Order(usize),
    #[error("message {message} calls `{name}`, which is not on offer")]
    Unknown { message: usize, name: String },
    #[error("message {message} calls `{name}` with arguments that break its schema: {problem}")]
    Schema { message: usize, name: String, problem: String },
    #[error("message {message} is not what the call returns")]
    Result { message: usize },
    #[error("message {message} gives `{name}` a `{field}` that nobody has said: {value}")]
    Ungrounded { message: usize, name: String, field: String, value: String },
    #[error("what exists after the last call is not what was asked for")]
    Goal,
    #[error("a turn's label does not fit message {0}")]
    Label(usize),
}

/// Checks a dialogue against its script.
pub(super) fn check(sample: &Sample, script: &Script) -> Result<(), Flaw> {
    let messages = &sample.dialogue.conversation.messages;
    order(messages)?;
    labels(sample)?;
    let mut world = script.before.clone();
    let mut said = String::new();
    for (number, message) in messages.iter().enumerate() {
        let trained = !sample.dialogue.untrained.contains(&number);
        for (place, call) in message.tool_calls.iter().enumerate() {
            fits(&sample.dialogue.conversation.tools, call, number)?;
            let unknown = || Flaw::Unknown { message: number, name: call.name.clone() };
            let offer = script.offers.iter().find(|offer| offer.tool.name == call.name).ok_or_else(unknown)?;
            if trained {
                offer
                    .fields(&call.arguments)
                    .try_for_each(|(field, value)| grounded(field, offer.deed.takes(), value, &said))
                    .map_err(|(field, value)| Flaw::Ungrounded {
                        message: number,
                        name: call.name.clone(),
                        field,
                        value,
                    })?;
            }
            let act = offer.act(&call.arguments).ok_or_else(unknown)?;
            let returned = world.execute(&act).unwrap_or_else(|refusal: Refusal| refusal.to_json());
            let at = number + 1 + place;
            let shown = messages.get(at).filter(|m| m.role == Role::Tool && m.tool_call_id.as_ref() == Some(&call.id));
            if shown.and_then(|m| serde_json::from_str::<Json>(&m.content).ok()) != Some(returned) {
                return Err(Flaw::Result { message: at });
            }
        }
        if message.role != Role::Assistant {
            said.push_str(&message.content);
            said.push('\n');
        }
    }
    if world.is_like(&script.goal) { Ok(()) } else { Err(Flaw::Goal) }
}

/// System first if at all; after it user and assistant in turn, results after the calls that they answer.
fn order(messages: &[Message]) -> Result<(), Flaw> {
    let start = usize::from(messages.first().is_some_and(|first| first.role == Role::System));
    for at in start..messages.len() {
        let before = at.checked_sub(1).map(|before| &messages[before]);
        let calls = before.is_some_and(|before| !before.tool_calls.is_empty());
        let fine = match (messages[at].role, before.map(|before| before.role)) {
            (Role::User, None | Some(Role::System)) => true,
            (Role::User, Some(Role::Assistant)) => !calls,
            (Role::Assistant, Some(Role::User | Role::Tool)) => true,
            (Role::Tool, Some(Role::Tool)) => true,
            (Role::Tool, Some(Role::Assistant)) => calls,
            _ => false,
        };
        if !fine {
            return Err(Flaw::Order(at));
        }
    }
    let ends = messages.last().is_some_and(|last| last.role == Role::Assistant && last.tool_calls.is_empty());
    if ends { Ok(()) } else { Err(Flaw::Order(messages.len())) }
}

/// Every assistant message that is trained on has its label, in order.
fn labels(sample: &Sample) -> Result<(), Flaw> {
    let messages = &sample.dialogue.conversation.messages;
    let labelled: Vec<usize> = sample.turns.iter().map(|turn| turn.assistant_message).collect();
    let trained: Vec<usize> = sample.dialogue.trained().collect();
    if labelled != trained {
        return Err(Flaw::Label(trained.iter().zip(&labelled).position(|(a, b)| a != b).unwrap_or(trained.len())));
    }
    let wrong = sample.turns.iter().find(|turn| {
        let calls = !messages[turn.assistant_message].tool_calls.is_empty();
        calls != (turn.does == super::Move::Call)
    });
    wrong.map_or(Ok(()), |turn| Err(Flaw::Label(turn.assistant_message)))
}

/// Whether a call fits the schema of the function that it names.
pub(super) fn fits(tools: &[Tool], call: &ToolCall, message: usize) -> Result<(), Flaw> {
    let name = || call.name.clone();
    let tool =
        tools.iter().find(|tool| tool.name == call.name).ok_or_else(|| Flaw::Unknown { message, name: name() })?;
    let problem = match &tool.parameters {
        None if call.arguments.as_object().is_some_and(serde_json::Map::is_empty) => return Ok(()),
        None => "it takes none".to_owned(),
        Some(schema) => match jsonschema::validate(schema, &call.arguments) {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        },
    };
    Err(Flaw::Schema { message, name: name(), problem })
}

/// Whether a value was said, or returned, before it is used. A flag is said by its own phrases.
fn grounded(
    field: &Field,
    mut takes: impl Iterator<Item = (&'static Field, &'static Vec<&'static str>, bool)>,
    value: &Json,
    said: &str,
) -> Result<(), (String, String)> {
    let fine = match field.kind {
        Kind::Flag if *value == false => field.deny.iter().any(|cue| occurs(cue, said)),
        Kind::Flag => {
            takes.any(|(other, say, _)| std::ptr::eq(other, field) && say.iter().any(|cue| occurs(cue, said)))
        }
        _ => field.kind.is_said(value, said),
    };
    if fine { Ok(()) } else { Err((field.name.to_owned(), value.to_string())) }
}
