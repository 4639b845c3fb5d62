//! Seeded random weights of a decoder's shape, made tensor by tensor when they are asked for. Knows no file format.

use super::words::generator;
use crate::model::{ModelConfig, decoder};
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;

/// Deviation of weights: small enough for sane logits at any depth.
const DEVIATION: f32 = 0.02;
/// Values that one stream of the generator makes.
const CHUNK: usize = 1 << 16;

/// The name, shape and values of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RandomTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    seed: u64,
    index: u64,
}

/// All tensors of a decoder, in the order of `parameter_shapes`.
pub(super) fn tensors(config: &ModelConfig, seed: u64) -> Vec<RandomTensor> {
    let shapes = decoder::parameter_shapes(config).into_iter().zip(0..);
    shapes.map(|((name, shape), index)| RandomTensor { name, shape, seed, index }).collect()
}

impl RandomTensor {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Norms are 1; everything else is normal. The same for the same seed, on any number of threads.
    pub(super) fn values(&self) -> Vec<f32> {
        if self.name.ends_with("norm.weight") {
            return vec![1.0; self.len()];
        }
        normal(self.len(), DEVIATION, (self.seed, self.index))
    }
}

/// Normal values around 0, from the streams that belong to `index`.
pub(super) fn normal(count: usize, deviation: f32, (seed, index): (u64, u64)) -> Vec<f32> {
    let mut values = vec![0.0; count];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut random = generator(seed, index << 32 | chunk as u64);
        // 24 random bits: uniform in (0, 1].
        let mut uniform = || ((random.next_u32() >> 8) + 1) as f32 / (1 << 24) as f32;
        for pair in values.chunks_mut(2) {
            // Box and Muller's transform.
            let (radius, angle) = (deviation * (-2.0 * uniform().ln()).sqrt(), std::f32::consts::TAU * uniform());
            pair[0] = radius * angle.cos();
            if let Some(second) = pair.get_mut(1) {
                *second = radius * angle.sin();
            }
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_seeded() {
        let values = normal(200_001, 0.5, (1, 2));
        assert_eq!(values, normal(200_001, 0.5, (1, 2)));
        assert_ne!(values[..4], normal(4, 0.5, (1, 3))[..]);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
        assert!(mean.abs() < 0.01 && (deviation - 0.5).abs() < 0.01, "{mean} {deviation}");
        let within = values.iter().filter(|value| value.abs() < 0.5).count() as f32 / values.len() as f32;
        assert!((within - 0.683).abs() < 0.01, "{within}");
    }
}
