//! Overlap with test data: the same request, or almost the same words.
//!
//! A request is the user's first turn, and every one that a call answers; it is compared without case and runs of white space,
//! so that it is found in whatever conversation it stands.

use super::near::{Index, Sketch};
use crate::data::{DataError, native, rows};
use callsmith::chat::{Conversation, Message, Role};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Requests of the largest test data.
const LARGEST: usize = 1_000_000;

/// The test data.
pub(super) struct Held {
    requests: HashSet<String>,
    near: Index,
}

impl Held {
    /// Reads files of native conversations.
    ///
    /// # Errors
    /// A file that cannot be read, a row that is no conversation, and more than can be held.
    pub(super) fn open(files: &[PathBuf], longest_row: Option<usize>, similarity: f64) -> Result<Self, DataError> {
        let mut held = Self { requests: HashSet::new(), near: Index::new(similarity) };
        for path in files {
            for row in rows::open(path, longest_row)? {
                let row = row.map_err(|error| DataError::file(path, error))?;
                held.take(path, row)?;
            }
        }
        Ok(held)
    }

    fn take(&mut self, path: &Path, row: rows::Row) -> Result<(), DataError> {
        let place = format!("{}:{}", path.display(), row.line);
        let json = row.json.map_err(|flaw| DataError::file(path, format!("line {}: {flaw}", row.line)))?;
        let conversation = native::from_json(&json, &place)?;
        self.requests.extend(requests(&conversation.messages));
        self.near.insert(Sketch::of(&conversation.messages));
        match self.requests.len() > LARGEST || self.near.forgot() {
            true => Err(DataError::file(path, "too large to be held; check against parts of it")),
            false => Ok(()),
        }
    }

    /// What a conversation has in common with the test data.
    pub(super) fn overlap(&self, conversation: &Conversation, sketch: &Sketch) -> Option<String> {
        let known = requests(&conversation.messages).find(|request| self.requests.contains(request));
        let near = || self.near.similar(sketch).map(|share| format!("about {:.0} % of a conversation", share * 100.0));
        known.map(|request| format!("the request `{request}`")).or_else(near)
    }
}

fn requests(messages: &[Message]) -> impl Iterator<Item = String> {
    let first = messages.iter().position(|message| message.role == Role::User);
    let asked = messages.iter().enumerate().filter(move |(at, message)| {
        let called = messages.get(at + 1).is_some_and(|next| !next.tool_calls.is_empty());
        message.role == Role::User && (called || first == Some(*at))
    });
    asked.map(|(_, message)| message.content.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "))
}
