//! Seeded random words: prompts that no server has seen before, the same in every run with the same seed.
//!
//! Knows no tokenizer: how many tokens a word has is measured at the server.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const WORDS: &str = include_str!("words.txt");

/// `count` words of the stream `number` of a seed.
pub(super) fn random(seed: u64, number: u64, count: usize) -> String {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = generator(seed, number);
    let picked: Vec<&str> = (0..count).map(|_| words[random.next_u32() as usize % words.len()]).collect();
    picked.join(" ")
}

/// One of the independent streams of a seed.
pub(super) fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_depend_on_seed_and_number_alone() {
        assert_eq!(random(1, 2, 40), random(1, 2, 40));
        assert_eq!(random(1, 2, 40).split(' ').count(), 40);
        // Sixteen words of a prompt never meet a cache by chance.
        let beginnings: std::collections::HashSet<String> = (0..1000).map(|number| random(1, number, 16)).collect();
        assert_eq!(beginnings.len(), 1000);
        assert_ne!(random(1, 0, 16), random(2, 0, 16));
    }
}
