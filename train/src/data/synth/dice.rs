//! Seeded choices. Knows nothing of what is chosen.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The random source of one sample: `(seed, index)` fixes every choice.
pub(in crate::data) struct Dice(ChaCha8Rng);

impl Dice {
    pub(in crate::data) fn new(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self(rng)
    }

    /// True with probability `p`.
    pub(in crate::data) fn chance(&mut self, p: f64) -> bool {
        self.0.random::<f64>() < p
    }

    /// An index below `n`; `n` must not be 0.
    pub(in crate::data) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// An integer from `low` to `high`, both included.
    pub(in crate::data) fn between(&mut self, low: i64, high: i64) -> i64 {
        self.0.random_range(low..=high)
    }

    /// One of the items; there must be at least one.
    pub(in crate::data) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// One of the items, by reference; there must be at least one.
    pub(in crate::data) fn pick_ref<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index, by weight. All weights 0 gives index 0.
    pub(in crate::data) fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut point = self.0.random::<f64>() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            point -= weight;
            if point < 0.0 {
                return index;
            }
        }
        0
    }

    pub(in crate::data) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A made-up word of `syllables` syllables, in lower case.
    pub(in crate::data) fn word(&mut self, syllables: usize) -> String {
        const ONSETS: &[&str] = &[
            "b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r",
            "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "y", "z",
        ];
        const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "oo", "ou"];
        const CODAS: &[&str] = &["", "", "", "l", "n", "r", "s", "x", "m", "nd", "rt", "ck"];
        (0..syllables).flat_map(|_| [self.pick(ONSETS), self.pick(VOWELS), self.pick(CODAS)]).collect()
    }
}
