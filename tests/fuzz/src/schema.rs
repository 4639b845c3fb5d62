//! Bytes → a schema → a constraint: what both schema targets do.
#![expect(dead_code, reason = "each target uses one of the two")]

use callsmith::grammar::{Constraint, GrammarCompiler, GrammarError, schema};
use serde_json::Value;
use std::sync::OnceLock;
use toktrie::ApproximateTokEnv;

/// Masks that are computed after a compilation.
const MASKS: usize = 20;

fn compiler() -> &'static GrammarCompiler {
    static COMPILER: OnceLock<GrammarCompiler> = OnceLock::new();
    COMPILER.get_or_init(|| GrammarCompiler::new(ApproximateTokEnv::single_byte_env(), 1).unwrap())
}

/// The constraint of a schema that is admitted; a refusal must be the schema's fault.
fn compiled(schema: &Value) -> Option<Constraint> {
    let admitted = schema::admit(schema).ok()?;
    match compiler().compile_blocking(&format!("start: %json {admitted}")) {
        Ok(constraint) => Some(constraint),
        Err(GrammarError::Internal(cause)) => panic!("{cause}: {schema}"),
        Err(_) => None,
    }
}

/// The text that these choices lead to, if it ends within `steps` tokens.
fn decode(mut constraint: Constraint, choices: &[u8], steps: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut logits = [0.0; 257];
    for step in 0..steps {
        if constraint.is_finished() {
            return Some(text);
        }
        logits.fill(0.0);
        constraint.apply_mask(&mut logits).unwrap();
        let allowed: Vec<u32> = (0..256).filter(|&id| logits[id as usize] == 0.0).collect();
        let choice = usize::from(choices.get(step % choices.len().max(1)).copied().unwrap_or_default());
        let Some(&id) = allowed.get(choice % allowed.len().max(1)) else { return Some(text) };
        constraint.commit(id).unwrap();
        text.push(id as u8);
    }
    None
}

/// Admission, compilation and the first masks.
pub fn schema_admission(bytes: &[u8]) {
    let Ok(schema) = serde_json::from_slice(bytes) else { return };
    if let Some(constraint) = compiled(&schema) {
        decode(constraint, bytes, MASKS);
    }
}

/// The first bytes choose, the rest is the schema.
pub fn schema_decode_differential(bytes: &[u8]) {
    let (choices, text) = bytes.split_at(bytes.len().min(16));
    let Ok(schema) = serde_json::from_slice(text) else { return };
    let Some(text) = compiled(&schema).and_then(|constraint| decode(constraint, choices, 200)) else { return };
    let _: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {schema}"));
}
