//! Which step was the best on what is held out, and whether it is still worth going on.
//!
//! Knows no tensors: losses in, decisions out. It is part of a checkpoint's state, so that a resumed run decides the same.

use serde::{Deserialize, Serialize};

/// What evaluations have shown so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// The step with the lowest loss, and that loss.
    pub best: Option<(u64, f64)>,
    /// Evaluations since then.
    pub stale: usize,
    /// The step that was evaluated last.
    pub seen: Option<u64>,
}

impl Selection {
    /// Takes note of the loss after `step` steps; says whether it is the lowest so far.
    pub fn record(&mut self, step: u64, loss: f64) -> bool {
        let improved = loss.is_finite() && self.best.is_none_or(|(_, best)| loss < best);
        self.seen = Some(step);
        if improved {
            self.best = Some((step, loss));
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
            .map(|(n, &loss)| selection.record(n as u64, loss))
            .collect();
        assert_eq!(improved, [true, true, false, false, true, false]);
        assert_eq!((selection.best_step(), selection.stale), (Some(4), 1));
        assert!(selection.is_exhausted(Some(1)));
        assert!(!selection.is_exhausted(Some(2)) && !selection.is_exhausted(None));
    }
}
