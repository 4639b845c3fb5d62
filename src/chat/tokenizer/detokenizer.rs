//! Token ids → text as they are generated. Knows no stop strings and no calls.

use super::ChatTokenizer;
use std::sync::Arc;

/// Turns a stream of token ids into text without ever splitting a character.
pub struct IncrementalDetokenizer {
    tokenizer: Arc<ChatTokenizer>,
    /// The bytes of a character that is not yet complete.
    pending: Vec<u8>,
}

impl IncrementalDetokenizer {
    /// Starts at the beginning of a turn.
    pub fn new(tokenizer: Arc<ChatTokenizer>) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The text that became complete with this token (may be empty).
    pub fn push(&mut self, id: u32) -> String {
        self.pending.extend_from_slice(self.tokenizer.shown_bytes(id));
        let held = incomplete_tail(&self.pending);
        let tail = self.pending.split_off(self.pending.len() - held);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = tail;
        text
    }

    /// What is left at the end, invalid bytes replaced.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// How many bytes at the end may still become a character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let tail = last.invalid();
    // A chunk's invalid bytes are incomplete rather than wrong when nothing follows and more bytes could complete them.
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}
