//! The counts as a table for a terminal.

use super::{Answer, Histogram, Stats, Uses};
use std::fmt::Write;

/// Functions that are named at each end.
const NAMED: usize = 10;
/// Rows of a table of shares.
const ROWS: usize = 40;

impl Stats {
    /// Everything that fits a screen or two.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} dialogues, {} tokens, {} of them trained",
            self.dialogues(),
            self.whole.total(),
            self.response.total()
        )?;
        if self.untrained > 0 {
            let (answers, calls) = (self.untrained, self.untrained_calls);
            writeln!(out, "{answers} answers with {calls} calls are not trained on; below, those that are count")?;
        }
        self.write_unusable(out)?;
        writeln!(
            out,
            "\n{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}{:>11}",
            "per dialogue", "p50", "p80", "p90", "p99", "max", "mean"
        )?;
        for (name, histogram) in self.distributions() {
            let [p50, p80, p90, p99, max] = histogram.quantiles();
            let mean = histogram.total() as f64 / histogram.count().max(1) as f64;
            writeln!(out, "{name:<28}{p50:>9}{p80:>9}{p90:>9}{p99:>9}{max:>9}{mean:>11.1}")?;
        }
        let kinds = Answer::ALL.map(|kind| (kind.name(), self.kinds.get(&kind).copied().unwrap_or(0)));
        shares(out, "answers", &kinds)?;
        let types: Vec<_> = self.value_types.iter().map(|(&name, &count)| (name, count)).collect();
        shares(out, "values of arguments", &types)?;
        let classes = self.by_class();
        if !classes.is_empty() {
            shares(out, "dialogues by class", &classes)?;
        }
        self.write_functions(out)
    }

    /// The distributions over dialogues, with their names.
    pub(super) fn distributions(&self) -> [(&'static str, &Histogram); 6] {
        [
            ("prompt tokens", &self.prompt),
            ("response tokens (trained)", &self.response),
            ("tokens altogether", &self.whole),
            ("user turns", &self.user_turns),
            ("answers", &self.answers),
            ("calls", &self.calls),
        ]
    }

    fn write_unusable(&self, out: &mut String) -> std::fmt::Result {
        if self.unusable > 0 {
            writeln!(out, "{} lines cannot be trained on; the first:", self.unusable)?;
        }
        self.reasons.iter().try_for_each(|reason| writeln!(out, "  {reason}"))
    }

    fn write_functions(&self, out: &mut String) -> std::fmt::Result {
        let (called, idle, foreign) = (self.by_use(), self.never_called(), self.never_offered().count());
        let (all, used) = (self.functions.len(), called.len());
        writeln!(out, "\n{all} functions, {used} of them called, {} offered and never called", idle.len())?;
        if foreign > 0 {
            writeln!(out, "{foreign} called and never offered, such as {}", self.never_offered().next().unwrap_or(""))?;
        }
        named(out, "most used", called.iter().take(NAMED))?;
        named(out, "least used", called.iter().skip(NAMED).rev().take(NAMED))?;
        named(out, "never called", idle.iter().take(NAMED))
    }
}

fn named<'a>(out: &mut String, title: &str, functions: impl Iterator<Item = &'a (&'a str, Uses)>) -> std::fmt::Result {
    let mut functions = functions.peekable();
    if functions.peek().is_some() {
        writeln!(out, "\n{title:<40}{:>9}{:>20}", "calls", "dialogues offering")?;
    }
    functions.try_for_each(|(name, Uses { offered, called })| writeln!(out, "{name:<40}{called:>9}{offered:>20}"))
}

fn shares(out: &mut String, title: &str, counts: &[(&str, u64)]) -> std::fmt::Result {
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    writeln!(out, "\n{title:<28}{all:>9}")?;
    counts.iter().take(ROWS).try_for_each(|(name, count)| {
        let share = 100.0 * *count as f64 / all.max(1) as f64;
        writeln!(out, "{name:<28}{count:>9}{share:>8.1} %")
    })?;
    match counts.len().saturating_sub(ROWS) {
        0 => Ok(()),
        more => writeln!(out, "and {more} more"),
    }
}
