//! Tokens as clients see them: text, bytes, log-probabilities, and whether the grammar forced them.

use super::generation::SpokenToken;
use crate::chat::tokenizer::ChatTokenizer;
use serde_json::{Value, json};

/// What JSON has instead of −∞; OpenAI writes it for "impossible".
const IMPOSSIBLE: f64 = -9999.0;

/// The log-probability of a token, and the best alternatives. A forced token has probability 1 under the mask.
pub(super) fn logprobs(token: &SpokenToken, top: usize) -> (f64, Vec<(u32, f64)>) {
    match &token.logprobs {
        Some(found) => {
            let alternatives = found.top.iter().take(top).map(|&(id, value)| (id, finite(value)));
            (finite(found.logprob), alternatives.collect())
        }
        None => (0.0, [(token.id, 0.0)].into_iter().take(top).collect()),
    }
}

fn finite(logprob: f32) -> f64 {
    f64::from(logprob).max(IMPOSSIBLE)
}

/// The token's text; bytes that are no text by themselves are written `\xNN`.
pub(super) fn text(tokenizer: &ChatTokenizer, id: u32) -> String {
    let bytes = tokenizer.shown_bytes(id);
    match std::str::from_utf8(bytes) {
        Ok("") => tokenizer.decode_all(&[id]),
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
    }
}

/// OpenAI's entry of `logprobs.content`.
pub(super) fn entry(tokenizer: &ChatTokenizer, token: &SpokenToken, top: usize) -> Value {
    let scored = |id: u32, logprob: f64| json!({"token": text(tokenizer, id), "logprob": logprob, "bytes": tokenizer.shown_bytes(id)});
    let (logprob, alternatives) = logprobs(token, top);
    let mut entry = scored(token.id, logprob);
    entry["top_logprobs"] = alternatives.into_iter().map(|(id, value)| scored(id, value)).collect();
    entry
}

/// The entry of our extension `return_tokens`.
pub(super) fn shown(tokenizer: &ChatTokenizer, token: &SpokenToken) -> Value {
    json!({"id": token.id, "text": text(tokenizer, token.id), "forced": token.forced})
}
