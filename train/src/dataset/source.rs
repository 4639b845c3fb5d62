//! Where samples come from: random token tasks, the generators of dialogues, a file of conversations.

use super::Example;
use super::cache::{Cache, Encoding};
use super::conversations::{Conversations, Corpus};
use super::copy::{Copy, shuffled};
use super::encode::{Encoder, Weights};
use super::recall::Recall;
use crate::data::{synth, world};
use crate::error::{Result, TrainError};
use crate::random;
use crate::recipe::{BatchSection, Phase, Recipe, SourceSection};
use crate::stop;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Samples by index. The same index and progress (0..1 through the phase) always give the same sample.
pub trait Source: Send + Sync {
    fn sample(&self, index: u64, progress: f64) -> Result<Example>;
}

/// The sources of one phase with their shares.
pub struct Mixture {
    pub steps: u64,
    /// Samples after which the phase is over, where it is measured in epochs.
    pub samples: Option<u64>,
    pub sources: Vec<(f64, Box<dyn Source>)>,
}

impl Mixture {
    /// The mixtures of all phases of a recipe over its files. `tokens` are the ids of ordinary (not control) tokens.
    ///
    /// # Errors
    /// Sources that cannot be, and [`TrainError::Stopped`].
    pub fn all(
        recipe: &Recipe,
        corpus: &Corpus,
        encoder: &Arc<Encoder>,
        tokens: Vec<u32>,
        stop: &AtomicBool,
    ) -> Result<Vec<Self>> {
        let (seed, batch) = (recipe.seed, &recipe.batch);
        let cache = Cache::of(recipe, &recipe.full_tokenizer_dir()?)?;
        let builder = Builder { encoder, tokens: shuffled(tokens, seed), seed, batch, corpus, cache, stop };
        recipe.phases.iter().enumerate().map(|(index, phase)| builder.mixture(index, phase)).collect()
    }
}

struct Builder<'a> {
    encoder: &'a Arc<Encoder>,
    tokens: Arc<[u32]>,
    seed: u64,
    batch: &'a BatchSection,
    corpus: &'a Corpus,
    cache: Option<Cache>,
    stop: &'a AtomicBool,
}

impl Builder<'_> {
    fn mixture(&self, index: usize, phase: &Phase) -> Result<Mixture> {
        if let (Some(epochs), [section]) = (phase.epochs, phase.sources.as_slice()) {
            return self.epochs(epochs, section, (index * 64) as u64);
        }
        // Each phase and source reads other samples of the same generator.
        let source = |(n, section): (usize, &SourceSection)| {
            let number = (index * 64 + n) as u64;
            Ok((section.weight, self.source(section, number)?))
        };
        let sources = phase.sources.iter().enumerate().map(source).collect::<Result<_>>()?;
        Ok(Mixture { steps: phase.steps.unwrap_or(0), samples: None, sources })
    }

    /// A phase that sees each conversation of a source so many times; its steps are counted by packing them.
    fn epochs(&self, epochs: u64, section: &SourceSection, number: u64) -> Result<Mixture> {
        let source = self.encoded(self.jsonl(section, number)?)?;
        let samples = epochs * source.examples.len() as u64;
        let drawn = (0..samples).map(|index| source.get(index).tokens.len());
        let steps = count_steps(drawn, self.batch);
        if steps == 0 {
            let message = format!("no conversation is as short as {} tokens; raise it", self.batch.max_len);
            return Err(TrainError::field("batch.max_len", message));
        }
        Ok(Mixture { steps, samples: Some(samples), sources: vec![(1.0, Box::new(source))] })
    }

    fn jsonl(&self, section: &SourceSection, number: u64) -> Result<Jsonl> {
        let files = section.jsonl.as_ref().ok_or_else(|| TrainError::field("phase.source", "has no source"))?;
        let conversations = self.corpus.kept(files.all());
        let order = Order::new(self.seed.wrapping_add(number << 32), conversations.len());
        let weights = Weights { lm: section.lm_weight, name: section.name_weight };
        Ok(Jsonl { conversations, encoder: self.encoder.clone(), weights, order })
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
        if let Some(config) = &section.world {
            return Ok(Box::new(World { config: config.clone(), first: number << 40, encoder, weights }));
        }
        let jsonl = self.jsonl(section, number)?;
        match self.cache {
            Some(_) => Ok(Box::new(self.encoded(jsonl)?)),
            None => Ok(Box::new(jsonl)),
        }
    }

    /// The samples of all conversations at once, from the cache where there is one.
    fn encoded(&self, jsonl: Jsonl) -> Result<Encoded> {
        let encoding = jsonl.encoding();
        let sample = |place| stop::check(self.stop).and_then(|()| encoding.sample(place));
        let encode = || (0..jsonl.conversations.len()).into_par_iter().map(sample).collect::<Result<Vec<_>>>();
        let examples = self.cache.as_ref().map_or_else(encode, |cache| cache.samples(&encoding, encode))?;
        Ok(Encoded { examples, order: jsonl.order })
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

/// Dialogues acted out in the world.
struct World {
    config: world::WorldConfig,
    first: u64,
    encoder: Arc<Encoder>,
    weights: Weights,
}

impl Source for World {
    fn sample(&self, index: u64, _progress: f64) -> Result<Example> {
        self.encoder.dialogue(&world::generate(&self.config, self.first + index)?.dialogue, self.weights)
    }
}

/// Optimizer steps that samples of these lengths make, in this order.
fn count_steps(lengths: impl Iterator<Item = usize>, batch: &BatchSection) -> u64 {
    let (mut steps, mut room) = (0, 0);
    for length in lengths.filter(|&length| length <= batch.max_len) {
        if length > room {
            (steps, room) = (steps + 1, batch.tokens);
        }
        room -= length;
    }
    steps
}

/// A new order of so many samples each epoch.
struct Order {
    seed: u64,
    count: usize,
    /// That of the epoch used last.
    last: Mutex<(u64, Arc<[u32]>)>,
}

impl Order {
    fn new(seed: u64, count: usize) -> Self {
        Self { seed, count, last: Mutex::new((0, epoch_order(seed, 0, count))) }
    }

    /// Which sample comes at an index.
    fn place(&self, index: u64) -> usize {
        let count = self.count as u64;
        self.of(index / count)[(index % count) as usize] as usize
    }

    fn of(&self, epoch: u64) -> Arc<[u32]> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.0 != epoch {
            *last = (epoch, epoch_order(self.seed, epoch, self.count));
        }
        last.1.clone()
    }
}

/// Conversations of files.
struct Jsonl {
    conversations: Conversations,
    encoder: Arc<Encoder>,
    weights: Weights,
    order: Order,
}

impl Jsonl {
    fn encoding(&self) -> Encoding<'_> {
        Encoding { conversations: &self.conversations, encoder: &self.encoder, weights: self.weights }
    }
}

impl Source for Jsonl {
    fn sample(&self, index: u64, _progress: f64) -> Result<Example> {
        self.encoding().sample(self.order.place(index))
    }
}

/// The same where all are encoded: to count them, or to keep them in the cache.
struct Encoded {
    examples: Vec<Example>,
    order: Order,
}

impl Encoded {
    fn get(&self, index: u64) -> &Example {
        &self.examples[self.order.place(index)]
    }
}

impl Source for Encoded {
    fn sample(&self, index: u64, _progress: f64) -> Result<Example> {
        Ok(self.get(index).clone())
    }
}

fn epoch_order(seed: u64, epoch: u64, count: usize) -> Arc<[u32]> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.shuffle(&mut random::stream(seed, "epoch", epoch));
    order.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_as_they_will_be_packed() {
        let batch: BatchSection = toml::from_str("tokens = 10\nmax_len = 6").unwrap();
        let count = |lengths: &[usize]| count_steps(lengths.iter().copied(), &batch);
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[7, 9]), 0);
        assert_eq!(count(&[5, 5]), 1);
        assert_eq!(count(&[5, 6, 4, 9, 1]), 3);
    }

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
