//! xLAM: `query`, `tools` and `answers`, the latter two as lists or as the text of them; one turn of calls.

use super::super::dialogue::Dialogue;
use super::super::fields::text;
use super::super::{calls, functions};
use crate::data::rows::Flaw;
use callsmith::chat::{Conversation, Role};
use serde_json::Value as Json;

/// The conversation of a row.
pub(super) fn row(row: &Json) -> Result<Conversation, Flaw> {
    let mut dialogue = Dialogue::default();
    dialogue.say(Role::User, text(row, "query")?);
    dialogue.call("", calls::list(&row["answers"])?);
    dialogue.finish(functions::list(&row["tools"])?)
}
