//! Two warm-up tasks over random tokens: repeat a sequence (copying), and find the value of a key in noise (recall).
//!
//! Copying has to form before arguments can be carried over, recall before a function can be chosen. Pools and lengths
//! grow with the progress of the phase.

use super::source::Source;
use super::{Example, Tag};
use crate::error::{Result, TrainError};
use crate::random;
use crate::recipe::{CopySection, RecallSection};
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
fn grown([start, end]: [usize; 2], progress: f64, grow: f64) -> usize {
    let done = (progress / grow).min(1.0);
    start + ((end - start) as f64 * done).round() as usize
}

/// As [`grown`], geometric.
fn grown_pool([start, end]: [usize; 2], progress: f64, grow: f64) -> usize {
    let done = (progress / grow).min(1.0);
    (start as f64 * (end as f64 / start as f64).powf(done)).round() as usize
}

fn check_pool(field: &str, pool: [usize; 2], available: usize) -> Result<()> {
    if pool[1] <= available {
        return Ok(());
    }
    Err(TrainError::field(field, format!("the tokenizer has only {available} ordinary tokens; lower {}", pool[1])))
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

/// `PAIR value noise key noise` for each pair, then `ASK noise key noise GIVE value` in another order; loss on the
/// values asked for. The first token of each counts as a name in the log.
pub struct Recall {
    settings: RecallSection,
    tokens: Arc<[u32]>,
    pub(super) seed: u64,
}

/// The three marker tokens, the first of the pool.
const MARKERS: usize = 3;

impl Recall {
    pub fn new(settings: RecallSection, tokens: Arc<[u32]>, seed: u64) -> Result<Self> {
        check_pool("recall.pool", settings.pool, tokens.len())?;
        Ok(Self { settings, tokens, seed })
    }

    /// The markers, and the tokens in use now.
    pub(super) fn pool(&self, progress: f64) -> (&[u32], &[u32]) {
        let RecallSection { pool, grow, .. } = self.settings;
        self.tokens[..grown_pool(pool, progress, grow)].split_at(MARKERS)
    }

    /// Most noise tokens on a side of a key now.
    pub(super) fn noise(&self, progress: f64) -> usize {
        grown(self.settings.noise, progress, self.settings.grow)
    }

    /// The key with up to `most` random tokens before and after it.
    pub(super) fn in_noise(rng: &mut ChaCha8Rng, pool: &[u32], most: usize, key: &[u32]) -> Vec<u32> {
        let (before, after) = (rng.random_range(0..=most), rng.random_range(0..=most));
        [draw(rng, pool, before), key.to_vec(), draw(rng, pool, after)].concat()
    }

    /// (key, value) of each pair; first key tokens differ, so that every question has one answer.
    pub(super) fn pairs(&self, rng: &mut ChaCha8Rng, pool: &[u32], progress: f64) -> Vec<(Vec<u32>, Vec<u32>)> {
        let RecallSection { pairs, key_tokens, value_tokens, grow, .. } = self.settings;
        let count = rng.random_range(pairs[0]..=grown(pairs, progress, grow)).min(pool.len() / 2);
        let mut heads = pool.to_vec();
        let (heads, _) = heads.partial_shuffle(rng, count);
        let mut string = |head: Option<u32>, most: usize| {
            let length = rng.random_range(1..=most);
            let mut tokens = draw(rng, pool, length);
            tokens[0] = head.unwrap_or(tokens[0]);
            tokens
        };
        let pair = |&mut head: &mut u32| {
            let key = string(Some(head), grown(key_tokens, progress, grow));
            (key, string(None, grown(value_tokens, progress, grow)))
        };
        heads.iter_mut().map(pair).collect()
    }
}

impl Source for Recall {
    fn sample(&self, index: u64, progress: f64) -> Result<Example> {
        let rng = &mut random::stream(self.seed, "recall", index);
        let (markers, pool) = self.pool(progress);
        let noise = self.noise(progress);
        let mut pairs = self.pairs(rng, pool, progress);
        let mut tokens = Vec::new();
        for (key, value) in &pairs {
            tokens.push(markers[0]);
            tokens.extend_from_slice(value);
            tokens.extend(Self::in_noise(rng, pool, noise, key));
        }
        pairs.shuffle(rng);
        let mut answers = Vec::new();
        for (key, value) in &pairs {
            tokens.push(markers[1]);
            tokens.extend(Self::in_noise(rng, pool, noise, key));
            tokens.push(markers[2]);
            answers.push(tokens.len()..tokens.len() + value.len());
            tokens.extend_from_slice(value);
        }
        let mut example = Example::new(tokens);
        answers.into_iter().for_each(|answer| example.found(answer));
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

    #[test]
    fn recall_asks_for_every_pair_and_the_answer_stands_in_the_prompt() {
        let settings = RecallSection {
            pool: [40, 80],
            pairs: [2, 4],
            noise: [0, 3],
            key_tokens: [1, 2],
            value_tokens: [1, 3],
            grow: 1.0,
        };
        let recall = Recall::new(settings, shuffled((0..100).collect(), 1), 7).unwrap();
        for index in 0..50 {
            let example = recall.sample(index, 0.9).unwrap();
            let pairs = example.tokens.iter().filter(|&&token| token == recall.tokens[0]).count();
            assert_eq!(pairs, example.answers.len());
            for answer in &example.answers {
                let value = &example.tokens[answer.clone()];
                let prompt = &example.tokens[..example.answers[0].start];
                assert!(prompt.windows(value.len()).any(|window| window == value));
                assert_eq!(example.tags[answer.start], Tag::Name);
            }
        }
    }
}
