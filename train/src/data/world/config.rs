//! What is generated: the mix of classes, the functions on offer, the noise. Knows no dialogue.

use super::class::Class;
use crate::data::DataError;
use crate::data::synth::Split;
use crate::data::synth::dice::Dice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What makes dialogues harder. Each is a probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// That a function and its parameters go by other names than usual.
    pub rename: f64,
    /// That a function's name says nothing, so that only its description tells.
    pub meaningless: f64,
    /// That the parameters are in another order.
    pub shuffle: f64,
    /// That all parameters are described.
    pub descriptions: f64,
    /// That a name or title is not written in plain Latin letters.
    pub unicode: f64,
    /// That something is said before or after a request that means nothing.
    pub chatter: f64,
    /// That a request is written without a capital letter and a full stop.
    pub careless: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            rename: 0.5,
            meaningless: 0.08,
            shuffle: 0.3,
            descriptions: 0.8,
            unicode: 0.08,
            chatter: 0.15,
            careless: 0.3,
        }
    }
}

/// What to generate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    pub seed: u64,
    pub split: Split,
    /// Weights of the classes; those that are not named have none.
    pub classes: BTreeMap<Class, f64>,
    /// Least and most functions on offer that a dialogue does not need. Class `distractors` has at least five whatever is
    /// given here; of a catalogue, at least five or the most.
    pub distractors: (usize, usize),
    /// Probability of a system message where the class needs none.
    pub system: f64,
    pub noise: Noise,
}

impl Default for WorldConfig {
    fn default() -> Self {
        let weight = |class| match class {
            Class::Single => 3.0,
            Class::Distractors | Class::Dependent | Class::Irrelevant => 2.0,
            // There is less to learn from it than from any other.
            Class::Chat => 0.3,
            _ => 1.0,
        };
        Self {
            seed: 1,
            split: Split::Train,
            classes: Class::ALL.into_iter().map(|class| (class, weight(class))).collect(),
            distractors: (0, 6),
            system: 0.2,
            noise: Noise::default(),
        }
    }
}

impl WorldConfig {
    /// A class, by weight.
    pub(super) fn draw(&self, dice: &mut Dice) -> Class {
        let (classes, weights): (Vec<Class>, Vec<f64>) = self.classes.iter().unzip();
        classes[dice.weighted(&weights)]
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// A setting that is out of range, by name.
    pub fn validate(&self) -> Result<(), DataError> {
        let weights = || self.classes.values().copied();
        let fine = weights().all(|w| w.is_finite() && w >= 0.0) && weights().sum::<f64>() > 0.0;
        ensure(fine, "classes", || "give at least one class a weight above 0, and none a negative one".to_owned())?;
        let (low, high) = self.distractors;
        ensure(low <= high && high <= 20, "distractors", || {
            format!("must be [least, most] with 0 <= least <= most <= 20, not [{low}, {high}]")
        })?;
        let noise = &self.noise;
        [
            ("system", self.system),
            ("noise.rename", noise.rename),
            ("noise.meaningless", noise.meaningless),
            ("noise.shuffle", noise.shuffle),
            ("noise.descriptions", noise.descriptions),
            ("noise.unicode", noise.unicode),
            ("noise.chatter", noise.chatter),
            ("noise.careless", noise.careless),
        ]
        .into_iter()
        .try_for_each(|(field, p)| ensure((0.0..=1.0).contains(&p), field, || format!("must be from 0 to 1, not {p}")))
    }
}

fn ensure(holds: bool, field: &'static str, problem: impl FnOnce() -> String) -> Result<(), DataError> {
    if holds { Ok(()) } else { Err(DataError::Setting { field, problem: problem() }) }
}
