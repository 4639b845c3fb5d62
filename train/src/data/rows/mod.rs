//! The rows of a data file, one after the other: JSON lines, the elements of a JSON array, or a CSV table with a header.
//!
//! Memory is bounded by the longest row that is taken, whatever the file holds: a longer row is skipped without being held
//! and comes out as a flaw. So does every other row that is not what it should be; the rows after it are read on. Knows
//! no format of conversations.

mod array;
mod element;
mod flaw;
mod lines;
mod source;
mod table;

#[cfg(test)]
mod tests;

pub use flaw::{Flaw, Reason};
pub use source::open;

use super::json;
use serde_json::Value as Json;
use std::io;

/// Bytes of the longest row that is taken unless asked otherwise. As parsed JSON a row may be thirty times as large.
pub const LONGEST: usize = 2 << 20;

/// One row.
pub struct Row {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// What it holds; a table's row is an object of strings.
    pub json: Result<Json, Flaw>,
    /// The JSON as it stands in the file, on one line; nothing where it is flawed, and for a table's row.
    pub text: String,
}

impl Row {
    /// The row that these bytes are.
    fn of(line: u64, bytes: &[u8]) -> Self {
        match text(bytes).and_then(|text| Ok((parse(text)?, text))) {
            // Outside of strings, which have none, a line end is a blank.
            Ok((json, text)) => Self { line, json: Ok(json), text: text.replace(['\r', '\n'], " ") },
            Err(flaw) => Self::flawed(line, flaw),
        }
    }

    fn flawed(line: u64, flaw: Flaw) -> Self {
        Self { line, json: Err(flaw), text: String::new() }
    }
}

/// The rows of one file. An error of the file system ends them.
pub type Rows = Box<dyn Iterator<Item = io::Result<Row>>>;

/// The text of a row as JSON.
fn parse(text: &str) -> Result<Json, Flaw> {
    json::read(text).map_err(|error| {
        let reason = match () {
            () if error.is_eof() => Reason::Truncated,
            () if error.is_data() => Reason::Values,
            () => Reason::Json,
        };
        Flaw::new(reason, error.to_string())
    })
}

/// Bytes as text.
fn text(bytes: &[u8]) -> Result<&str, Flaw> {
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Flaw::new(Reason::Nul, format!("at byte {} of the row", at + 1)));
    }
    std::str::from_utf8(bytes)
        .map_err(|error| Flaw::new(Reason::Utf8, format!("at byte {} of the row", error.valid_up_to() + 1)))
}
