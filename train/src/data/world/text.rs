//! The sentences of the world's dialogues, parsed once from `text/phrases.txt`. Knows its syntax only.

use crate::data::synth::tables::{Words, sections};
use std::collections::HashMap;
use std::sync::LazyLock;

static PHRASES: LazyLock<HashMap<&'static str, Words>> = LazyLock::new(|| sections(include_str!("text/phrases.txt")));

/// The phrases of a section; there is at least one.
pub(in crate::data) fn phrases(section: &str) -> &'static Words {
    PHRASES.get(section).unwrap_or_else(|| panic!("built-in table phrases.txt has no section `{section}`"))
}
