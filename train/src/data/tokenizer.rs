//! Trains the byte-level BPE tokenizer of small models and writes its files.
//!
//! Words are pieces of their own, apart from spaces and punctuation, so that `weather` in `get_weather` and in "the
//! weather" is the same token. Knows text only; what the text is made of is the caller's business.

use super::DataError;
use crate::atomic;
use serde_json::json;
use std::path::Path;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// The control tokens, in the order of their ids, which follow those of the vocabulary.
pub const SPECIAL_TOKENS: [&str; 7] =
    ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|functions|>", "<|end|>", "<|pad|>"];
/// Ends every message.
pub const END_TOKEN: &str = "<|end|>";
/// Fills batches.
pub const PAD_TOKEN: &str = "<|pad|>";

/// A word with at most a capital first letter, capitals (but not the first letter of the next word), one digit, other
/// scripts, or a run of ASCII spaces and signs.
const PIECES: &str = r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]|[^\x00-\x7F]+|[^A-Za-z0-9\x80-\x{10FFFF}]+";
/// Longer signs-and-spaces tokens would be whole lines of a declaration.
const LONGEST_TOKEN: usize = 16;

/// Trains a tokenizer with at most `vocab_size` tokens altogether. It holds all 256 bytes, so any text survives the round trip.
/// Each of `phrases` is one token wherever it stands.
///
/// # Errors
/// A `vocab_size` that cannot hold the bytes, the phrases and the control tokens, or a failure of the trainer.
pub fn train_bpe(
    texts: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    phrases: &[&str],
) -> Result<Tokenizer, DataError> {
    let added = phrases.len() + SPECIAL_TOKENS.len();
    let least = 256 + added;
    if vocab_size < least {
        let problem =
            format!("must be at least {least} (256 bytes, {added} phrases and control tokens), not {vocab_size}");
        return Err(DataError::Setting { field: "vocab", problem });
    }
    let split = Split::new(SplitPattern::Regex(PIECES.to_owned()), SplitDelimiterBehavior::Isolated, false);
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(vec![split.map_err(failed)?.into(), bytes.into()])))
        .with_decoder(Some(bytes));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size - added)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .max_token_length(Some(LONGEST_TOKEN))
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts).map_err(failed)?;
    let phrases = phrases.iter().map(|text| AddedToken::from(*text, false).normalized(false));
    tokenizer.add_tokens(phrases).map_err(failed)?;
    let control = SPECIAL_TOKENS.iter().map(|text| AddedToken::from(*text, true));
    tokenizer.add_special_tokens(control).map_err(failed)?;
    Ok(tokenizer)
}

fn failed(error: impl std::fmt::Display) -> DataError {
    DataError::Tokenizer(error.to_string())
}

/// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`.
///
/// # Errors
/// A file that cannot be written.
pub fn write_tokenizer(tokenizer: &Tokenizer, dir: &Path) -> Result<(), DataError> {
    let text = tokenizer.to_string(false).map_err(failed)?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        atomic::stream(&path, |out| out.write_all(text.as_bytes())).map_err(|e| DataError::file(&path, e))
    };
    write("tokenizer.json", &text)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": END_TOKEN,
        "pad_token": PAD_TOKEN,
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "additional_special_tokens": SPECIAL_TOKENS,
    });
    write("tokenizer_config.json", &format!("{config:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> impl Iterator<Item = String> + Send {
        let line = r#"// Get the weather. type get_weather = (_: { city: string, }) => any; what's the weather in Paris? {"tool_uses":[{"recipient_name":"functions.getWeather","parameters":{"city":"Paris","days":3}}]}"#;
        (0..50).map(move |n| format!("{line} {n}"))
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn any_text_survives_the_round_trip() {
        let tokenizer = train_bpe(corpus(), 600, &[]).unwrap();
        for text in ["{\"a\":[1.5,\"né\\n\"]}", "  \t\r\n HTMLParser x2", "👩‍👩‍👧 日本語 ñandú Ω", "", "\u{0}\u{7f}\u{80}"]
        {
            assert_eq!(tokenizer.decode(&ids(&tokenizer, text), false).unwrap(), text);
        }
    }

    #[test]
    fn a_word_is_the_same_token_in_a_name_and_in_a_sentence() {
        let tokenizer = train_bpe(corpus(), 600, &[]).unwrap();
        let word = ids(&tokenizer, "weather");
        assert_eq!(word.len(), 1);
        assert_eq!(ids(&tokenizer, "get_weather").last(), word.first());
        assert_eq!(ids(&tokenizer, "the weather").last(), word.first());
        let camel = tokenizer.encode("getWeather", false).unwrap();
        assert_eq!(camel.get_tokens().last().map(String::as_str), Some("Weather"));
        assert_eq!(ids(&tokenizer, "2047").len(), 4);
    }

    #[test]
    fn a_phrase_is_one_token_and_leaves_its_neighbours_alone() {
        let tokenizer = train_bpe(corpus(), 600, &["}}]}", "\ntype "]).unwrap();
        let encoded = tokenizer.encode("weather\ntype weather}}}]}", false).unwrap();
        assert_eq!(encoded.get_tokens(), ["weather", "\ntype ", "weather", "}", "}}]}"]);
        assert_eq!(tokenizer.decode(encoded.get_ids(), false).unwrap(), "weather\ntype weather}}}]}");
    }

    #[test]
    fn control_tokens_follow_the_vocabulary() {
        let tokenizer = train_bpe(corpus(), 400, &[]).unwrap();
        let all = tokenizer.get_vocab_size(true);
        assert!(all <= 400);
        for (at, text) in SPECIAL_TOKENS.iter().enumerate() {
            let id = tokenizer.token_to_id(text).unwrap() as usize;
            assert_eq!(id, all - SPECIAL_TOKENS.len() + at);
        }
    }

    #[test]
    fn training_twice_gives_the_same_files() {
        let write = || {
            let dir = tempfile::tempdir().unwrap();
            write_tokenizer(&train_bpe(corpus(), 500, &[]).unwrap(), dir.path()).unwrap();
            std::fs::read(dir.path().join("tokenizer.json")).unwrap()
        };
        assert_eq!(write(), write());
    }

    #[test]
    fn a_vocabulary_without_room_for_all_bytes_is_refused() {
        let error = train_bpe(corpus(), 200, &[]).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(error, "`vocab`: must be at least 263 (256 bytes, 7 phrases and control tokens), not 200");
    }
}
