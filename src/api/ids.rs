//! Random identifiers of responses, calls and requests: unguessable enough to be unique, not secret.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `call_` and 24 alphanumerics, or nine of them alone where a model's templates want that.
pub(super) fn call(short: bool) -> String {
    if short { alphanumerics(9) } else { format!("call_{}", alphanumerics(24)) }
}

/// `prefix-` and 24 alphanumerics.
pub(super) fn response(prefix: &str) -> String {
    format!("{prefix}-{}", alphanumerics(24))
}

/// `prefix_` and 24 alphanumerics.
pub(super) fn item(prefix: &str) -> String {
    format!("{prefix}_{}", alphanumerics(24))
}

/// `req_` and 24 alphanumerics.
pub(super) fn request() -> String {
    format!("req_{}", alphanumerics(24))
}

fn alphanumerics(count: usize) -> String {
    (0..count).map(|_| char::from(ALPHABET[(random() % 62) as usize])).collect()
}

/// A number from the standard library's randomly keyed hasher over a counter.
fn random() -> u64 {
    static KEYS: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    KEYS.hash_one(COUNTER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn call_ids_are_distinct_alphanumerics() {
        let ids: HashSet<String> = (0..10_000).map(|_| call(false)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 29 && id[5..].bytes().all(|b| b.is_ascii_alphanumeric())));
        assert!(crate::chat::dialect::is_short_id(&call(true)));
    }
}
