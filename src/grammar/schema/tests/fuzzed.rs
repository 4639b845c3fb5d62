//! The fuzz entry points for a bounded time, and for as long as `CALLSMITH_TRIALS` asks.

use crate::grammar::fuzzing::{schema_admission, schema_decode_differential, schema_from};
use crate::grammar::testing::Random;
use proptest::prelude::*;

fn bytes(random: &mut Random) -> Vec<u8> {
    (0..20 + random.below(100)).map(|_| random.below(256) as u8).collect()
}

#[test]
fn random_schemas_are_refused_or_keep_the_promise() {
    let trials = std::env::var("CALLSMITH_TRIALS").ok().and_then(|count| count.parse().ok()).unwrap_or(600);
    let mut random = Random::new(trials);
    let finished: Vec<usize> = (0..trials).filter_map(|_| schema_decode_differential(&bytes(&mut random))).collect();
    let (admitted, samples) = (finished.len() as u64, finished.iter().sum::<usize>() as u64);
    println!("{admitted} of {trials} schemas admitted, {samples} answers");
    assert!(admitted > trials / 4 && samples > trials / 2, "{admitted} admitted, {samples} samples");
}

/// A schema's text with a part of it broken or doubled.
fn mangled(bytes: &[u8], cut: usize) -> Vec<u8> {
    let text = schema_from(bytes).to_string();
    let at = (0..=cut % (text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    [&text.as_bytes()[..at], &bytes[..bytes.len().min(3)], &text.as_bytes()[at..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_admission(bytes in prop::collection::vec(any::<u8>(), 0..60), cut in any::<usize>()) {
        schema_admission(&bytes);
        schema_admission(schema_from(&bytes).to_string().as_bytes());
        schema_admission(&mangled(&bytes, cut));
    }
}
