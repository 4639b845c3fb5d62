//! Which conversations were there before: fingerprints of what they say, the latest few million of them.

use callsmith::chat::Message;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Fingerprints of a generation: two of them take 80 MiB.
const GENERATION: usize = 3_600_000;

/// Remembers at least the latest 3,600,000 fingerprints, and at most twice as many.
#[derive(Debug, Default)]
pub struct Seen {
    recent: HashSet<u64>,
    older: HashSet<u64>,
    forgot: bool,
}

impl Seen {
    /// Takes a fingerprint; whether it is new.
    pub fn insert(&mut self, fingerprint: u64) -> bool {
        if self.contains(fingerprint) {
            return false;
        }
        if self.recent.len() >= GENERATION {
            self.forgot |= !self.older.is_empty();
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(fingerprint)
    }

    /// Whether it was taken.
    pub fn contains(&self, fingerprint: u64) -> bool {
        self.recent.contains(&fingerprint) || self.older.contains(&fingerprint)
    }

    /// Whether early ones were forgotten, so that equal conversations far apart go unnoticed.
    pub fn forgot(&self) -> bool {
        self.forgot
    }
}

/// 64 bits that differ for messages that differ in role, text or calls; ids of calls do not count. Two of four million
/// conversations share them by chance with a probability of one in a million.
pub fn fingerprint(messages: &[Message]) -> u64 {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for message in messages {
        part(&format!("{:?}", message.role));
        part(&message.content);
        for call in &message.tool_calls {
            part(&call.name);
            part(&call.arguments.to_string());
        }
    }
    hash.finalize().iter().take(8).fold(0, |bits, &byte| (bits << 8) | u64::from(byte))
}
