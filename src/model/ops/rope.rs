//! Rotary position embeddings (Su et al. 2021) in the Hugging Face layout: halves, not interleaved pairs.

use super::kernels::{RowKernel, for_rows};
use super::{View, composed, is_fused, tensor};
use crate::model::config::{ModelConfig, RopeScaling};
use candle_core::{DType, Device, Result, Tensor};
use std::f64::consts::TAU;
use std::sync::Arc;

/// Cosines and sines of the rows of one pass, shared by all layers.
#[derive(Clone)]
pub struct Rotary {
    /// `[T, head_dim / 2]` each.
    cos: Arc<Vec<f32>>,
    sin: Arc<Vec<f32>>,
    half: usize,
}

impl Rotary {
    /// Angles for `positions`, computed in f64.
    pub fn new(config: &ModelConfig, positions: &[u32]) -> Self {
        let frequencies = frequencies(config);
        let angles = || positions.iter().flat_map(|p| frequencies.iter().map(move |f| f64::from(*p) * f));
        let cos = angles().map(|a| a.cos() as f32).collect();
        let sin = angles().map(|a| a.sin() as f32).collect();
        Self { cos: Arc::new(cos), sin: Arc::new(sin), half: frequencies.len() }
    }

    /// The opposite angles: what takes a gradient back through the rotation.
    pub fn reversed(&self) -> Self {
        Self { sin: Arc::new(self.sin.iter().map(|s| -s).collect()), ..self.clone() }
    }

    /// Rotates the heads of row `t`.
    #[inline(always)]
    pub(in crate::model) fn rotate(&self, t: usize, row: &mut [f32]) {
        let Self { cos, sin, half } = self;
        let (cos, sin) = (&cos[t * half..(t + 1) * half], &sin[t * half..(t + 1) * half]);
        for head in row.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(*half);
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let (x, y) = (*a, *b);
                *a = x * c - y * s;
                *b = y * c + x * s;
            }
        }
    }

    /// The tables as tensors `[T, head_dim / 2]`.
    pub(super) fn tensors(&self, dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
        let shape = (self.cos.len() / self.half, self.half);
        let table = |v: &[f32]| Tensor::from_slice(v, shape, device)?.to_dtype(dtype);
        Ok((table(&self.cos)?, table(&self.sin)?))
    }
}

/// Radians per position of each pair of dimensions, after scaling.
fn frequencies(config: &ModelConfig) -> Vec<f64> {
    plain_frequencies(config).map(|f| scale(f, &config.rope_scaling)).collect()
}

fn plain_frequencies(config: &ModelConfig) -> impl Iterator<Item = f64> {
    (0..config.head_dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / config.head_dim as f64))
}

/// What scaling divides the frequency of each pair of dimensions by.
pub fn rope_divisors(config: &ModelConfig) -> Vec<f64> {
    plain_frequencies(config).map(|f| f / scale(f, &config.rope_scaling)).collect()
}

/// Llama 3.1's rule: wavelengths longer than `original / low` are stretched by `factor`, shorter than
/// `original / high` kept, and blended in between.
fn scale(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            let turns = original_max_position * frequency / TAU;
            let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            frequency * (keep + (1.0 - keep) / factor)
        }
    }
}

/// Rotates `x: [T, heads, head_dim]`.
pub fn rope(x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
    if !is_fused(x) {
        return composed::rope(x, rotary);
    }
    let (x, (_, heads, head_dim)) = (x.contiguous()?, x.dims3()?);
    let mut y = View::new(&x)?.to_vec();
    for_rows(&mut y, heads * head_dim, rotary);
    tensor(y, x.shape().clone())
}

impl RowKernel for Rotary {
    #[inline(always)]
    fn row(&self, t: usize, row: &mut [f32]) {
        self.rotate(t, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_fast_turns_and_stretches_slow_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192.0,
        };
        assert_eq!(scale(1.0, &scaling), 1.0);
        assert_eq!(scale(1e-6, &scaling), 1e-6 / 8.0);
        let middle = TAU * 2.5 / 8192.0;
        assert!((scale(middle, &scaling) - middle * (0.5 + 0.5 / 8.0)).abs() < 1e-12);
    }
}
