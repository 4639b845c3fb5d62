//! Which step was the best on what is held out, and whether it is still worth going on.
//!
//! Knows no tensors: measurements in, decisions out. It is part of a checkpoint's state, so that a resumed run decides the same.

use serde::{Deserialize, Serialize};

/// What evaluations have shown so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// The best step, and its loss.
    pub best: Option<(u64, f64)>,
    /// Its share of wrong generations, where they decide.
    #[serde(default)]
    pub wrong: Option<f64>,
    /// Evaluations since then.
    pub stale: usize,
    /// The step that was evaluated last.
    pub seen: Option<u64>,
}

impl Selection {
    /// Takes note of what was measured after `step` steps; says whether it is the best so far: the fewest `wrong`
    /// generations, where these are given, and the lowest loss among equals.
    pub fn record(&mut self, step: u64, loss: f64, wrong: Option<f64>) -> bool {
        let better = |best: f64| match (wrong, self.wrong) {
            (Some(wrong), Some(least)) if wrong != least => wrong < least,
            (Some(_), Some(_)) | (None, None) => loss < best,
            // The recipe has been changed: by this measure there was none before.
            _ => true,
        };
        let improved = loss.is_finite() && self.best.is_none_or(|(_, best)| better(best));
        self.seen = Some(step);
        if improved {
            (self.best, self.wrong) = (Some((step, loss)), wrong);
        }
        self.stale = if improved { 0 } else { self.stale + 1 };
        improved
    }

    /// Whether so many evaluations in a row have brought nothing.
    pub fn is_exhausted(&self, patience: Option<usize>) -> bool {
        patience.is_some_and(|patience| self.stale >= patience)
    }

    /// The best step.
    pub fn best_step(&self) -> Option<u64> {
        self.best.map(|(step, _)| step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_loss_is_the_best_and_patience_counts_from_it() {
        let mut selection = Selection::default();
        let improved: Vec<bool> = [3.0, 2.0, 2.0, f64::NAN, 1.5, 1.6]
            .iter()
            .enumerate()
            .map(|(n, &loss)| selection.record(n as u64, loss, None))
            .collect();
        assert_eq!(improved, [true, true, false, false, true, false]);
        assert_eq!((selection.best_step(), selection.stale), (Some(4), 1));
        assert!(selection.is_exhausted(Some(1)));
        assert!(!selection.is_exhausted(Some(2)) && !selection.is_exhausted(None));
    }

    #[test]
    fn wrong_generations_decide_before_the_loss_and_a_new_measure_begins_anew() {
        let mut selection = Selection::default();
        let measured = [(2.0, 0.5), (1.0, 0.75), (3.0, 0.25), (2.5, 0.25), (2.6, 0.25), (f64::NAN, 0.0)];
        let improved = measured.map(|(loss, wrong)| selection.record(0, loss, Some(wrong)));
        assert_eq!(improved, [true, false, true, true, false, false]);
        assert!(selection.record(7, 9.0, None));
        assert!(selection.record(8, 10.0, Some(1.0)));
    }
}
