//! The rows of a data file, one after the other: JSON lines, the elements of a JSON array, or a CSV table with a header.
//!
//! Memory is bounded by the longest row that is taken, whatever the file holds: a longer row is skipped without being held
//! and comes out as a flaw. So does every other row that is not what it should be; the rows after it are read on. Knows
//! no format of conversations.

mod array;
mod flaw;
mod lines;
mod source;
mod table;

#[cfg(test)]
mod tests;

pub use flaw::{Flaw, Reason};
pub use source::open;

use serde_json::Value as Json;
use std::io;

/// Bytes of the longest row that is taken unless asked otherwise. As parsed JSON a row may be fifty times as large.
pub const LONGEST: usize = 2 << 20;

/// One row.
pub struct Row {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// What it holds; a table's row is an object of strings.
    pub json: Result<Json, Flaw>,
}

/// The rows of one file. An error of the file system ends them.
pub type Rows = Box<dyn Iterator<Item = io::Result<Row>>>;

/// The bytes of a row as JSON.
fn parse(bytes: &[u8]) -> Result<Json, Flaw> {
    let text = text(bytes)?;
    serde_json::from_str(text).map_err(|error| {
        let reason = if error.is_eof() { Reason::Truncated } else { Reason::Json };
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
