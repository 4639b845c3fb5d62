//! A tokenizer of bytes and control tokens. Knows no dialect.

use super::ControlTokens;
use std::sync::Arc;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

const EOS: u32 = 256;
/// Control tokens of models whose calls begin with one.
const CONTROL: [&str; 5] = ["<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<s>"];

/// One token per byte, the end of the turn, and control tokens.
struct Bytes(TokTrie);

impl TokenizerEnv for Bytes {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        bytes.iter().map(|&byte| byte.into()).collect()
    }
}

pub(super) fn byte_env() -> TokEnv {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    words.extend(["<|end|>"].iter().chain(&CONTROL).map(|text| [b"\xff", text.as_bytes()].concat()));
    Arc::new(Bytes(TokTrie::from(&TokRxInfo::new(words.len() as u32, EOS), &words)))
}

/// The control tokens as a tokenizer that has them says.
pub(super) fn control() -> ControlTokens {
    CONTROL.iter().zip(EOS + 1..).map(|(text, id)| ((*text).to_owned(), id)).collect()
}

/// One token per byte, control tokens as themselves.
pub(super) fn encode(text: &str, control: &ControlTokens) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        match control.iter().find(|(token, _)| rest.starts_with(token.as_str())) {
            Some((token, &id)) => {
                ids.push(id);
                rest = &rest[token.len()..];
            }
            None => {
                ids.push(first.into());
                rest = rest.get(1..).unwrap_or_else(|| rest_of_character(&mut ids, rest));
            }
        }
    }
    ids
}

/// The other bytes of a character of several; the first has been taken.
fn rest_of_character<'a>(ids: &mut Vec<u32>, text: &'a str) -> &'a str {
    let length = text.chars().next().map_or(1, char::len_utf8);
    ids.extend(text.as_bytes()[1..length].iter().map(|&byte| u32::from(byte)));
    &text[length..]
}
