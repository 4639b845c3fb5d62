//! Overlap with test data: the same request, or almost the same words.
//!
//! A request is the user's first turn, and every one that a call answers; it is compared without case and runs of white space,
//! so that it is found in whatever conversation it stands. "Yes, please." is everybody's: a request of a few words, and each but
//! the first, is only the same where the same call answers it.

use super::near::{Index, Sketch};
use crate::data::{DataError, native, rows};
use callsmith::chat::{Conversation, Message, Role, ToolCall};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Keys of the requests of the largest test data.
const LARGEST: usize = 1_000_000;
/// Words from which a first request is the same whatever answers it.
const WORDS: usize = 4;

/// The test data.
pub(super) struct Held {
    requests: HashSet<u128>,
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
        self.requests.extend(requests(&conversation.messages).flat_map(|request| request.keys));
        self.near.insert(Sketch::of(&conversation.messages));
        match self.requests.len() > LARGEST || self.near.forgot() {
            true => Err(DataError::file(path, "too large to be held; check against parts of it")),
            false => Ok(()),
        }
    }

    /// What a conversation has in common with the test data.
    pub(super) fn overlap(&self, conversation: &Conversation, sketch: &Sketch) -> Option<String> {
        let known = |request: &Request| request.keys.iter().any(|key| self.requests.contains(key));
        let known = requests(&conversation.messages).find(known);
        let near = || self.near.similar(sketch).map(|share| format!("about {:.0} % of a conversation", share * 100.0));
        known.map(|request| format!("the request `{}`", request.text)).or_else(near)
    }
}

/// What the user wants, and the hashes that it is known by.
struct Request {
    text: String,
    keys: Vec<u128>,
}

fn requests(messages: &[Message]) -> impl Iterator<Item = Request> {
    let first = messages.iter().position(|message| message.role == Role::User);
    let asked = messages.iter().enumerate().filter(|(_, message)| message.role == Role::User);
    asked.map(move |(at, message)| {
        let words = message.content.to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        let text = words.join(" ");
        let alone = (first == Some(at) && words.len() >= WORDS).then(|| key(&text, &[]));
        let calls = messages.get(at + 1).map_or(&[][..], |next| next.tool_calls.as_slice());
        let called = (!calls.is_empty()).then(|| key(&text, calls));
        Request { text, keys: alone.into_iter().chain(called).collect() }
    })
}

/// Of a request and the calls that answer it.
fn key(request: &str, calls: &[ToolCall]) -> u128 {
    let calls = calls.iter().map(|call| format!("\0{}\0{}", call.name, call.arguments));
    let hash = Sha256::digest(request.to_owned() + &calls.collect::<String>());
    hash.iter().take(16).fold(0, |bits, &byte| (bits << 8) | u128::from(byte))
}
