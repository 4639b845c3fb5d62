//! The gradient of one step, summed over its micro-batches and over ranks in one flat f32 buffer, and how much these differ.
//!
//! Of each micro-batch's own gradient only the length is kept, measured while it is added. That is exact for a variable
//! whose gradient comes in one piece. A table that is both embedding and head gets two pieces for each micro-batch, far
//! apart; the length of their sum would take a copy of one, so such a variable is left out on both sides of the comparison.

use super::{Trainable, flat};
use crate::error::{Result, TrainError};
use crate::noise::SquaredNorms;
use crate::optim::{Slot, squared_norm};
use crate::ranks::Ranks;
use callsmith::adapter::peft::Table;
use candle_core::{Tensor, TensorId};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// Values that one task adds.
const CHUNK: usize = 1 << 16;

/// Sums in the order of [`Trainable::slots`].
pub struct Gradients {
    pub values: Vec<f32>,
    places: HashMap<TensorId, usize>,
    slots: Vec<Sum>,
    /// Whether lengths are measured.
    measured: bool,
    /// Micro-batches that are complete and have any weight.
    micros: usize,
}

/// What is known of one variable's gradient.
#[derive(Default)]
struct Sum {
    range: Range<usize>,
    /// Whether it was reached.
    present: bool,
    /// Pieces that the running micro-batch has added, and the squared norm of the last.
    pieces: usize,
    piece: f64,
    /// `Σ pᵢ |gᵢ|²` over the complete micro-batches.
    micro: f64,
    /// Whether any micro-batch added several pieces.
    in_pieces: bool,
}

impl Gradients {
    /// Zero gradients for all slots.
    pub fn new(trainable: &Trainable) -> Self {
        let slots = trainable.slots.iter().map(|slot| Sum { range: slot.range.clone(), ..Sum::default() }).collect();
        Self { values: vec![0.0; trainable.count()], places: trainable.places(), slots, measured: false, micros: 0 }
    }

    /// Back to zero. `measured`: the step has several micro-batches, whose lengths are wanted.
    pub fn clear(&mut self, measured: bool) {
        self.values.fill(0.0);
        self.measured = measured;
        self.micros = 0;
        self.slots.iter_mut().for_each(|sum| *sum = Sum { range: sum.range.clone(), ..Sum::default() });
    }

    /// Adds what one backward pass found for one variable; what is no variable of the run is left out.
    pub fn add(&mut self, id: TensorId, gradient: &Tensor) -> candle_core::Result<()> {
        let Some(&place) = self.places.get(&id) else { return Ok(()) };
        let sum = &mut self.slots[place];
        let found = flat(gradient)?;
        let sums = self.values[sum.range.clone()].par_chunks_mut(CHUNK);
        sums.zip(found.par_chunks(CHUNK)).for_each(|(sums, found)| {
            sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        });
        sum.present = true;
        sum.pieces += 1;
        if self.measured {
            sum.piece = squared_norm(&found);
        }
        Ok(())
    }

    /// Adds what the other ranks found.
    pub fn sum(&mut self, ranks: &dyn Ranks) {
        ranks.sum(&mut self.values);
        let numbers = |sum: &Sum| [f64::from(sum.present), f64::from(sum.in_pieces), sum.micro];
        let mut all: Vec<f64> = self.slots.iter().flat_map(numbers).chain([self.micros as f64]).collect();
        ranks.sum_f64(&mut all);
        for (sum, found) in self.slots.iter_mut().zip(all.chunks(3)) {
            (sum.present, sum.in_pieces, sum.micro) = (found[0] > 0.0, found[1] > 0.0, found[2]);
        }
        self.micros = all[all.len() - 1] as usize;
    }

    /// Ends a micro-batch that has this share of the step's weight: what it added is `share` times its mean gradient.
    pub fn end_micro(&mut self, share: f64) {
        self.micros += usize::from(share > 0.0);
        for sum in &mut self.slots {
            sum.in_pieces |= sum.pieces > 1;
            if sum.pieces > 0 && share > 0.0 {
                sum.micro += sum.piece / share;
            }
            sum.pieces = 0;
        }
    }

    /// Squared norms of the whole gradient and of the micro-batches' own, over all variables that came in one piece;
    /// `None` where they were not measured.
    pub fn squared_norms(&self) -> Option<SquaredNorms> {
        let comparable = || self.slots.iter().filter(|sum| !sum.in_pieces);
        let whole = || comparable().map(|sum| squared_norm(&self.values[sum.range.clone()])).sum();
        let micro = || comparable().map(|sum| sum.micro).sum();
        self.measured.then(|| SquaredNorms { micros: self.micros, micro: micro(), whole: whole() })
    }

    /// At the first step every variable must have been reached. A LoRA A factor's gradient is exactly zero then,
    /// because B is zero: it only has to be present.
    pub fn check_reached(&self, slots: &[Slot]) -> Result<()> {
        for (slot, sum) in slots.iter().zip(&self.slots) {
            // The first step need not show every new token.
            if Table::of_rows(&slot.name).is_some() {
                continue;
            }
            let zero = self.values[slot.range.clone()].iter().all(|&value| value == 0.0);
            let reason = match (sum.present, zero) {
                (false, _) => "it is not part of the loss",
                (true, true) if !slot.name.ends_with("lora_A.weight") => "all of it is zero",
                _ => continue,
            };
            return Err(TrainError::NoGradient { tensor: slot.name.clone(), reason });
        }
        Ok(())
    }
}
