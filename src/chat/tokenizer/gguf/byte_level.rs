//! Byte-level BPE (`gpt2` in GGUF): how text is split before merging, by the names that files use.

use super::super::super::ChatError;
use super::vocabulary::{Kind, Vocabulary};
use super::{REMEDY, refused};
use crate::gguf::Header;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// How text is prepared and split, as the `tokenizer.json` of the model family says.
pub(super) struct Splitting {
    /// The first is the one that is written.
    pub(super) names: &'static [&'static str],
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    /// A piece that is a token as a whole is not merged.
    ignore_merges: bool,
    /// Whether a text begins with the beginning-of-sequence token when the metadata do not say.
    leads: bool,
}

/// Contractions, words with what stands before them, numbers, other signs, line ends, other space.
macro_rules! words_and {
    ($numbers:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// Words end where capitals begin.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Every way of splitting that is known exactly.
pub(super) fn known() -> [Splitting; 5] {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
    let sequence = |first: Value, then: Value| json!({"type": "Sequence", "pretokenizers": [first, then]});
    let split = |regex: &str| {
        let rule = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        sequence(rule, bytes(false))
    };
    let by = |names, pre_tokenizer| {
        let (normalizer, ignore_merges, leads) = (Value::Null, false, false);
        Splitting { names, normalizer, pre_tokenizer, ignore_merges, leads }
    };
    let digits = sequence(json!({"type": "Digits", "individual_digits": true}), bytes(true));
    [
        Splitting {
            ignore_merges: true,
            leads: true,
            ..by(&["llama-bpe", "llama3", "llama-v3"], split(words_and!(r"\p{N}{1,3}")))
        },
        Splitting { normalizer: json!({"type": "NFC"}), ..by(&["qwen2"], split(words_and!(r"\p{N}"))) },
        Splitting { ignore_merges: true, leads: true, ..by(&["tekken"], split(TEKKEN)) },
        by(&["smollm"], digits),
        by(&["gpt-2"], bytes(true)),
    ]
}

/// The `tokenizer.json`; `lead` gives its post-processor.
pub(super) fn tokenizer_json(
    header: &Header<'_>,
    vocabulary: &Vocabulary<'_>,
    lead: impl Fn(bool) -> Result<Value, ChatError>,
) -> Result<Value, ChatError> {
    let splitting = splitting(header)?;
    let Some(merges) = header.texts("tokenizer.ggml.merges")? else {
        return Err(refused("metadata `tokenizer.ggml.merges` is missing"));
    };
    let pair = |merge: &str| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let pairs: Option<Vec<(String, String)>> = merges.iter().map(|merge| pair(merge)).collect();
    let pairs = pairs.ok_or_else(|| refused("metadata `tokenizer.ggml.merges`: an entry is not two tokens"))?;
    let mut vocab = vocabulary.vocab(&[Kind::Normal]);
    vocab.extend(merged_added_tokens(vocabulary, &pairs));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": splitting.normalizer, "pre_tokenizer": splitting.pre_tokenizer,
        "post_processor": lead(splitting.leads)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "ignore_merges": splitting.ignore_merges, "vocab": vocab, "merges": pairs},
    }))
}

fn splitting(header: &Header<'_>) -> Result<Splitting, ChatError> {
    let name = header.text("tokenizer.ggml.pre")?.unwrap_or("(none)");
    known().into_iter().find(|splitting| splitting.names.contains(&name)).ok_or_else(|| {
        let names = known().map(|splitting| splitting.names[0]).join(", ");
        refused(&format!("tokenizer.ggml.pre `{name}` is not known exactly (known: {names}); {REMEDY}"))
    })
}

/// Added tokens that merges build too: they must be in the vocabulary, spelt like the others.
fn merged_added_tokens(vocabulary: &Vocabulary<'_>, pairs: &[(String, String)]) -> Map<String, Value> {
    let merged: HashSet<String> = pairs.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let spelt = vocabulary.of_kinds(&[Kind::Control, Kind::UserDefined]).map(|(id, text)| (spell(text), id.into()));
    spelt.filter(|(text, _)| merged.contains(text)).collect()
}

/// A text in GPT-2's alphabet, which has a visible character for each byte.
fn spell(text: &str) -> String {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let character = |byte: u8| {
        let hidden = (0..byte).filter(|earlier| !visible(*earlier)).count() as u32;
        if visible(byte) {
            char::from(byte)
        } else {
            char::from_u32(0x100 + hidden).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    };
    text.bytes().map(character).collect()
}
