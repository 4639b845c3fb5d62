//! One optimizer step: forward and backward over the micro-batches, sum over ranks, clip, update, write the new values.
//!
//! The loss is the mean over the weights of the WHOLE step, so that accumulation over micro-batches, and on several ranks, equals
//! one batch. Knows no files, no data preparation and no progress display.

use crate::collate::{self, MicroBatch};
use crate::dataset::feeder::StepBatch;
use crate::error::{Result, TrainError};
use crate::faults;
use crate::loss::{self, Backward, Tally};
use crate::noise::NoiseScale;
use crate::optim::{Moments, Optimizer, StepSize, norm};
use crate::ranks::{Alone, Ranks};
use crate::recipe::{OptimSection, Recipe};
use crate::schedule::Schedule;
use crate::trainable::{Gradients, Trainable};
use callsmith::model::backward::Sink;
use candle_core::{Tensor, TensorId};
use rayon::prelude::*;
use std::rc::Rc;

/// Runs steps on a trainable.
pub struct Trainer {
    pub trainable: Trainable,
    /// The current values of all variables.
    pub values: Vec<f32>,
    optimizer: Optimizer,
    gradients: Gradients,
    schedule: Schedule,
    clip: f64,
    guard: Guard,
    ranks: Rc<dyn Ranks>,
    /// Begins anew with every process: it is shown and decides nothing.
    noise: NoiseScale,
}

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    pub tally: Tally,
    pub lr: f64,
    pub gradient_norm: f64,
    /// Noise scale of the gradients so far, in loss-weighted tokens; see [`NoiseScale::observe`].
    pub gradient_noise: Option<f64>,
    /// The loss or gradient was not finite and nothing was changed.
    pub skipped: bool,
}

/// Counts non-finite steps in a row.
struct Guard {
    limit: usize,
    in_a_row: usize,
}

impl Guard {
    /// Whether the step may be applied; too many bad ones in a row are an error.
    fn admit(&mut self, finite: bool) -> Result<bool> {
        self.in_a_row = if finite { 0 } else { self.in_a_row + 1 };
        if self.in_a_row >= self.limit { Err(TrainError::Diverged(self.in_a_row)) } else { Ok(finite) }
    }
}

impl Trainer {
    /// A trainer at step 0.
    pub fn new(recipe: &Recipe, trainable: Trainable, total_steps: u64) -> Result<Self> {
        let optim: &OptimSection = &recipe.optim;
        Ok(Self {
            values: trainable.values()?,
            optimizer: Optimizer::new(optim, trainable.count()),
            gradients: Gradients::new(&trainable),
            schedule: Schedule::new(optim, total_steps),
            clip: optim.clip,
            guard: Guard { limit: optim.max_skipped, in_a_row: 0 },
            ranks: Rc::new(Alone),
            noise: NoiseScale::default(),
            trainable,
        })
    }

    /// The same as one of several: each step is shared among the ranks, and all make the same update.
    pub fn among(self, ranks: Rc<dyn Ranks>) -> Self {
        Self { ranks, ..self }
    }

    /// Whether all ranks hold the same values.
    pub fn check_agreement(&self) -> Result<()> {
        self.ranks.meet()?;
        let bits = norm(&self.values).to_bits();
        if self.ranks.agree((bits >> 32) as u32) && self.ranks.agree(bits as u32) {
            return Ok(());
        }
        let message = "they hold different weights; give all of them the same recipe, the same files of the base and \
            one output directory, on a file system that they share";
        Err(TrainError::Ranks(message.into()))
    }

    /// Continues from saved values and moments.
    pub fn restore(&mut self, values: Vec<f32>, moments: Moments) -> Result<()> {
        if !self.optimizer.can_continue(&self.trainable.slots, &moments) {
            let message = "the checkpoint was made with muon, whose moments adamw cannot continue; keep muon, or start from its weights";
            return Err(TrainError::field("optim.optimizer", message));
        }
        self.trainable.set_values(&values)?;
        self.values = values;
        self.optimizer.moments = moments;
        Ok(())
    }

    /// The optimizer's state.
    pub fn moments(&self) -> &Moments {
        &self.optimizer.moments
    }

    /// The gradient of the last step (mean over weights, before clipping).
    pub fn gradient(&self) -> &[f32] {
        &self.gradients.values
    }

    /// One optimizer step.
    pub fn step(&mut self, batch: &StepBatch) -> Result<StepReport> {
        let mut tally = self.backward(batch)?;
        if faults::point("loss").is_err() {
            tally.loss = f64::NAN;
        }
        if batch.step == 0 {
            self.gradients.check_reached(&self.trainable.slots)?;
        }
        let lr = self.schedule.at(batch.step);
        let gradient_norm = norm(&self.gradients.values);
        let admitted = self.guard.admit(tally.loss.is_finite() && gradient_norm.is_finite())?;
        if admitted {
            self.update(lr, gradient_norm)?;
        }
        let norms = self.gradients.squared_norms();
        let gradient_noise = norms.and_then(|norms| self.noise.observe(&norms, batch.weight()));
        Ok(StepReport { tally, lr, gradient_norm, gradient_noise, skipped: !admitted })
    }

    /// Fills the gradients of `Σ weight · loss / weight_sum` over all micro-batches, those of other ranks too.
    fn backward(&mut self, batch: &StepBatch) -> Result<Tally> {
        self.gradients.clear(batch.micros.len() > 1);
        let pass = Pass { trainable: &self.trainable, step: batch.step, weight_sum: batch.weight() };
        let mut tally = Tally::default();
        let micros = collate::share(&batch.micros, self.ranks.place());
        for group in micros.chunks(self.trainable.parallel_passes()) {
            if let [(index, micro)] = group {
                let gradients = &mut self.gradients;
                let part = pass.backward(*index, micro, &mut |id, gradient| gradients.add(id, gradient))?;
                gradients.end_micro(part.weight / pass.weight_sum);
                tally.merge(&part);
                continue;
            }
            // The sums are made in the order of the micro-batches, however many run at once.
            let found: Vec<_> =
                group.par_iter().with_max_len(1).map(|(index, micro)| pass.collect(*index, micro)).collect();
            for found in found {
                let (part, gradients) = found?;
                tally.merge(&part);
                gradients.iter().try_for_each(|(id, gradient)| self.gradients.add(*id, gradient))?;
                self.gradients.end_micro(part.weight / pass.weight_sum);
            }
        }
        self.ranks.meet()?;
        tally.sum(self.ranks.as_ref());
        check_complete(&tally, batch)?;
        self.gradients.sum(self.ranks.as_ref());
        Ok(tally)
    }

    fn update(&mut self, lr: f64, gradient_norm: f64) -> Result<()> {
        let gradient_scale = (self.clip / gradient_norm.max(f64::MIN_POSITIVE)).min(1.0);
        self.optimizer.update(
            &self.trainable.slots,
            &mut self.values,
            &self.gradients.values,
            StepSize { lr, gradient_scale },
        )?;
        self.trainable.set_values(&self.values)
    }
}

/// The shares of all ranks must make up the step that each of them read.
fn check_complete(tally: &Tally, batch: &StepBatch) -> Result<()> {
    let weight = batch.weight();
    if (tally.weight - weight).abs() <= 1e-6 * weight {
        return Ok(());
    }
    let message = "they read different data in step";
    Err(TrainError::Ranks(format!("{message} {}; give all of them the same recipe and files", batch.step)))
}

/// What all micro-batches of a step share.
struct Pass<'a> {
    trainable: &'a Trainable,
    step: u64,
    weight_sum: f64,
}

impl Pass<'_> {
    fn backward(&self, index: usize, micro: &MicroBatch, sink: &mut Sink<'_>) -> Result<Tally> {
        let Self { trainable, step, weight_sum } = *self;
        let adapters = trainable.training_adapters(micro.tokens.len(), (step, index));
        let backward = Backward { weight_sum, recompute: trainable.recompute, sink };
        Ok(loss::differentiate(&trainable.decoder, &adapters, micro, backward)?.tally)
    }

    /// The same with its gradients in a list, for a sum that is made later.
    fn collect(&self, index: usize, micro: &MicroBatch) -> Result<(Tally, Vec<(TensorId, Tensor)>)> {
        let mut gradients = Vec::new();
        let tally = self.backward(index, micro, &mut |id, gradient| {
            gradients.push((id, gradient.clone()));
            Ok(())
        })?;
        Ok((tally, gradients))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_steps_are_skipped_and_too_many_in_a_row_stop_the_run() {
        let mut guard = Guard { limit: 3, in_a_row: 0 };
        assert!(guard.admit(true).unwrap());
        assert!(!guard.admit(false).unwrap());
        assert!(!guard.admit(false).unwrap());
        assert!(guard.admit(true).unwrap());
        assert!(!guard.admit(false).unwrap());
        assert!(!guard.admit(false).unwrap());
        assert!(guard.admit(false).unwrap_err().to_string().contains("optim.lr"));
    }
}
