//! Entry points for fuzz targets and for bounded random tests: bytes in, a panic out where a promise breaks.
//!
//! Knows what admission promises; not how it keeps it.

mod schemas;

use super::schema::admit;
use super::testing::{Lab, Random, byte_env, complaint};
use serde_json::Value;
use std::sync::LazyLock;

pub use schemas::schema_from;

/// Tokens that are tried of a hostile schema's grammar.
const STEPS: usize = 20;
/// Bytes of an answer.
const LIMIT: usize = 100;
const SAMPLES: usize = 4;

static LAB: LazyLock<Lab> = LazyLock::new(|| Lab::new(byte_env()));

/// Takes any text for a schema: it is refused, or its grammar works.
pub fn schema_admission(bytes: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(mut constraint) = admit(&schema).and_then(|copy| LAB.schema(&copy)) else { return };
    for step in 0..STEPS {
        if constraint.is_finished() {
            return;
        }
        let allowed = LAB.allowed(&mut constraint);
        assert!(!allowed.is_empty(), "nothing is allowed after {step} tokens of {schema}");
        let byte = usize::from(bytes[step % bytes.len()]);
        constraint.commit(allowed[byte % allowed.len()]).expect("an allowed token");
    }
}

/// Makes a schema of any bytes, and answers of the schema: every finished answer is valid. Returns how many there were, or
/// nothing when the schema is refused.
pub fn schema_decode_differential(bytes: &[u8]) -> Option<usize> {
    let schema = schema_from(bytes);
    let constraint = admit(&schema).and_then(|copy| LAB.schema(&copy)).ok()?;
    let seed = bytes.iter().fold(1_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut random = Random::new(seed);
    let answers = (0..SAMPLES).filter_map(|_| LAB.sample(constraint.fork(), &mut random, LIMIT));
    let checked = answers.map(|text| assert_eq!(complaint(&schema, &text), None, "schema {schema}"));
    Some(checked.count())
}
