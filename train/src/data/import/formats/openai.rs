//! OpenAI chat conversations with tools: the native format itself.

use crate::data::Dialogue;
use crate::data::native;
use crate::data::rows::{Flaw, Reason};
use serde_json::Value as Json;

/// The conversation of a row, with the weights of its messages.
pub(super) fn row(row: &Json) -> Result<Dialogue, Flaw> {
    native::dialogue_from_json(row, "row").map_err(|error| Flaw::new(Reason::Field, error.to_string()))
}
