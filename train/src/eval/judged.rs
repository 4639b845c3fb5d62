//! What an evaluation comes to, whatever was measured: figures, the same for programs, and the verdict on each case.

use crate::loss::Ratio;
use serde_json::Value;

/// The judgement of one model's replies.
pub struct Judged {
    /// For programs: one object.
    pub metrics: Value,
    /// For people, in the order of importance.
    pub figures: Vec<Figure>,
    /// In the order of the cases.
    pub verdicts: Vec<Verdict>,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    /// From 0 to 1; `None` of no case.
    pub share: Option<f64>,
    /// Cases that it is taken over.
    pub of: u64,
}

impl Figure {
    /// A count as a share.
    pub fn of(name: impl Into<String>, ratio: Ratio) -> Self {
        Self { name: name.into(), share: ratio.share(), of: ratio.total }
    }
}

/// What one reply is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub right: bool,
    /// What was wanted, as a person is shown it.
    pub wanted: String,
    /// What is wrong, where a rule says so.
    pub fault: Option<String>,
    /// The functions that were wanted and those that were called, each as one name.
    pub functions: (String, String),
}

/// The functions of a turn as one name.
pub(super) fn named<'a>(functions: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = functions.collect();
    names.sort_unstable();
    if names.is_empty() { "(no call)".to_owned() } else { names.join(" + ") }
}
