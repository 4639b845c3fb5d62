//! The warm-up for choosing a function, over random tokens: a question, then candidates of which one shares its key.
//!
//! The layout is that of the embedded model's prompt (request, then `description: name` lines, then the name), so the
//! circuit that forms here is the one that the text needs. Recall with the question last is in [`super::copy`].

use super::Example;
use super::copy::Recall;
use super::source::Source;
use crate::error::Result;
use crate::random;
use rand::RngExt;

/// `ASK noise key noise`, then `CANDIDATE noise key noise NAME value` for each candidate, then `ASK value`; loss on the
/// last value.
pub struct Choose(pub Recall);

impl Source for Choose {
    fn sample(&self, index: u64, progress: f64) -> Result<Example> {
        let rng = &mut random::stream(self.0.seed, "choose", index);
        let (markers, pool) = self.0.pool(progress);
        let noise = self.0.noise(progress);
        let candidates = self.0.pairs(rng, pool, progress);
        let asked = &candidates[rng.random_range(0..candidates.len())];
        let mut tokens = vec![markers[0]];
        tokens.extend(Recall::in_noise(rng, pool, noise, &asked.0));
        for (key, value) in &candidates {
            tokens.push(markers[1]);
            tokens.extend(Recall::in_noise(rng, pool, noise, key));
            tokens.push(markers[2]);
            tokens.extend_from_slice(value);
        }
        tokens.push(markers[0]);
        let answer = tokens.len()..tokens.len() + asked.1.len();
        tokens.extend_from_slice(&asked.1);
        let mut example = Example::new(tokens);
        example.found(answer);
        Ok(example)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tag;
    use super::super::copy::shuffled;
    use super::*;
    use crate::recipe::RecallSection;

    #[test]
    fn the_answer_is_the_value_of_the_one_candidate_that_has_the_asked_key() {
        let settings = RecallSection {
            pool: [40, 90],
            pairs: [2, 4],
            noise: [0, 0],
            key_tokens: [1, 2],
            value_tokens: [1, 3],
            grow: 1.0,
        };
        let choose = Choose(Recall::new(settings, shuffled((0..100).collect(), 1), 7).unwrap());
        for index in 0..50 {
            let Example { tokens, answers, tags, .. } = choose.sample(index, 1.0).unwrap();
            let marker = choose.0.pool(1.0).0;
            let parts: Vec<&[u32]> = tokens[1..answers[0].start - 1].split(|token| *token == marker[1]).collect();
            let right = parts[1..].iter().find(|part| part.starts_with(parts[0])).unwrap();
            assert_eq!(right[parts[0].len() + 1..], tokens[answers[0].clone()]);
            assert_eq!(tags[answers[0].start], Tag::Name);
        }
    }
}
