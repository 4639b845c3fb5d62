//! ShareGPT dialogues with tools, as LLaMA-Factory and APIGen-MT write them: `conversations` of `from` (human, gpt,
//! function_call, observation, system) and `value`, beside them `tools` as text or list and perhaps `system`.

use super::super::dialogue::Dialogue;
use super::super::fields::{list, optional_text, text};
use super::super::{calls, functions};
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Conversation, Role};
use serde_json::Value as Json;

/// The conversation of a row.
pub(super) fn row(row: &Json) -> Result<Conversation, Flaw> {
    let mut dialogue = Dialogue::default();
    dialogue.say(Role::System, optional_text(row, "system")?.unwrap_or_default());
    for turn in list(row, "conversations")? {
        let value = text(turn, "value")?;
        match text(turn, "from")? {
            "system" => dialogue.say(Role::System, value),
            "human" | "user" => dialogue.say(Role::User, value),
            "gpt" | "assistant" => dialogue.say(Role::Assistant, value),
            "function_call" => dialogue.call("", calls::in_text(value)?),
            "observation" | "tool" => dialogue.results(value)?,
            other => return Err(Flaw::new(Reason::Field, format!("`from`: unknown speaker `{other}`"))),
        }
    }
    dialogue.finish(functions::list(&row["tools"])?)
}
