//! Near-duplicates: the Jaccard similarity of the sets of three-word shingles, estimated by MinHash (Broder 1997) and
//! looked up by locality-sensitive hashing.
//!
//! A [`Sketch`] is 64 minima; the share of equal ones estimates the similarity with a standard error of at most 0.06. In 16
//! bands of 4, sketches that are 80 % similar meet with a probability above 0.999. Words are those that are not the system's,
//! without case and punctuation.

use callsmith::chat::{Message, Role};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

const MINIMA: usize = 64;
const BANDS: usize = 16;
const ROWS: usize = MINIMA / BANDS;
const SHINGLE: usize = 3;
/// Sketches of a generation: two of them take 100 MiB.
const GENERATION: usize = 1 << 16;

/// What is kept of a conversation's words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sketch([u32; MINIMA]);

impl Sketch {
    pub(super) fn of(messages: &[Message]) -> Self {
        let mut words = Vec::new();
        for message in messages.iter().filter(|message| message.role != Role::System) {
            push_words(&message.content, &mut words);
            for call in &message.tool_calls {
                push_words(&call.name, &mut words);
                push_words(&call.arguments.to_string(), &mut words);
            }
        }
        let mut minima = [u32::MAX; MINIMA];
        for shingle in words.windows(SHINGLE.min(words.len().max(1))) {
            let hash = hash_of(&shingle);
            for (minimum, factor) in minima.iter_mut().zip(FACTORS) {
                *minimum = (*minimum).min((hash.wrapping_mul(factor) >> 32) as u32);
            }
        }
        Self(minima)
    }

    /// The estimated similarity, 0 to 1.
    fn similarity(&self, other: &Self) -> f64 {
        let equal = self.0.iter().zip(&other.0).filter(|(a, b)| a == b).count();
        equal as f64 / MINIMA as f64
    }

    /// One hash for each band; bands do not share any.
    fn bands(&self) -> impl Iterator<Item = u64> {
        self.0.chunks_exact(ROWS).enumerate().map(|band| hash_of(&band))
    }
}

/// Odd numbers, one for each minimum: steps of the golden ratio, mixed as SplitMix64 does it.
const FACTORS: [u64; MINIMA] = {
    let mut factors = [0; MINIMA];
    let mut at = 0;
    while at < MINIMA {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at as u64 + 1);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        factors[at] = (bits ^ (bits >> 31)) | 1;
        at += 1;
    }
    factors
};

fn push_words(text: &str, words: &mut Vec<u64>) {
    let text = text.to_lowercase();
    words.extend(text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| hash_of(&word)));
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Sketches by their bands: at least the latest 65,536, at most twice as many.
pub(super) struct Index {
    similarity: f64,
    recent: Generation,
    older: Generation,
    forgot: bool,
}

#[derive(Default)]
struct Generation {
    sketches: Vec<Sketch>,
    /// The first sketch with each band.
    bands: HashMap<u64, u32>,
}

impl Generation {
    fn nearest(&self, sketch: &Sketch) -> f64 {
        let met = sketch.bands().filter_map(|band| self.bands.get(&band));
        met.map(|&at| self.sketches[at as usize].similarity(sketch)).fold(0.0, f64::max)
    }
}

impl Index {
    /// Sketches count as near from this `similarity` on.
    pub(super) fn new(similarity: f64) -> Self {
        Self { similarity, recent: Generation::default(), older: Generation::default(), forgot: false }
    }

    /// The similarity of the nearest sketch that is near.
    pub(super) fn similar(&self, sketch: &Sketch) -> Option<f64> {
        Some(self.recent.nearest(sketch).max(self.older.nearest(sketch))).filter(|&nearest| nearest >= self.similarity)
    }

    pub(super) fn insert(&mut self, sketch: Sketch) {
        if self.recent.sketches.len() >= GENERATION {
            self.forgot |= !self.older.sketches.is_empty();
            self.older = std::mem::take(&mut self.recent);
        }
        let at = self.recent.sketches.len() as u32;
        for band in sketch.bands() {
            self.recent.bands.entry(band).or_insert(at);
        }
        self.recent.sketches.push(sketch);
    }

    /// Whether early sketches were forgotten.
    pub(super) fn forgot(&self) -> bool {
        self.forgot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(text: &str) -> Sketch {
        Sketch::of(&[Message::text(Role::System, "Rules."), Message::text(Role::User, text)])
    }

    fn words(from: usize, to: usize) -> String {
        (from..to).map(|n| format!("word{n} ")).collect()
    }

    #[test]
    fn the_estimate_is_near_the_share_of_common_shingles() {
        let whole = sketch(&words(0, 400));
        for common in [0, 200, 320, 400] {
            let exact = (common as f64 - 2.0).max(0.0) / (796.0 - (common as f64 - 2.0).max(0.0));
            let other = sketch(&words(400 - common, 800 - common));
            assert!((whole.similarity(&other) - exact).abs() < 0.15, "{common}: {exact} {}", whole.similarity(&other));
        }
        assert_eq!(sketch("Any, words HERE!"), sketch("any words here"));
    }

    #[test]
    fn near_ones_are_found_and_others_are_not() {
        let mut index = Index::new(0.8);
        for n in 0..500 {
            index.insert(sketch(&words(n * 100, n * 100 + 100)));
        }
        assert!(index.similar(&sketch(&format!("{} and one more", words(300, 400)))).unwrap() > 0.8);
        assert_eq!(index.similar(&sketch(&words(350, 450))), None);
        assert_eq!(index.similar(&sketch("hello")), None);
    }
}
