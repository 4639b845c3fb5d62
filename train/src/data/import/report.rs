//! What an import has done: rows, conversations, flaws by reason with the first of them, and what each rule has changed.
//!
//! Every row is in one of the counts, and every field that is not read in another: nothing is dropped silently.

use super::super::rows::{Flaw, Reason};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Names of fields that are counted apart, and characters of the longest.
const FIELDS: usize = 50;
const LONGEST: usize = 60;

/// The counts of one import.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows read, flawed ones among them.
    pub rows: u64,
    /// Conversations written.
    pub conversations: u64,
    /// Rows of each format.
    pub formats: BTreeMap<&'static str, u64>,
    pub flawed: Flawed,
    /// How often each rule of a format was applied.
    pub rules: BTreeMap<&'static str, u64>,
    /// Rows that were used without a field that they have, by its name.
    pub unread: BTreeMap<String, u64>,
}

/// The rows that could not be used.
#[derive(Debug, Default, Serialize)]
pub struct Flawed {
    pub rows: u64,
    pub by_reason: BTreeMap<Reason, u64>,
    /// The first of them, as many as were asked for.
    pub first: Vec<Place>,
    #[serde(skip)]
    pub(super) shown: usize,
}

/// A flaw and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub file: String,
    /// From 1.
    pub line: u64,
    pub flaw: String,
}

impl Flawed {
    /// Counts a flaw.
    pub(super) fn add(&mut self, file: &str, line: u64, flaw: &Flaw) {
        self.rows += 1;
        *self.by_reason.entry(flaw.reason).or_default() += 1;
        if self.first.len() < self.shown {
            self.first.push(Place { file: file.to_owned(), line, flaw: flaw.to_string() });
        }
    }
}

impl Report {
    /// Counts a field of a row that no reader looks at.
    pub(super) fn unread(&mut self, field: &str) {
        let field: String = field.chars().take(LONGEST).collect();
        let apart = self.unread.len() < FIELDS || self.unread.contains_key(&field);
        *self.unread.entry(if apart { field } else { "(others)".to_owned() }).or_default() += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Place { file, line, flaw } in &self.flawed.first {
            writeln!(f, "{file}:{line}: {flaw}")?;
        }
        for (reason, count) in &self.flawed.by_reason {
            writeln!(f, "{count} rows not used: {reason}")?;
        }
        for (rule, count) in &self.rules {
            writeln!(f, "{count} × {rule}")?;
        }
        for (field, count) in &self.unread {
            writeln!(f, "{count} × field `{field}` not read")?;
        }
        write!(f, "{} rows → {} conversations", self.rows, self.conversations)
    }
}
