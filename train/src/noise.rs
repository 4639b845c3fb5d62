//! How noisy gradients are: the simple noise scale `tr(Σ) / |G|²` (McCandlish et al. 2018, "An Empirical Model of
//! Large-Batch Training", appendix A.1), about the batch size beyond which a larger one teaches little more.
//!
//! Knows no tensors: the squared norms of a step's gradient and of its micro-batches' gradients in, a batch size out.

/// How much of the averages stays from step to step: about twenty steps count.
const DECAY: f64 = 0.95;

/// What one step shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquaredNorms {
    /// Micro-batches with any weight.
    pub micros: usize,
    /// `Σ pᵢ |gᵢ|²` over the micro-batches, each with its own mean gradient `gᵢ` and its share `pᵢ` of the step's weight.
    pub micro: f64,
    /// `|Σ pᵢ gᵢ|²`: of the step's gradient.
    pub whole: f64,
}

/// The averages of both estimates.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoiseScale {
    /// Of `|G|²`, the squared length of the true gradient.
    gradient: f64,
    /// Of `tr(Σ)`, the variance of the gradient of a batch of weight 1.
    noise: f64,
}

impl NoiseScale {
    /// Takes note of a step of this loss weight; gives the noise scale so far in the same unit. `None` where the step has
    /// but one micro-batch, which tells nothing, or as long as noise hides the gradient.
    pub fn observe(&mut self, norms: &SquaredNorms, weight: f64) -> Option<f64> {
        let SquaredNorms { micros, micro, whole } = *norms;
        if micros < 2 || !micro.is_finite() || !whole.is_finite() {
            return None;
        }
        // However unequal the n micro-batches are: the mean of `micro` is |G|² + n tr(Σ) / weight, that of `whole` is
        // |G|² + tr(Σ) / weight. Solved for both unknowns:
        let others = micros as f64 - 1.0;
        let (gradient, noise) = ((micros as f64 * whole - micro) / others, weight * (micro - whole) / others);
        self.gradient = DECAY * self.gradient + (1.0 - DECAY) * gradient;
        self.noise = DECAY * self.noise + (1.0 - DECAY) * noise;
        // What both averages lack at first, since they begin at 0, is the same share and goes out of the ratio.
        (self.gradient > 0.0 && self.noise > 0.0).then(|| self.noise / self.gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};

    /// Steps with the gradient (3, 4, 0, …) and noise of this variance in each of 10 directions for each sample, in micro-batches of
    /// so many samples.
    fn observed(steps: u64, variance: f64, sizes: &[usize]) -> Option<f64> {
        let (mut scale, mut found, total) = (NoiseScale::default(), None, sizes.iter().sum::<usize>() as f64);
        for step in 0..steps {
            let mut rng = stream(5, "noise", step);
            let (mut micro, mut whole) = (0.0, [0.0; 10]);
            for &size in sizes {
                let noise = normal(&mut rng, 10, (variance / size as f64).sqrt());
                let gradient: Vec<f64> =
                    noise.iter().zip([3.0, 4.0].into_iter().chain([0.0; 8])).map(|(n, g)| f64::from(*n) + g).collect();
                let share = size as f64 / total;
                micro += share * gradient.iter().map(|g| g * g).sum::<f64>();
                whole.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += share * g);
            }
            let norms = SquaredNorms { micros: sizes.len(), micro, whole: whole.iter().map(|g| g * g).sum() };
            found = scale.observe(&norms, total);
        }
        found
    }

    #[test]
    fn the_noise_scale_of_known_noise_is_found_from_equal_and_from_unequal_micro_batches() {
        // tr(Σ) = 10 directions of this variance, |G|² = 25.
        for (variance, sizes) in [(50.0, &[8, 8, 8, 8][..]), (50.0, &[2, 20, 9, 1, 6][..]), (5.0, &[4, 12][..])] {
            let (found, expected) = (observed(400, variance, sizes).unwrap(), 10.0 * variance / 25.0);
            assert!((found / expected - 1.0).abs() < 0.25, "{sizes:?}: {found}, not {expected}");
        }
    }

    #[test]
    fn two_micro_batches_worked_out_by_hand() {
        // Gradients (1, 0) and (1, 2) of weight 2 each: their mean is (1, 1).
        let norms = SquaredNorms { micros: 2, micro: 3.0, whole: 2.0 };
        // |G|² = (2·2 - 3) / 1, tr(Σ) = 4 (3 - 2) / 1.
        let found = NoiseScale::default().observe(&norms, 4.0).unwrap();
        assert!((found - 4.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn a_single_micro_batch_and_pure_noise_tell_nothing() {
        let mut scale = NoiseScale::default();
        assert_eq!(scale.observe(&SquaredNorms { micros: 1, micro: 2.0, whole: 2.0 }, 4.0), None);
        assert_eq!(scale.observe(&SquaredNorms { micros: 2, micro: f64::NAN, whole: 2.0 }, 4.0), None);
        assert_eq!(scale.observe(&SquaredNorms { micros: 2, micro: 2.0, whole: 0.5 }, 4.0), None);
        // None of these is left in the averages but the last.
        assert!(scale.observe(&SquaredNorms { micros: 2, micro: 30.0, whole: 20.0 }, 4.0).is_some());
    }
}
