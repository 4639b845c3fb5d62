//! The sentences of the world's dialogues, parsed once from `text/phrases.txt`. Knows its syntax only.

use crate::data::synth::tables::{Words, lines};
use std::collections::HashMap;
use std::sync::LazyLock;

static PHRASES: LazyLock<HashMap<&'static str, Words>> = LazyLock::new(|| {
    let mut sections: HashMap<&'static str, Words> = HashMap::new();
    let mut section = "";
    for line in lines(include_str!("text/phrases.txt")) {
        match line.strip_prefix("## ") {
            Some(name) => section = name,
            None => sections.entry(section).or_default().push(line),
        }
    }
    sections
});

/// The phrases of a section; there is at least one.
pub(in crate::data) fn phrases(section: &str) -> &'static Words {
    PHRASES.get(section).unwrap_or_else(|| panic!("built-in table phrases.txt has no section `{section}`"))
}
