//! Checks of native files: what is wrong with which conversation, and what of it may be dropped.
//!
//! Each conversation is looked at once, in bounded memory, and stays as it stands in its file. Nothing is dropped that was not
//! asked for, and everything that is dropped is counted. Knows no other format than the native one.

mod calls;
mod near;
mod overlap;
mod report;
mod turns;

#[cfg(test)]
mod tests;

pub use report::{Finding, Fix, Problem, Report};

use super::rows::{self, Row};
use super::seen::{Seen, fingerprint};
use super::{DataError, native};
use crate::atomic;
use calls::Schemas;
use callsmith::chat::Conversation;
use near::{Index, Sketch};
use overlap::Held;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

/// What to check, and what to do about it.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    pub files: Vec<PathBuf>,
    /// Files that no conversation may overlap with.
    pub against: Vec<PathBuf>,
    /// Conversations with one of these problems are dropped.
    pub drop: Vec<Problem>,
    /// File of the conversations that are left.
    pub out: Option<PathBuf>,
    /// Similarity from which conversations are near-duplicates: share of common shingles, 0 to 1.
    pub similarity: f64,
    pub longest_row: Option<usize>,
    /// Number of findings that the report shows with their place.
    pub shown: usize,
}

/// Checks the files, and writes what is left of them where that was asked for.
///
/// # Errors
/// A file that cannot be read or written, and a test file too large to be held.
pub fn run(options: &CheckOptions) -> Result<Report, DataError> {
    let held = Held::open(&options.against, options.longest_row, options.similarity)?;
    let mut check = Check {
        options,
        held,
        schemas: Schemas::default(),
        seen: Seen::default(),
        near: Index::new(options.similarity),
        report: Report::new(options.shown),
    };
    match &options.out {
        None => check.all(&mut |_| Ok(()))?,
        Some(path) => check.write(path)?,
    }
    check.report.window_exceeded = check.seen.forgot() || check.near.forgot();
    Ok(check.report)
}

/// Takes the text of a conversation that is kept.
type Keep<'a> = dyn FnMut(&str) -> Result<(), DataError> + 'a;

struct Check<'a> {
    options: &'a CheckOptions,
    held: Held,
    schemas: Schemas,
    seen: Seen,
    near: Index,
    report: Report,
}

impl Check<'_> {
    fn write(&mut self, path: &Path) -> Result<(), DataError> {
        let mut failure = None;
        let written = atomic::stream(path, |out| {
            let mut keep = |text: &str| writeln!(out, "{text}").map_err(|error| DataError::file(path, error));
            self.all(&mut keep).map_err(|error| io::Error::other(failure.insert(error).to_string()))
        });
        match failure {
            Some(failure) => Err(failure),
            None => written.map_err(|error| DataError::file(path, error)),
        }
    }

    fn all(&mut self, keep: &mut Keep<'_>) -> Result<(), DataError> {
        for path in &self.options.files {
            for row in rows::open(path, self.options.longest_row)? {
                let row = row.map_err(|error| DataError::file(path, error))?;
                self.row(path, row, keep)?;
            }
        }
        let left = self.report.found.contains_key(&Problem::Unreadable) && !self.drops(Problem::Unreadable);
        match left && self.options.out.is_some() {
            true => Err(DataError::Unfixed(Box::new(mem::replace(&mut self.report, Report::new(0))))),
            false => Ok(()),
        }
    }

    fn row(&mut self, path: &Path, row: Row, keep: &mut Keep<'_>) -> Result<(), DataError> {
        self.report.conversations += 1;
        let read = row.json.map_err(|flaw| flaw.to_string());
        let read = read.and_then(|json| native::from_json(&json, "conversation").map_err(|error| error.to_string()));
        let (readable, problems) = match read {
            Ok(conversation) => (true, self.problems(&conversation)),
            Err(detail) => (false, vec![(Problem::Unreadable, detail)]),
        };
        let dropped = problems.iter().map(|(problem, _)| *problem).find(|problem| self.drops(*problem));
        self.report.add(path, row.line, &problems, dropped);
        match readable && dropped.is_none() {
            true => keep(&row.text),
            false => Ok(()),
        }
    }

    fn drops(&self, problem: Problem) -> bool {
        self.options.drop.contains(&problem)
    }

    /// Everything that is wrong with a conversation, which is remembered unless that drops it.
    fn problems(&mut self, conversation: &Conversation) -> Vec<(Problem, String)> {
        let mut problems = Vec::new();
        let mut found = |problem, detail: Option<String>| problems.extend(detail.map(|detail| (problem, detail)));
        found(Problem::Schema, self.schemas.declarations(conversation));
        found(Problem::Call, self.schemas.calls(conversation));
        found(Problem::Turns, turns::problem(&conversation.messages));
        let sketch = Sketch::of(&conversation.messages);
        found(Problem::Overlap, self.held.overlap(conversation, &sketch));
        if problems.iter().any(|(problem, _)| self.drops(*problem)) {
            return problems;
        }
        if !self.seen.insert(fingerprint(&conversation.messages)) {
            problems.push((Problem::Duplicate, "says and calls the same as an earlier one".to_owned()));
        } else if let Some(similarity) = self.near.similar(&sketch) {
            problems.push((Problem::NearDuplicate, format!("about {:.0} % of an earlier one", similarity * 100.0)));
        }
        if !problems.iter().any(|(problem, _)| self.drops(*problem)) {
            self.near.insert(sketch);
        }
        problems
    }
}
