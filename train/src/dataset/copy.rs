//! A warm-up task over random tokens: repeat a sequence. Copying has to form before arguments can be carried over.
//!
//! Pools and lengths grow with the progress of the phase. Knows no text.

use super::source::Source;
use super::{Example, Tag};
use crate::error::{Result, TrainError};
use crate::random;
use crate::recipe::CopySection;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// The ordinary tokens in a random, fixed order; a pool of size n is the first n.
pub fn shuffled(mut tokens: Vec<u32>, seed: u64) -> Arc<[u32]> {
    tokens.shuffle(&mut random::stream(seed, "pool", 0));
    tokens.into()
}

/// A value on its way from `start` to `end`, linear in `progress / grow`.
pub(super) fn grown([start, end]: [usize; 2], progress: f64, grow: f64) -> usize {
    let done = (progress / grow).min(1.0);
    start + ((end - start) as f64 * done).round() as usize
}

/// As [`grown`], geometric.
pub(super) fn grown_pool([start, end]: [usize; 2], progress: f64, grow: f64) -> usize {
    let done = (progress / grow).min(1.0);
    (start as f64 * (end as f64 / start as f64).powf(done)).round() as usize
}

pub(super) fn check_pool(field: &str, pool: [usize; 2], available: usize) -> Result<()> {
    if pool[1] <= available {
        return Ok(());
    }
    Err(TrainError::field(field, format!("the tokenizer has only {available} tokens for it; lower {}", pool[1])))
}

fn draw(rng: &mut ChaCha8Rng, pool: &[u32], count: usize) -> Vec<u32> {
    (0..count).map(|_| pool[rng.random_range(0..pool.len())]).collect()
}

/// `x1 … xT x1 … xT`, loss on the second half but its first token (which cannot be known).
pub struct Copy {
    settings: CopySection,
    tokens: Arc<[u32]>,
    seed: u64,
}

impl Copy {
    pub fn new(settings: CopySection, tokens: Arc<[u32]>, seed: u64) -> Result<Self> {
        check_pool("copy.pool", settings.pool, tokens.len())?;
        Ok(Self { settings, tokens, seed })
    }
}

impl Source for Copy {
    fn sample(&self, index: u64, progress: f64) -> Result<Example> {
        let rng = &mut random::stream(self.seed, "copy", index);
        let CopySection { pool, length, grow } = self.settings;
        let pool = &self.tokens[..grown_pool(pool, progress, grow)];
        let length = rng.random_range(length[0]..=grown(length, progress, grow));
        let half = draw(rng, pool, length);
        let mut example = Example::new([half.as_slice(), half.as_slice()].concat());
        example.answer(length + 1..2 * length);
        example.tags[length + 1..].fill(Tag::Value);
        Ok(example)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> Copy {
        let settings = CopySection { pool: [4, 64], length: [3, 9], grow: 0.5 };
        Copy::new(settings, shuffled((100..200).collect(), 1), 7).unwrap()
    }

    #[test]
    fn the_second_half_repeats_the_first_and_is_trained_from_its_second_token() {
        for index in 0..50 {
            let Example { tokens, weights, .. } = copy().sample(index, 1.0).unwrap();
            let half = tokens.len() / 2;
            assert_eq!(tokens[..half], tokens[half..]);
            assert!(weights[..=half].iter().all(|&weight| weight == 0.0));
            assert!(weights[half + 1..].iter().all(|&weight| weight == 1.0));
        }
    }

    #[test]
    fn pool_and_length_grow_until_the_growth_is_complete() {
        let different = |progress| {
            let all = (0..200).flat_map(|index| copy().sample(index, progress).unwrap().tokens);
            all.collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!(different(0.0), 4);
        assert!((6..=17).contains(&different(0.25)));
        assert_eq!(different(0.5), 64);
        assert_eq!(copy().sample(0, 0.0).unwrap().tokens.len(), 6);
    }

    #[test]
    fn a_pool_larger_than_the_vocabulary_is_refused() {
        let settings = CopySection { pool: [4, 500], length: [3, 9], grow: 0.5 };
        let message = Copy::new(settings, shuffled((0..100).collect(), 1), 7).err().unwrap().to_string();
        assert!(message.contains("copy.pool") && message.contains("100"), "{message}");
    }
}
