//! What a check has found: how many conversations have which problem, how many were dropped for it, and the first of them.

use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Characters of the longest detail that is shown.
const SHOWN: usize = 240;

/// What can be wrong with a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// No native conversation.
    Unreadable,
    /// Parameters of a function that are no JSON Schema, or two functions of one name.
    Schema,
    /// A call that its function's schema does not allow, or of a function that is not offered.
    Call,
    /// Turns that do not alternate or are empty, calls and results that do not belong together, ids that are used twice.
    Turns,
    /// The same messages as an earlier conversation.
    Duplicate,
    /// Almost the same words as an earlier conversation.
    NearDuplicate,
    /// A request of the test data, with its call where it is short or not the first, or almost the words of one of its conversations.
    Overlap,
}

/// What may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fix {
    /// Rows that are no native conversations.
    DropUnreadable,
    /// Conversations with calls or declarations of functions that are not valid.
    DropInvalid,
    /// Conversations whose turns do not follow one another properly.
    DropTurns,
    /// All but the first of equal conversations.
    DropDuplicates,
    /// All but the first of similar conversations.
    DropNearDuplicates,
    /// Conversations that overlap with the test data.
    DropOverlap,
}

impl Fix {
    /// The problems that it does away with.
    pub fn problems(self) -> &'static [Problem] {
        match self {
            Self::DropUnreadable => &[Problem::Unreadable],
            Self::DropInvalid => &[Problem::Schema, Problem::Call],
            Self::DropTurns => &[Problem::Turns],
            Self::DropDuplicates => &[Problem::Duplicate],
            Self::DropNearDuplicates => &[Problem::NearDuplicate],
            Self::DropOverlap => &[Problem::Overlap],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "unreadable",
            Self::Schema => "invalid schema",
            Self::Call => "invalid call",
            Self::Turns => "improper turns",
            Self::Duplicate => "duplicate",
            Self::NearDuplicate => "near-duplicate",
            Self::Overlap => "overlap with the test data",
        })
    }
}

/// The counts of one check.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub conversations: u64,
    pub kept: u64,
    /// Conversations with each problem; one may have several.
    pub found: BTreeMap<Problem, u64>,
    /// Conversations dropped, each for the first of its problems that was to be.
    pub dropped: BTreeMap<Problem, u64>,
    /// Problems of conversations that were kept.
    pub left: u64,
    /// Whether there were more conversations than are remembered, so that duplicates far apart may be unnoticed.
    pub window_exceeded: bool,
    /// The first findings, as many as were asked for.
    pub first: Vec<Finding>,
    #[serde(skip)]
    shown: usize,
}

/// A problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: String,
    /// From 1.
    pub line: u64,
    pub problem: Problem,
    pub detail: String,
}

impl Report {
    pub(super) fn new(shown: usize) -> Self {
        Self { shown, ..Self::default() }
    }

    pub(super) fn add(&mut self, path: &Path, line: u64, problems: &[(Problem, String)], dropped: Option<Problem>) {
        for (problem, detail) in problems {
            *self.found.entry(*problem).or_default() += 1;
            if self.first.len() < self.shown {
                let detail = detail.chars().take(SHOWN).collect();
                self.first.push(Finding { file: path.display().to_string(), line, problem: *problem, detail });
            }
        }
        match dropped {
            Some(problem) => *self.dropped.entry(problem).or_default() += 1,
            None => {
                self.kept += 1;
                self.left += u64::from(!problems.is_empty());
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { file, line, problem, detail } in &self.first {
            writeln!(f, "{file}:{line}: {problem}: {detail}")?;
        }
        for (problem, found) in &self.found {
            let dropped = self.dropped.get(problem).copied().unwrap_or(0);
            writeln!(f, "{problem}: {found} conversations, {dropped} dropped for it")?;
        }
        if self.window_exceeded {
            writeln!(f, "more conversations than are remembered: duplicates far apart may be unnoticed")?;
        }
        write!(f, "{} conversations, {} kept, {} of them with problems", self.conversations, self.kept, self.left)
    }
}
