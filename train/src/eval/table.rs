//! Figures side by side: a line for each, a column for each model. Text for people; knows no file.

use super::Outcome;
use std::fmt::Write;

/// The table of some outcomes of one task.
pub fn text(outcomes: &[Outcome]) -> String {
    let columns = names(outcomes);
    let label = rows(outcomes).iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let width = columns.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!("{:<label$} {:>6}", "", "of");
    columns.iter().for_each(|name| text.push_str(&format!("  {name:>width$}")));
    text.push('\n');
    for row in rows(outcomes) {
        let _ = write!(text, "{:<label$} {:>6}", row.name, row.of);
        row.shares.iter().for_each(|share| text.push_str(&format!("  {share:>width$}")));
        text.push('\n');
    }
    text
}

/// A line of the table.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) of: u64,
    pub(super) shares: Vec<String>,
}

/// The names of the columns.
pub(super) fn names(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes.iter().map(|outcome| outcome.name.as_str()).collect()
}

/// The lines. What a figure is taken over may differ from model to model (the calls that were made): the first one's stands.
pub(super) fn rows(outcomes: &[Outcome]) -> Vec<Row> {
    let Some(first) = outcomes.first() else { return Vec::new() };
    let share = |outcome: &Outcome, name: &str| {
        let found = outcome.judged.figures.iter().find(|figure| figure.name == name);
        found.and_then(|figure| figure.share).map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    let row = |figure: &super::judged::Figure| Row {
        name: figure.name.clone(),
        of: figure.of,
        shares: outcomes.iter().map(|outcome| share(outcome, &figure.name)).collect(),
    };
    first.judged.figures.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::judged::{Figure, Judged};
    use serde_json::Value;

    fn outcome(name: &str, shares: [Option<f64>; 2]) -> Outcome {
        let figure = |(name, share): (&str, Option<f64>)| Figure { name: name.to_owned(), share, of: 7 };
        let figures = ["function", "exact"].into_iter().zip(shares).map(figure).collect();
        let judged = Judged { metrics: Value::Null, figures, verdicts: Vec::new() };
        Outcome { name: name.to_owned(), replies: Vec::new(), judged }
    }

    #[test]
    fn models_stand_side_by_side() {
        let table = text(&[outcome("base", [Some(0.5), None]), outcome("adapter lora", [Some(1.0), Some(0.125)])]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["of", "base", "adapter", "lora"]);
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["function", "7", "50.0", "%", "100.0", "%"]);
        assert!(lines[2].contains('–') && lines[2].ends_with("12.5 %"), "{table}");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{table}");
    }
}
