//! Why a row cannot be used: one of a few reasons, by which rows are counted, and what is wrong with this one.

use serde::Serialize;
use std::fmt;

/// Characters of the longest detail that is shown.
const SHOWN: usize = 240;

/// The kinds of flaws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A row of more bytes than are held.
    TooLong,
    /// A byte 0, which no text has.
    Nul,
    Utf8,
    /// Text that is not JSON.
    Json,
    /// JSON with values that cannot be kept as they are.
    Values,
    /// JSON that ends too early, or a quote that never closes.
    Truncated,
    /// A row of a table with more or fewer cells than its header.
    Cells,
    /// The format cannot be told from the row's fields.
    Unknown,
    /// A field that is missing or of the wrong type.
    Field,
    /// A declaration of functions that cannot be read.
    Tools,
    /// A call that cannot be read.
    Call,
    /// A result that cannot be read.
    Result,
    /// Turns that make no dialogue.
    Dialogue,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::Nul => "NUL byte",
            Self::Utf8 => "not UTF-8",
            Self::Json => "not JSON",
            Self::Values => "unkeepable values",
            Self::Truncated => "cut off",
            Self::Cells => "wrong number of cells",
            Self::Unknown => "unknown format",
            Self::Field => "wrong field",
            Self::Tools => "unreadable functions",
            Self::Call => "unreadable call",
            Self::Result => "unreadable result",
            Self::Dialogue => "no dialogue",
        })
    }
}

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Flaw {
    pub reason: Reason,
    /// At most 240 characters.
    pub detail: String,
}

impl Flaw {
    /// A flaw of that kind; a long detail is cut.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(SHOWN) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { reason, detail }
    }

    /// The flaw of a row longer than `limit` bytes.
    pub(super) fn too_long(limit: usize) -> Self {
        Self::new(Reason::TooLong, format!("more than {limit} bytes; raise --max-row-mib to take it"))
    }
}
