//! SentencePiece BPE (`llama` in GGUF): a piece's score says when it is merged; bytes stand for characters without a piece.

use super::super::super::ChatError;
use super::refused;
use super::vocabulary::{Kind, Listed, Vocabulary};
use crate::gguf::Header;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;

/// What stands for a blank.
const BLANK: &str = "▁";
/// Pieces are short; all their cuts are looked at.
const LONGEST_PIECE: usize = 256;

/// The `tokenizer.json`.
pub(super) fn tokenizer_json(
    header: &Header<'_>,
    vocabulary: &Vocabulary<'_>,
    post_processor: &Value,
) -> Result<Value, ChatError> {
    if header.flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        return Err(refused("metadata `tokenizer.ggml.remove_extra_whitespaces` is not supported"));
    }
    let Some(scores) = header.floats("tokenizer.ggml.scores")? else {
        return Err(refused("metadata `tokenizer.ggml.scores` is missing"));
    };
    let prefix = header.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = vocabulary.of_kinds(&[Kind::Unknown]).next().map(|(_, text)| text);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": normalizer(prefix), "pre_tokenizer": null,
        "post_processor": post_processor,
        "decoder": {"type": "Sequence", "decoders": decoders(prefix)},
        "model": {
            "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary.vocab(&[Kind::Normal, Kind::Unknown, Kind::Control, Kind::Byte]),
            "merges": merges(vocabulary, &scores)?,
        },
    }))
}

pub(super) fn normalizer(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
    let prepend = prefix.then(|| json!({"type": "Prepend", "prepend": BLANK}));
    let rules: Vec<Value> = prepend.into_iter().chain([replace]).collect();
    json!({"type": "Sequence", "normalizers": rules})
}

fn decoders(prefix: bool) -> Vec<Value> {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": BLANK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    decoders.extend(prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})));
    decoders
}

/// Every way to make a piece of two others, the best scores first, then the longer first halves.
fn merges<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Result<Vec<(&'a str, &'a str)>, ChatError> {
    let pieces: HashMap<&str, usize> = vocabulary.of_kinds(&[Kind::Normal]).map(|(id, text)| (text, id)).collect();
    let mut merges = Vec::new();
    for (id, text) in vocabulary.of_kinds(&[Kind::Normal]) {
        let score = scores.get(id).copied().filter(|score| score.is_finite());
        let Some(score) = score.filter(|_| text.len() <= LONGEST_PIECE) else {
            return Err(refused(&format!("token {id} has no finite score, or more than {LONGEST_PIECE} bytes")));
        };
        let halves = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let known = halves.filter(|(a, b)| pieces.contains_key(a) && pieces.contains_key(b));
        merges.extend(known.map(|halves| (score, halves)));
    }
    let length = |text: &str| Reverse(text.chars().count());
    merges.sort_by(|(x, (a, b)), (y, (c, d))| {
        y.total_cmp(x).then_with(|| (length(a), length(b)).cmp(&(length(c), length(d))))
    });
    Ok(merges.into_iter().map(|(_, halves)| halves).collect())
}

/// Scores that put the merges of a `tokenizer.json` in their order.
pub(super) fn scores(listed: &Listed, merges: &[(String, String)]) -> Vec<f32> {
    let mut first = HashMap::new();
    for (rank, (a, b)) in merges.iter().enumerate() {
        first.entry(format!("{a}{b}")).or_insert(rank);
    }
    listed.texts().map(|text| first.get(text).map_or(0.0, |rank| -(*rank as f32))).collect()
}
