//! The fields of a row, or the flaw that names them.

use crate::data::rows::{Flaw, Reason};
use serde_json::Value as Json;

/// A text field.
pub(super) fn text<'a>(row: &'a Json, field: &str) -> Result<&'a str, Flaw> {
    optional_text(row, field)?.ok_or_else(|| Flaw::new(Reason::Field, format!("`{field}` is missing")))
}

/// A text field that may be absent or null.
pub(super) fn optional_text<'a>(row: &'a Json, field: &str) -> Result<Option<&'a str>, Flaw> {
    match &row[field] {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text)),
        _ => Err(Flaw::new(Reason::Field, format!("`{field}` must be text"))),
    }
}

/// A list field.
pub(super) fn list<'a>(row: &'a Json, field: &str) -> Result<&'a [Json], Flaw> {
    let list = row[field].as_array().map(Vec::as_slice);
    list.ok_or_else(|| Flaw::new(Reason::Field, format!("`{field}` must be a list")))
}
