//! Updates of flat f32 buffers: AdamW (Loshchilov & Hutter 2019), decoupled decay on matrices only, bias-corrected
//! moments; or Muon for the matrices of the layers and AdamW for the rest.
//!
//! Knows no model: parameters, gradients and moments are slices in the order of the slots.

mod muon;

use crate::error::Result;
use crate::recipe::{OptimSection, OptimizerKind};
use callsmith::adapter::peft::PROMPT_TENSOR;
use rayon::prelude::*;
use std::ops::Range;

/// Elements that one task updates.
const CHUNK: usize = 1 << 16;

/// One tensor's place in the flat buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

impl Slot {
    /// Lays tensors end to end, in order.
    pub fn layout(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Vec<Self> {
        let mut start = 0;
        let place = |(name, shape): (String, Vec<usize>)| {
            let end = start + shape.iter().product::<usize>();
            let slot = Self { name, shape, range: start..end };
            start = end;
            slot
        };
        tensors.into_iter().map(place).collect()
    }

    fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }

    /// Whether the tensor maps activations to activations: its rows are not of one token each.
    fn is_hidden_matrix(&self) -> bool {
        let of_tokens = ["embed_tokens", "lm_head", PROMPT_TENSOR].iter().any(|part| self.name.contains(part));
        self.is_matrix() && !of_tokens
    }
}

/// First and second moments and the number of updates made. Muon has no second moments: theirs stay 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    pub updates: u64,
}

/// The optimizer.
pub struct Optimizer {
    kind: OptimizerKind,
    betas: [f64; 2],
    eps: f64,
    momentum: f64,
    weight_decay: f64,
    pub moments: Moments,
}

/// How far one update goes.
#[derive(Debug, Clone, Copy)]
pub struct StepSize {
    pub lr: f64,
    /// Factor on the gradient (clipping).
    pub gradient_scale: f64,
}

/// The numbers of one update, the same for every element of a tensor.
#[derive(Clone, Copy)]
struct Coefficients {
    betas: [f32; 2],
    eps: f32,
    /// Learning rate over the first moment's bias correction.
    rate: f32,
    /// 1 / sqrt of the second moment's bias correction.
    second_scale: f32,
    /// 1 - lr * decay.
    keep: f32,
    /// Factor on the gradient (clipping).
    gradient_scale: f32,
}

impl Optimizer {
    /// Zero moments for `count` elements.
    pub fn new(optim: &OptimSection, count: usize) -> Self {
        let moments = Moments { first: vec![0.0; count], second: vec![0.0; count], updates: 0 };
        let OptimSection { optimizer: kind, betas, eps, momentum, weight_decay, .. } = *optim;
        Self { kind, betas, eps, momentum, weight_decay, moments }
    }

    /// Whether this optimizer can go on with `moments`: AdamW divides by the second ones, which Muon leaves 0.
    pub fn can_continue(&self, slots: &[Slot], moments: &Moments) -> bool {
        let moved = |slot: &Slot| moments.first[slot.range.clone()].iter().any(|&m| m != 0.0);
        let of_muon = |slot: &Slot| moved(slot) && moments.second[slot.range.clone()].iter().all(|&v| v == 0.0);
        self.kind == OptimizerKind::Muon || !slots.iter().any(of_muon)
    }

    /// One update of `values`.
    pub fn update(&mut self, slots: &[Slot], values: &mut [f32], gradients: &[f32], size: StepSize) -> Result<()> {
        self.moments.updates += 1;
        let (hidden, rest): (Vec<&Slot>, Vec<&Slot>) =
            slots.iter().partition(|slot| self.kind == OptimizerKind::Muon && slot.is_hidden_matrix());
        for slot in rest {
            self.adamw(slot, values, gradients, size);
        }
        let keep = 1.0 - size.lr * self.weight_decay;
        let step = muon::Step { lr: size.lr, momentum: self.momentum, keep, gradient_scale: size.gradient_scale };
        step.update(&hidden, values, gradients, &mut self.moments.first)
    }

    fn adamw(&mut self, slot: &Slot, values: &mut [f32], gradients: &[f32], size: StepSize) {
        let numbers = self.coefficients(slot.is_matrix(), size);
        let range = slot.range.clone();
        values[range.clone()]
            .par_chunks_mut(CHUNK)
            .zip(gradients[range.clone()].par_chunks(CHUNK))
            .zip(self.moments.first[range.clone()].par_chunks_mut(CHUNK))
            .zip(self.moments.second[range].par_chunks_mut(CHUNK))
            .for_each(|(((values, gradients), first), second)| update_chunk(numbers, values, gradients, first, second));
    }

    fn coefficients(&self, decays: bool, StepSize { lr, gradient_scale }: StepSize) -> Coefficients {
        let updates = self.moments.updates as f64;
        let [beta1, beta2] = self.betas;
        let decay = if decays { self.weight_decay } else { 0.0 };
        Coefficients {
            betas: [beta1 as f32, beta2 as f32],
            eps: self.eps as f32,
            rate: (lr / (1.0 - beta1.powf(updates))) as f32,
            second_scale: (1.0 / (1.0 - beta2.powf(updates)).sqrt()) as f32,
            keep: (1.0 - lr * decay) as f32,
            gradient_scale: gradient_scale as f32,
        }
    }
}

fn update_chunk(numbers: Coefficients, values: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
    let Coefficients { betas: [beta1, beta2], eps, rate, second_scale, keep, gradient_scale } = numbers;
    for (((value, &gradient), m), v) in values.iter_mut().zip(gradients).zip(first).zip(second) {
        let gradient = gradient * gradient_scale;
        *m = beta1 * *m + (1.0 - beta1) * gradient;
        *v = beta2 * *v + (1.0 - beta2) * gradient * gradient;
        *value = *value * keep - rate * *m / (v.sqrt() * second_scale + eps);
    }
}

/// Euclidean norm of the whole gradient; the same for any number of threads.
pub fn norm(gradients: &[f32]) -> f64 {
    squared_norm(gradients).sqrt()
}

/// The square of [`norm`].
pub fn squared_norm(gradients: &[f32]) -> f64 {
    gradients.par_chunks(CHUNK).map(sum_of_squares).collect::<Vec<_>>().into_iter().sum()
}

fn sum_of_squares(chunk: &[f32]) -> f64 {
    // Independent sums, because the compiler may not reorder the additions of one.
    let (groups, rest) = chunk.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for group in groups {
        sums.iter_mut().zip(group).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    sums.into_iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optim(weight_decay: f64) -> OptimSection {
        let text = format!("lr = 0.1\nweight_decay = {weight_decay}\nbetas = [0.9, 0.99]\neps = 1e-8");
        toml::from_str(&text).unwrap()
    }

    fn close(found: &[f32], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn two_updates_equal_the_values_worked_out_by_hand() {
        // One matrix [1, 1] (decayed) and one norm [1] (not), decay 0.5, gradients 0.2 then -0.4.
        let slots = Slot::layout([("w".into(), vec![1, 1]), ("norm".into(), vec![1])]);
        let mut adam = Optimizer::new(&optim(0.5), 2);
        let mut values = [1.0, 1.0];
        adam.update(&slots, &mut values, &[0.2, 0.2], StepSize { lr: 0.1, gradient_scale: 1.0 }).unwrap();
        // m̂ = g, v̂ = g²: the step is lr * sign(g).
        close(&values, &[1.0 * 0.95 - 0.1, 1.0 - 0.1]);
        adam.update(&slots, &mut values, &[-0.4, -0.4], StepSize { lr: 0.1, gradient_scale: 1.0 }).unwrap();
        let m = (0.9 * 0.02 + 0.1 * -0.4) / (1.0 - 0.81);
        let v = (0.99 * 0.0004 + 0.01 * 0.16_f64) / (1.0 - 0.9801);
        let step = 0.1 * m / (v.sqrt() + 1e-8);
        close(&values, &[0.85 * 0.95 - step, 0.9 - step]);
        assert_eq!(adam.moments.updates, 2);
    }

    #[test]
    fn scaling_the_gradient_equals_scaling_its_values() {
        let slots = Slot::layout([("w".into(), vec![2, 2])]);
        let (mut a, mut b) = (Optimizer::new(&optim(0.1), 4), Optimizer::new(&optim(0.1), 4));
        let (mut left, mut right) = ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]);
        a.update(&slots, &mut left, &[0.4, -0.8, 1.2, 1.6], StepSize { lr: 0.01, gradient_scale: 0.25 }).unwrap();
        b.update(&slots, &mut right, &[0.1, -0.2, 0.3, 0.4], StepSize { lr: 0.01, gradient_scale: 1.0 }).unwrap();
        for (left, right) in left.iter().zip(right) {
            assert!((left - right).abs() < 1e-6);
        }
    }

    #[test]
    fn adamw_does_not_continue_with_what_muon_left() {
        let slots = Slot::layout([("w".into(), vec![2, 2])]);
        let muon: OptimSection = toml::from_str("lr = 0.1\noptimizer = \"muon\"").unwrap();
        let mut before = Optimizer::new(&muon, 4);
        before.update(&slots, &mut [1.0; 4], &[0.5; 4], StepSize { lr: 0.1, gradient_scale: 1.0 }).unwrap();
        assert!(Optimizer::new(&muon, 4).can_continue(&slots, &before.moments));
        assert!(!Optimizer::new(&optim(0.1), 4).can_continue(&slots, &before.moments));
        assert!(Optimizer::new(&optim(0.1), 4).can_continue(&slots, &Optimizer::new(&muon, 4).moments));
    }

    #[test]
    fn the_norm_covers_all_chunks() {
        let gradients = vec![0.5; 3 * CHUNK + 7];
        assert!((norm(&gradients) - 0.5 * (gradients.len() as f64).sqrt()).abs() < 1e-6);
        assert!(norm(&[1.0, f32::NAN]).is_nan());
    }
}
