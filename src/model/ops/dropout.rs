//! Dropout (Srivastava et al. 2014) whose mask is a function of a seed and the place: computed again, it is the same, so
//! that nothing has to be kept for the backward pass.

use super::kernels::{RowKernel, for_rows};
use super::tensor;
use candle_core::{Result, Tensor};

/// Values handled as one row.
const CHUNK: usize = 1024;

/// Which values are dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share that is dropped, in 0..1.
    pub share: f32,
    /// What the choice depends on, beside the place.
    pub seed: u64,
}

impl Dropout {
    /// Another choice for another place in the model.
    pub fn at(self, index: usize) -> Self {
        let seed = self.seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { seed, ..self }
    }

    /// `y = x * mask / (1 - share)` of `[.., d]` values, in place.
    pub(super) fn apply(self, values: &mut [f32]) {
        let whole = values.len() / CHUNK;
        let (body, tail) = values.split_at_mut(whole * CHUNK);
        for_rows(body, CHUNK, &self);
        self.row(whole, tail);
    }

    /// The factors themselves, as a tensor like `x`.
    pub(in crate::model) fn factors(self, x: &Tensor) -> Result<Tensor> {
        let mut factors = vec![1f32; x.elem_count()];
        self.apply(&mut factors);
        tensor(factors, x.shape().clone())?.to_device(x.device())?.to_dtype(x.dtype())
    }
}

/// A well-mixed number for each place (the finaliser of "lowbias32" by C. Wellons, with the seed put in between).
#[inline(always)]
fn hash(place: u32, seed: u64) -> u32 {
    let mut x = place ^ seed as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x ^= (seed >> 32) as u32;
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

impl RowKernel for Dropout {
    #[inline(always)]
    fn row(&self, index: usize, row: &mut [f32]) {
        let (scale, limit) = (1.0 / (1.0 - self.share), (f64::from(self.share) * 4_294_967_296.0) as u32);
        let first = (index * CHUNK) as u32;
        for (i, value) in row.iter_mut().enumerate() {
            let kept = hash(first.wrapping_add(i as u32), self.seed) >= limit;
            *value *= if kept { scale } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asked_share_is_dropped_and_the_mean_stays() {
        for (share, seed) in [(0.1, 1), (0.5, 2), (0.05, u64::MAX)] {
            let mut values = vec![1f32; 200_000];
            Dropout { share, seed }.apply(&mut values);
            let dropped = values.iter().filter(|value| **value == 0.0).count() as f64 / 200_000.0;
            assert!((dropped - f64::from(share)).abs() < 0.005, "{dropped} of {share}");
            let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / 200_000.0;
            assert!((mean - 1.0).abs() < 0.01, "{mean}");
        }
    }

    #[test]
    fn a_mask_is_the_same_again_and_another_one_at_another_place() {
        let mask = |dropout: Dropout| {
            let mut values = vec![1f32; 5000];
            dropout.apply(&mut values);
            values
        };
        let first = Dropout { share: 0.3, seed: 7 };
        assert_eq!(mask(first), mask(first));
        let shared = mask(first.at(0)).iter().zip(mask(first.at(1))).filter(|(a, b)| **a == *b).count();
        // Independent masks agree with probability 0.3² + 0.7² = 0.58.
        assert!((2700..3100).contains(&shared), "{shared}");
    }
}
