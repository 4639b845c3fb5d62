//! The gradient of one step, summed over its micro-batches and over ranks in one flat f32 buffer.

use super::{Trainable, flat};
use crate::error::{Result, TrainError};
use crate::optim::Slot;
use crate::ranks::Ranks;
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
    ranges: Vec<Range<usize>>,
    /// How many passes reached each slot.
    reached: Vec<f32>,
}

impl Gradients {
    /// Zero gradients for all slots.
    pub fn new(trainable: &Trainable) -> Self {
        Self {
            values: vec![0.0; trainable.count()],
            places: trainable.places(),
            ranges: trainable.slots.iter().map(|slot| slot.range.clone()).collect(),
            reached: vec![0.0; trainable.slots.len()],
        }
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        self.values.fill(0.0);
        self.reached.fill(0.0);
    }

    /// Adds what one backward pass found for one variable; what is no variable of the run is left out.
    pub fn add(&mut self, id: TensorId, gradient: &Tensor) -> candle_core::Result<()> {
        let Some(&place) = self.places.get(&id) else { return Ok(()) };
        self.reached[place] += 1.0;
        let found = flat(gradient)?;
        let sums = self.values[self.ranges[place].clone()].par_chunks_mut(CHUNK);
        sums.zip(found.par_chunks(CHUNK)).for_each(|(sums, found)| {
            sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        });
        Ok(())
    }

    /// Adds what the other ranks found.
    pub fn sum(&mut self, ranks: &dyn Ranks) {
        ranks.sum(&mut self.values);
        ranks.sum(&mut self.reached);
    }

    /// At the first step every variable must have been reached. A LoRA A factor's gradient is exactly zero then,
    /// because B is zero: it only has to be present.
    pub fn check_reached(&self, slots: &[Slot]) -> Result<()> {
        for (slot, &reached) in slots.iter().zip(&self.reached) {
            let zero = self.values[slot.range.clone()].iter().all(|&value| value == 0.0);
            let reason = match (reached > 0.0, zero) {
                (false, _) => "it is not part of the loss",
                (true, true) if !slot.name.ends_with("lora_A.weight") => "all of it is zero",
                _ => continue,
            };
            return Err(TrainError::NoGradient { tensor: slot.name.clone(), reason });
        }
        Ok(())
    }
}
