//! Alpaca's `instruction` (or `instruction_field`), `input` and `output`, perhaps with `system`, `tools` and a `history` of
//! pairs.

use super::super::dialogue::Dialogue;
use super::super::fields::{optional_text, text};
use super::super::functions;
use super::exchange::answer;
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Conversation, Role};
use serde_json::Value as Json;

/// The conversation of a row.
pub(super) fn row(row: &Json) -> Result<Conversation, Flaw> {
    let mut dialogue = Dialogue::default();
    dialogue.say(Role::System, optional_text(row, "system")?.unwrap_or_default());
    for pair in row["history"].as_array().into_iter().flatten() {
        let side =
            |at: usize| pair[at].as_str().ok_or_else(|| Flaw::new(Reason::Field, "`history` must hold pairs of texts"));
        dialogue.say(Role::User, side(0)?);
        answer(&mut dialogue, side(1)?)?;
    }
    let instruction = match optional_text(row, "instruction_field")? {
        Some(instruction) => instruction,
        None => text(row, "instruction")?,
    };
    let parts = [instruction, optional_text(row, "input")?.unwrap_or_default()].map(str::trim);
    let asked: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    dialogue.say(Role::User, &asked.join("\n\n"));
    match &row["output"] {
        Json::String(output) => answer(&mut dialogue, output)?,
        Json::Object(_) => answer(&mut dialogue, &row["output"].to_string())?,
        _ => return Err(Flaw::new(Reason::Field, "`output` must be text or an object")),
    }
    dialogue.finish(functions::list(&row["tools"])?)
}
