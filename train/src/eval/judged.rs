//! What an evaluation comes to, whatever was measured: figures, the same for programs, and the verdict on each case.

use super::answerer::Reply;
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

impl Judged {
    /// The same with the number of replies that are none, so that bad figures without an answer do not look like a bad model.
    pub(super) fn with_refusals(mut self, replies: &[Reply]) -> Self {
        let mut refused = Ratio::default();
        replies.iter().for_each(|reply| refused.add(reply.refused.is_some()));
        self.metrics["refused"] = refused.right.into();
        self.figures.push(Figure::of("refused", refused));
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refused_replies_are_counted_for_people_and_programs() {
        let judged = Judged { metrics: json!({"exact": 0.0}), figures: Vec::new(), verdicts: Vec::new() };
        let judged = judged.with_refusals(&[Reply::refusal("http 400"), Reply::default()]);
        assert_eq!(judged.metrics, json!({"exact": 0.0, "refused": 1}));
        assert_eq!(judged.figures, [Figure { name: "refused".to_owned(), share: Some(0.5), of: 2 }]);
    }
}
