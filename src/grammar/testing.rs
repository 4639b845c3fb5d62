//! Test support: tokenizers, a random decoder, and the verdict on what it wrote. Knows no schema.

use super::{Constraint, GrammarCompiler, GrammarError, strict_json};
use serde_json::Value;
use std::sync::Arc;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

/// One token per byte, and one end-of-turn id.
pub(crate) fn byte_env() -> TokEnv {
    ApproximateTokEnv::single_byte_env()
}

const WORDS: [&str; 41] = [
    "{\"", "\":", "\":\"", "\",\"", "\"}", "}}", "\"]", "]}", "[\"", "[[", "{}", "[]", "true", "false", "null", "name",
    "the", " a", "ab", "abc", "tool", "10", "00", "123", "-1", "0.", ".5", "\\n", "\\\"", "\\\\", "\\u", "é", "日本",
    "🙂", "\u{7f}", "\\", "\u{2028}", "\t", "  ", "a\"", "\"",
];

/// Bytes (the quote twice), JSON fragments and words that cross its borders, and two end-of-turn ids. Greedy, hence canonical.
pub(crate) struct WordEnv(TokTrie);

impl WordEnv {
    pub(crate) fn shared() -> TokEnv {
        let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        words.extend(WORDS.iter().map(|word| word.as_bytes().to_vec()));
        let end = words.len() as u32;
        words.extend([b"\xFF<|end|>".to_vec(), b"\xFF<|eot|>".to_vec()]);
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        Arc::new(Self(trie.with_eos_tokens(&[end, end + 1])))
    }
}

impl TokenizerEnv for WordEnv {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.0.greedy_tokenize(bytes)
    }
}

/// A small deterministic generator (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// A tokenizer with its compiler.
pub(crate) struct Lab {
    pub(crate) env: TokEnv,
    pub(crate) compiler: GrammarCompiler,
}

impl Lab {
    pub(crate) fn new(env: TokEnv) -> Self {
        let compiler = GrammarCompiler::new(Arc::clone(&env), 1).expect("a working grammar");
        Self { env, compiler }
    }

    pub(crate) fn schema(&self, admitted: &Value) -> Result<Constraint, GrammarError> {
        self.compiler.compile_blocking(&format!("start: %json {admitted}"))
    }

    /// Allowed tokens in the present state.
    pub(crate) fn allowed(&self, constraint: &mut Constraint) -> Vec<u32> {
        let mut logits = vec![0.0; self.env.tok_trie().vocab_size() + 7];
        constraint.apply_mask(&mut logits).expect("a working grammar");
        (0..logits.len() as u32).filter(|id| logits[*id as usize] == 0.0).collect()
    }

    /// Decodes with tokens drawn uniformly from the allowed ones, then more and more with those that close things.
    /// `None` when it does not end in `limit` tokens.
    pub(crate) fn sample(&self, mut constraint: Constraint, random: &mut Random, limit: usize) -> Option<Vec<u8>> {
        let trie = self.env.tok_trie();
        let mut text = Vec::new();
        for step in 0..limit {
            if random.below(2) == 0 {
                let forced = constraint.take_forced().expect("a working grammar");
                forced.iter().for_each(|id| text.extend_from_slice(trie.token(*id)));
            }
            if constraint.is_finished() {
                return Some(text);
            }
            let allowed = self.allowed(&mut constraint);
            let tired = random.below(limit) < step * 2;
            let pick = |wanted: &dyn Fn(&[u8]) -> bool| allowed.iter().copied().find(|id| wanted(trie.token(*id)));
            let plain = b"0123456789@.ab-}]"[random.below(17)];
            let end =
                pick(&|token| matches!(token, b"\"" | b"\"}" | b"\"]")).or_else(|| pick(&|token| token == [plain]));
            let id = end.filter(|_| tired).unwrap_or_else(|| allowed[random.below(allowed.len())]);
            constraint.commit(id).expect("a working grammar");
            if trie.eos_tokens().contains(&id) {
                assert!(constraint.is_finished(), "the end-of-turn id ends the turn");
                return Some(text);
            }
            text.extend_from_slice(trie.token(id));
        }
        None
    }

    /// Whether the grammar takes the whole text and may end there.
    pub(crate) fn accepts(&self, mut constraint: Constraint, text: &str) -> bool {
        for byte in text.bytes() {
            if constraint.is_finished() || !self.allowed(&mut constraint).contains(&u32::from(byte)) {
                return false;
            }
            constraint.commit(u32::from(byte)).expect("a working grammar");
        }
        constraint.is_finished() || constraint.is_accepting().expect("a working grammar")
    }
}

/// Why a finished text breaks its promise, if it does.
pub(crate) fn complaint(schema: &Value, text: &[u8]) -> Option<String> {
    let shown = String::from_utf8_lossy(text).into_owned();
    let value = match strict_json::parse(&shown) {
        Ok(value) => value,
        Err(error) => return Some(format!("{shown} does not parse: {error}")),
    };
    let validator = jsonschema::options().should_validate_formats(true).build(schema).expect("a working grammar");
    let error = validator.validate(&value).err()?;
    Some(format!("{shown} is invalid: {error}"))
}
