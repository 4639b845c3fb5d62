//! Encodes ordinary text without ever producing a control token, for prompts and for llguidance. Knows no files.

use super::super::ChatError;
use super::super::guard::Guard;
use std::sync::Arc;
use tokenizers::Tokenizer;
use toktrie::{TokTrie, TokenId, TokenizerEnv};

/// A tokenizer that reads the texts of control tokens as ordinary text.
pub(super) struct TextEncoder {
    tokenizer: Tokenizer,
    guard: Guard,
    is_control: Vec<bool>,
}

impl TextEncoder {
    pub(super) fn new(mut tokenizer: Tokenizer, control_texts: Vec<String>, control_ids: &[u32]) -> Self {
        tokenizer.set_encode_special_tokens(true);
        let mut is_control = vec![false; control_ids.iter().max().map_or(0, |&id| id as usize + 1)];
        control_ids.iter().for_each(|&id| is_control[id as usize] = true);
        Self { tokenizer, guard: Guard::new(control_texts), is_control }
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let ids = self.ids(text)?;
        if self.is_ordinary(&ids) { Ok(ids) } else { self.encode_in_pieces(text) }
    }

    /// What the tokenizer adds before a text when it is asked to add its special tokens.
    pub(super) fn lead(&self) -> Result<Vec<u32>, ChatError> {
        let failed = |error: tokenizers::Error| ChatError::Tokenizer(error.to_string());
        let with = self.tokenizer.encode_fast("a", true).map_err(failed)?;
        let plain = self.ids("a")?;
        let start = with.get_ids().windows(plain.len().max(1)).position(|ids| ids == plain).unwrap_or(0);
        Ok(with.get_ids()[..start].to_vec())
    }

    /// Some vocabularies reach a control token by ordinary merges too: cut the text inside each one.
    fn encode_in_pieces(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let mut ids = Vec::new();
        let mut start = 0;
        for end in self.guard.cuts(text).into_iter().chain([text.len()]) {
            ids.extend(self.ids(&text[start..end])?);
            start = end;
        }
        if self.is_ordinary(&ids) {
            return Ok(ids);
        }
        Err(ChatError::Tokenizer("the text cannot be written without a control token".into()))
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|error| ChatError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn is_ordinary(&self, ids: &[u32]) -> bool {
        !ids.iter().any(|&id| self.is_control.get(id as usize).copied().unwrap_or(false))
    }
}

/// The same encoding as llguidance wants it, beside the trie of all tokens.
pub(super) struct TrieEnv {
    trie: TokTrie,
    encoder: Arc<TextEncoder>,
}

impl TrieEnv {
    pub(super) fn new(trie: TokTrie, encoder: Arc<TextEncoder>) -> Self {
        Self { trie, encoder }
    }
}

impl TokenizerEnv for TrieEnv {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        // Where the tokenizer fails the trie still has tokens for every byte.
        let encode =
            |text: &str| self.encoder.encode(text).unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()));
        self.trie.tokenize_with_greedy_fallback(bytes, encode)
    }
}
