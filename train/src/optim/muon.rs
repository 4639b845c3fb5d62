//! Muon (Jordan et al. 2024): momentum whose singular values are all set to about 1, so that rare directions of a matrix
//! learn as fast as common ones. Scaled to the size of AdamW's updates (Liu et al. 2025), so that both share one
//! learning rate.
//!
//! Knows no learning-rate schedule and no moments but its own.

use super::Slot;
use crate::error::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Coefficients of the quintic Newton-Schulz iteration.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// Root mean square of the elements of AdamW's updates, by experience.
const ADAMW_RMS: f64 = 0.2;

/// One update of all matrices.
pub(super) struct Step {
    pub(super) lr: f64,
    pub(super) momentum: f64,
    /// 1 - lr * decay.
    pub(super) keep: f64,
    /// Factor on the gradient (clipping): a spike must not fill the momentum.
    pub(super) gradient_scale: f64,
}

impl Step {
    /// Updates the momentum and values of `slots`.
    pub(super) fn update(
        &self,
        slots: &[&Slot],
        values: &mut [f32],
        gradients: &[f32],
        momenta: &mut [f32],
    ) -> Result<()> {
        for slot in slots {
            self.accumulate(&mut momenta[slot.range.clone()], &gradients[slot.range.clone()]);
        }
        let directions = slots.par_iter().map(|slot| {
            let range = slot.range.clone();
            self.direction(slot, &momenta[range.clone()], &gradients[range])
        });
        for (slot, direction) in slots.iter().zip(directions.collect::<Result<Vec<_>>>()?) {
            self.apply(slot, &mut values[slot.range.clone()], &direction);
        }
        Ok(())
    }

    fn accumulate(&self, momenta: &mut [f32], gradients: &[f32]) {
        let (momentum, scale) = (self.momentum as f32, self.gradient_scale as f32);
        for (m, gradient) in momenta.iter_mut().zip(gradients) {
            *m += (1.0 - momentum) * (scale * gradient - *m);
        }
    }

    /// Nesterov's look-ahead, orthogonalized.
    fn direction(&self, slot: &Slot, momenta: &[f32], gradients: &[f32]) -> Result<Vec<f32>> {
        let (momentum, scale) = (self.momentum as f32, self.gradient_scale as f32);
        let ahead = |(m, gradient): (&f32, &f32)| scale * gradient + momentum * (m - scale * gradient);
        let ahead = momenta.iter().zip(gradients).map(ahead).collect();
        orthogonalize(ahead, slot.shape[0], slot.shape[1])
    }

    fn apply(&self, slot: &Slot, values: &mut [f32], direction: &[f32]) {
        let longer = slot.shape[0].max(slot.shape[1]) as f64;
        let (rate, keep) = ((self.lr * ADAMW_RMS * longer.sqrt()) as f32, self.keep as f32);
        for (value, direction) in values.iter_mut().zip(direction) {
            *value = *value * keep - rate * direction;
        }
    }
}

/// The matrix with the same singular vectors and singular values of about 1 (0.7 to 1.2); zeros stay zeros.
fn orthogonalize(matrix: Vec<f32>, rows: usize, columns: usize) -> Result<Vec<f32>> {
    let [a, b, c] = QUINTIC;
    let norm = super::norm(&matrix).max(1e-12);
    let tall = rows > columns;
    let given = (Tensor::from_vec(matrix, (rows, columns), &Device::Cpu)? / norm)?;
    let mut x = if tall { given.t()?.contiguous()? } else { given };
    for _ in 0..ITERATIONS {
        let square = x.matmul(&x.t()?)?;
        let polynomial = ((&square * b)? + (square.matmul(&square)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
    }
    let x = if tall { x.t()?.contiguous()? } else { x };
    Ok(x.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn gaussian(name: &str, count: usize) -> Vec<f32> {
        random::normal(&mut random::stream(3, name, 0), count, 1.0)
    }

    /// `m · mᵀ` of a matrix of rows.
    fn gram(matrix: &[f32], columns: usize) -> Vec<Vec<f64>> {
        let rows: Vec<&[f32]> = matrix.chunks(columns).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect()
    }

    #[test]
    fn rows_become_almost_orthonormal() {
        let found = orthogonalize(gaussian("wide", 8 * 64), 8, 64).unwrap();
        for (i, row) in gram(&found, 64).iter().enumerate() {
            for (j, &dot) in row.iter().enumerate() {
                let (low, high) = if i == j { (0.45, 1.5) } else { (-0.35, 0.35) };
                assert!((low..high).contains(&dot), "{i} {j}: {dot}");
            }
        }
    }

    #[test]
    fn a_tall_matrix_is_treated_as_its_transpose() {
        let wide = gaussian("both", 6 * 10);
        let turn = |m: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..columns).flat_map(|column| (0..rows).map(move |row| m[row * columns + column])).collect()
        };
        let tall = orthogonalize(turn(&wide, 6, 10), 10, 6).unwrap();
        let expected = turn(&orthogonalize(wide, 6, 10).unwrap(), 6, 10);
        assert!(tall.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn a_rare_direction_is_followed_like_a_common_one() {
        // Singular values 100 and 0.1 along the axes.
        let found = orthogonalize(vec![100.0, 0.0, 0.0, 0.1], 2, 2).unwrap();
        assert!(found[0] > 0.6 && found[3] > 0.3 && found[1].abs() + found[2].abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn clipping_scales_what_enters_the_momentum() {
        let slots = Slot::layout([("w".into(), vec![2, 2])]);
        let run = |gradient: [f32; 4], gradient_scale: f64| {
            let (mut values, mut momenta) = ([0.0; 4], [0.1; 4]);
            let step = Step { lr: 0.1, momentum: 0.9, keep: 1.0, gradient_scale };
            step.update(&[&slots[0]], &mut values, &gradient, &mut momenta).unwrap();
            (values, momenta)
        };
        assert_eq!(run([4.0, 0.0, -8.0, 2.0], 0.25), run([1.0, 0.0, -2.0, 0.5], 1.0));
    }

    #[test]
    fn no_gradient_changes_nothing_but_the_decay() {
        let slots = Slot::layout([("w".into(), vec![2, 2])]);
        let mut values = [1.0, 2.0, 3.0, 4.0];
        let step = Step { lr: 0.1, momentum: 0.9, keep: 0.5, gradient_scale: 1.0 };
        step.update(&[&slots[0]], &mut values, &[0.0; 4], &mut [0.0; 4]).unwrap();
        assert_eq!(values, [0.5, 1.0, 1.5, 2.0]);
    }
}
