//! The learning rate of each step: linear warm-up, then decay to a share of the peak. A pure function of the step.

use crate::recipe::{Decay, OptimSection};

/// Learning rates of a run.
#[derive(Debug, Clone)]
pub struct Schedule {
    peak: f64,
    min_ratio: f64,
    warmup: u64,
    total: u64,
    decay: Decay,
}

impl Schedule {
    /// The schedule of a run of `total` steps.
    pub fn new(optim: &OptimSection, total: u64) -> Self {
        let OptimSection { lr, min_lr_ratio, warmup_steps, schedule, .. } = *optim;
        Self { peak: lr, min_ratio: min_lr_ratio, warmup: warmup_steps, total, decay: schedule }
    }

    /// The learning rate of step `step` (from 0).
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / span).min(1.0);
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.peak * (self.min_ratio + (1.0 - self.min_ratio) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> Schedule {
        Schedule { peak: 1.0, min_ratio: 0.1, warmup: 10, total: 110, decay }
    }

    #[test]
    fn the_warm_up_rises_linearly_to_the_peak() {
        let schedule = schedule(Decay::Cosine);
        assert!((schedule.at(0) - 0.1).abs() < 1e-12);
        assert!((schedule.at(4) - 0.5).abs() < 1e-12);
        assert!((schedule.at(9) - 1.0).abs() < 1e-12);
        assert!((schedule.at(10) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_decay_ends_where_it_says() {
        assert!((schedule(Decay::Cosine).at(60) - 0.55).abs() < 1e-12);
        assert!((schedule(Decay::Linear).at(85) - 0.325).abs() < 1e-12);
        assert!((schedule(Decay::Constant).at(109) - 1.0).abs() < 1e-12);
        for decay in [Decay::Cosine, Decay::Linear] {
            assert!((schedule(decay).at(110) - 0.1).abs() < 1e-12);
            assert!((schedule(decay).at(500) - 0.1).abs() < 1e-12);
        }
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        let schedule = Schedule { warmup: 0, ..schedule(Decay::Linear) };
        assert!((schedule.at(0) - 1.0).abs() < 1e-12);
    }
}
