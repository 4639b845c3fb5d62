//! What an adapter may be called. Knows no adapters.

use super::{AdapterError, shown};

const MAX_NAME_LEN: usize = 128;

/// Fails with the reason for a name that cannot be used beside this base model's.
pub(super) fn check(name: &str, base_name: &str) -> Result<(), AdapterError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.bytes().all(|byte| byte == b'.') {
        "dots alone are no name"
    } else if name.len() > MAX_NAME_LEN {
        "it is longer than 128 characters"
    } else if !name.chars().all(allowed) {
        "only letters, digits and `.`, `_`, `:`, `-` can be used"
    } else if name == base_name {
        "it is the base model's name"
    } else {
        return Ok(());
    };
    Err(AdapterError::Name { name: shown(name), reason })
}
