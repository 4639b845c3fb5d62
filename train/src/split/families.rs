//! Which functions belong together, as [`super`] says: sets that are united while a file is read.

use super::{called, read};
use crate::data::lines;
use crate::error::Result;
use callsmith::chat::Conversation;
use rayon::prelude::*;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::path::Path;

/// Families of function names; each is known by the first of its names in alphabetical order.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// Another member, nearer to the first.
    nearer: HashMap<String, String>,
    /// A function that is called under each set of tools.
    by_tools: HashMap<u64, String>,
}

impl Families {
    /// Those of a file; what cannot be read has none.
    pub(super) fn of_file(file: &Path, longest: usize) -> Result<Self> {
        let mut families = Self::default();
        for batch in lines::batches(file, longest)? {
            let seen = |line| read(file, &line).ok().map(|conversation| (tools(&conversation), called(&conversation)));
            let seen: Vec<_> = batch?.into_par_iter().filter_map(seen).collect();
            seen.into_iter().for_each(|(tools, called)| families.see(tools, called));
        }
        Ok(families)
    }

    /// A dialogue that offers these tools calls these functions.
    fn see(&mut self, tools: u64, called: BTreeSet<String>) {
        let mut called = called.into_iter();
        let Some(first) = called.next() else { return };
        called.for_each(|name| self.unite(&first, &name));
        match self.by_tools.get(&tools).cloned() {
            Some(other) => self.unite(&first, &other),
            None => drop(self.by_tools.insert(tools, first)),
        }
    }

    fn unite(&mut self, one: &str, other: &str) {
        let mut heads = [one, other].map(|name| self.head(name).to_owned());
        heads.sort();
        let [first, later] = heads;
        // All of them directly, so that ways stay short.
        for name in [one, other, &later].into_iter().filter(|name| **name != first) {
            self.nearer.insert(name.to_owned(), first.clone());
        }
    }

    /// The first name of a function's family: its own if it has no other member.
    pub(super) fn head<'a>(&'a self, name: &'a str) -> &'a str {
        let mut head = name;
        while let Some(nearer) = self.nearer.get(head) {
            head = nearer;
        }
        head
    }
}

/// A hash of the names on offer, in whatever order.
fn tools(conversation: &Conversation) -> u64 {
    let names: BTreeSet<&str> = conversation.tools.iter().map(|tool| tool.name.as_str()).collect();
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(families: &mut Families, tools: u64, called: &[&str]) {
        families.see(tools, called.iter().map(|&name| name.to_owned()).collect());
    }

    #[test]
    fn calls_in_one_dialogue_and_the_same_tools_make_a_family_in_any_order() {
        let dialogues: [(u64, &[&str]); 5] =
            [(1, &["d", "c"]), (2, &["b"]), (2, &["c"]), (3, &["a", "x"]), (4, &["y"])];
        for turn in 0..dialogues.len() {
            let mut families = Families::default();
            (0..dialogues.len())
                .map(|at| dialogues[(at + turn) % dialogues.len()])
                .for_each(|(tools, called)| see(&mut families, tools, called));
            let heads = ["a", "b", "c", "d", "x", "y", "z"].map(|name| families.head(name));
            assert_eq!(heads, ["a", "b", "b", "b", "a", "y", "z"]);
        }
    }

    #[test]
    fn a_dialogue_without_a_call_connects_nothing() {
        let mut families = Families::default();
        see(&mut families, 1, &["a"]);
        see(&mut families, 1, &[]);
        see(&mut families, 2, &["b"]);
        assert_eq!((families.head("a"), families.head("b")), ("a", "b"));
    }
}
