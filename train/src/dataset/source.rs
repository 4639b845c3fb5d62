//! Where samples come from: random token tasks, the dialogue generator, a file of conversations.

use super::Example;
use super::copy::{Copy, shuffled};
use super::encode::{Encoder, Weights};
use super::recall::Recall;
use crate::data::{native, synth};
use crate::error::{Result, TrainError};
use crate::random;
use crate::recipe::{Phase, Recipe, SourceSection};
use callsmith::chat::Conversation;
use rand::seq::SliceRandom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Samples by index. The same index and progress (0..1 through the phase) always give the same sample.
pub trait Source: Send + Sync {
    fn sample(&self, index: u64, progress: f64) -> Result<Example>;
}

/// The sources of one phase with their shares.
pub struct Mixture {
    pub steps: u64,
    pub sources: Vec<(f64, Box<dyn Source>)>,
}

impl Mixture {
    /// The mixtures of all phases of a recipe. `tokens` are the ids of ordinary (not control) tokens.
    pub fn all(recipe: &Recipe, encoder: &Arc<Encoder>, tokens: Vec<u32>) -> Result<Vec<Self>> {
        let builder = Builder { encoder, tokens: shuffled(tokens, recipe.seed), seed: recipe.seed };
        recipe.phases.iter().enumerate().map(|(index, phase)| builder.mixture(index, phase)).collect()
    }
}

struct Builder<'a> {
    encoder: &'a Arc<Encoder>,
    tokens: Arc<[u32]>,
    seed: u64,
}

impl Builder<'_> {
    fn mixture(&self, index: usize, phase: &Phase) -> Result<Mixture> {
        // Each phase and source reads other samples of the same generator.
        let source = |(n, section): (usize, &SourceSection)| {
            let number = (index * 64 + n) as u64;
            Ok((section.weight, self.source(section, number)?))
        };
        let sources = phase.sources.iter().enumerate().map(source).collect::<Result<_>>()?;
        Ok(Mixture { steps: phase.steps, sources })
    }

    fn source(&self, section: &SourceSection, number: u64) -> Result<Box<dyn Source>> {
        let seed = self.seed.wrapping_add(number << 32);
        let weights = Weights { lm: section.lm_weight, name: section.name_weight };
        let encoder = self.encoder.clone();
        let tokens = self.tokens.clone();
        if let Some(copy) = &section.copy {
            return Ok(Box::new(Copy::new(copy.clone(), tokens, seed)?));
        }
        if let Some(recall) = &section.recall {
            return Ok(Box::new(Recall::new(recall.clone(), &tokens, encoder, weights, seed)?));
        }
        if let Some(config) = &section.synth {
            return Ok(Box::new(Synth { config: config.clone(), first: number << 40, encoder, weights }));
        }
        let path = section.jsonl.as_deref().ok_or_else(|| TrainError::field("phase.source", "has no source"))?;
        Ok(Box::new(Jsonl::open(path, seed, encoder, weights)?))
    }
}

/// Generated dialogues.
struct Synth {
    config: synth::SynthConfig,
    first: u64,
    encoder: Arc<Encoder>,
    weights: Weights,
}

impl Source for Synth {
    fn sample(&self, index: u64, _progress: f64) -> Result<Example> {
        self.encoder.example(&synth::generate(&self.config, self.first + index).conversation, self.weights)
    }
}

/// Conversations of a file, in a new order each epoch.
struct Jsonl {
    path: PathBuf,
    /// Line number (from 1) and conversation.
    lines: Vec<(usize, Conversation)>,
    seed: u64,
    encoder: Arc<Encoder>,
    weights: Weights,
    /// The order of the epoch used last.
    order: Mutex<(u64, Arc<[u32]>)>,
}

impl Jsonl {
    fn open(path: &Path, seed: u64, encoder: Arc<Encoder>, weights: Weights) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let lines: Vec<_> = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| Ok((number, native::from_line(line, &format!("{}:{number}", path.display()))?)))
            .collect::<Result<_>>()?;
        if lines.is_empty() {
            return Err(TrainError::Data(format!("{} holds no conversation", path.display())));
        }
        let order = Mutex::new((0, epoch_order(seed, 0, lines.len())));
        Ok(Self { path: path.to_owned(), lines, seed, encoder, weights, order })
    }

    fn order(&self, epoch: u64) -> Arc<[u32]> {
        let mut held = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.0 != epoch {
            *held = (epoch, epoch_order(self.seed, epoch, self.lines.len()));
        }
        held.1.clone()
    }
}

fn at(path: &Path, line: usize, error: &dyn std::fmt::Display) -> TrainError {
    TrainError::Data(format!("{}:{line}: {error}", path.display()))
}

fn epoch_order(seed: u64, epoch: u64, count: usize) -> Arc<[u32]> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.shuffle(&mut random::stream(seed, "epoch", epoch));
    order.into()
}

impl Source for Jsonl {
    fn sample(&self, index: u64, _progress: f64) -> Result<Example> {
        let count = self.lines.len() as u64;
        let place = self.order(index / count)[(index % count) as usize];
        let (line, conversation) = &self.lines[place as usize];
        self.encoder.example(conversation, self.weights).map_err(|e| at(&self.path, *line, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_visits_each_line_once_in_another_order() {
        let sorted = |order: &[u32]| {
            let mut order = order.to_vec();
            order.sort_unstable();
            order
        };
        let (first, second) = (epoch_order(3, 0, 50), epoch_order(3, 1, 50));
        assert_eq!(sorted(&first), (0..50).collect::<Vec<_>>());
        assert_eq!(sorted(&second), sorted(&first));
        assert_ne!(first, second);
        assert_eq!(first, epoch_order(3, 0, 50));
    }
}
