//! Text ↔ token ids, so that content can never produce a control token.
//!
//! Control tokens come from `Segment::Control` alone; ordinary text goes through a tokenizer that does not know them. Knows
//! no chat template and no model.

mod detokenizer;
mod encoder;
mod files;
pub mod gguf;

pub use detokenizer::IncrementalDetokenizer;
pub use files::TokenizerFiles;

use super::ChatError;
use super::dialect::{ControlTokens, Dialect};
use super::template::Segment;
use encoder::{TextEncoder, TrieEnv};
use files::{Special, without_dummy_prefix};
use gguf::GgufTokenizer;
use serde_json::Value;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use toktrie::{TokEnv, TokRxInfo, TokTrie};

/// What a tokenizer's directory may consist of; only the first must be there.
pub const FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];
/// How its model is to be sampled, where that is said.
pub const GENERATION_FILE: &str = "generation_config.json";

/// A model's tokenizer. Copies share what is large.
#[derive(Clone)]
pub struct ChatTokenizer {
    encoder: Arc<TextEncoder>,
    control: ControlTokens,
    /// The same the other way round.
    control_texts: HashMap<u32, String>,
    /// The bytes of control tokens that are part of how calls are written.
    tags: HashMap<u32, Vec<u8>>,
    /// By id, as wide as the logits; empty for control tokens and ids without a token.
    bytes: Arc<Vec<Vec<u8>>>,
    special: Special,
    tok_env: TokEnv,
}

impl ChatTokenizer {
    /// Reads `tokenizer.json` (and, if present, `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json`,
    /// `config.json` for bos/eos/template) of a directory, or the metadata of a GGUF file that has no `tokenizer.json` beside
    /// it. `logits_width` is the model's vocabulary size (may be padded).
    ///
    /// # Errors
    /// When a file is missing or malformed, the tokenizer is wider than the logits, or nothing says which token ends a turn.
    pub fn load(path: &Path, logits_width: usize) -> Result<Self, ChatError> {
        let load = || match path.is_file() {
            true => {
                let file = GgufTokenizer::open(path)?;
                Self::assemble(file.tokenizer_json()?, file.special()?, logits_width)
            }
            false => Self::from_files(&files::read_dir(path)?.as_ref(), logits_width),
        };
        load().map_err(|error| ChatError::Tokenizer(format!("{}: {}", path.display(), files::reason(&error))))
    }

    /// What a model directory or a GGUF file says about prompts: chat template, bos and eos text. Builds no tokenizer.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn prompt_files(path: &Path) -> Result<[Option<String>; 3], ChatError> {
        let special = match path.is_file() {
            true => GgufTokenizer::open(path)?.special()?,
            false => Special::read(&files::read_dir(path)?.as_ref())?,
        };
        Ok([special.chat_template, special.bos, special.eos])
    }

    /// How wide logits must be to hold every id of the directory's `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn vocabulary_size(dir: &Path) -> Result<usize, ChatError> {
        let files = files::read_dir(dir)?;
        let size = files.as_ref().tokenizer_json().and_then(|json| Ok(words(&json)?.len()));
        size.map_err(|error| ChatError::Tokenizer(format!("{}: {}", dir.display(), files::reason(&error))))
    }

    /// The same from the files' contents, which may come from memory.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_files(files: &TokenizerFiles<'_>, logits_width: usize) -> Result<Self, ChatError> {
        let json = files.tokenizer_json()?;
        Self::assemble(json, Special::read(files)?, logits_width)
    }

    /// A tokenizer built in memory; `eos` are the texts of the tokens that end a turn, the first being the usual one.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_parts(
        tokenizer: &tokenizers::Tokenizer,
        logits_width: usize,
        chat_template: Option<String>,
        bos: Option<String>,
        eos: &[&str],
    ) -> Result<Self, ChatError> {
        let text = tokenizer.to_string(false).map_err(|error| ChatError::Tokenizer(error.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| ChatError::Tokenizer(error.to_string()))?;
        let ids = eos.iter().filter_map(|text| tokenizer.token_to_id(text)).collect();
        let special = Special { bos, eos: eos.first().map(|&text| text.to_owned()), eos_ids: ids, chat_template };
        Self::assemble(json, special, logits_width)
    }

    fn assemble(mut json: Value, mut special: Special, logits_width: usize) -> Result<Self, ChatError> {
        let control = files::mark_control_tokens(&mut json, &special)?;
        let words = token_words(&json, logits_width)?;
        special.resolve_eos(&control, logits_width)?;
        let texts: Vec<String> = control.keys().cloned().collect();
        let ids: Vec<u32> = control.values().copied().collect();
        let encoder = Arc::new(TextEncoder::new(build(&json)?, texts.clone(), &ids));
        let continuation = match without_dummy_prefix(&json) {
            Some(json) => Arc::new(TextEncoder::new(build(&json)?, texts.clone(), &ids)),
            None => encoder.clone(),
        };
        let tok_env = Arc::new(TrieEnv::new(trie(&words, &special.eos_ids), continuation));
        let bytes = Arc::new(readable(words, &control));
        let control_texts = control.iter().map(|(text, &id)| (id, text.clone())).collect();
        Ok(Self { encoder, control, control_texts, tags: HashMap::new(), bytes, special, tok_env })
    }

    /// Shows the control tokens in the dialect's fixed text to whoever reads the model's answers: its parser looks for them.
    #[must_use]
    pub fn for_dialect(mut self, dialect: &dyn Dialect) -> Self {
        let texts = dialect.fixed_texts();
        let written = self.control.iter().filter(|(token, _)| texts.iter().any(|text| text.contains(token.as_str())));
        self.tags = written.map(|(token, &id)| (id, token.clone().into_bytes())).collect();
        self
    }

    /// Encodes a rendered prompt.
    ///
    /// # Errors
    /// When a segment names a control token that the tokenizer does not have, or a text cannot be encoded.
    pub fn encode(&self, segments: &[Segment]) -> Result<Vec<u32>, ChatError> {
        let mut ids = Vec::new();
        for segment in segments {
            match segment {
                Segment::Control(text) => ids.push(self.control_id(text)?),
                Segment::Text(text) => ids.extend(self.encode_text(text)?),
            }
        }
        Ok(ids)
    }

    fn control_id(&self, text: &str) -> Result<u32, ChatError> {
        let unknown = || ChatError::Tokenizer(format!("`{text}` is not a control token of this tokenizer"));
        self.control.get(text).copied().ok_or_else(unknown)
    }

    /// Encodes plain text; never yields a control token.
    ///
    /// # Errors
    /// When the tokenizer cannot write the text without a control token.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        self.encoder.encode(text)
    }

    /// What the tokenizer puts before every text by itself, for example the beginning-of-sequence token.
    ///
    /// # Errors
    /// When the tokenizer fails on a single letter.
    pub fn lead(&self) -> Result<Vec<u32>, ChatError> {
        self.encoder.lead()
    }

    /// The text of one token as a whole prompt shows it, control tokens included.
    pub fn decode_all(&self, ids: &[u32]) -> String {
        let bytes = |id: &u32| self.control_texts.get(id).map_or_else(|| self.token_bytes(*id), |text| text.as_bytes());
        let bytes: Vec<u8> = ids.iter().flat_map(bytes).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of one token (empty for control tokens).
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The bytes of one token as an answer shows it: of control tokens, those of the dialect alone.
    pub fn shown_bytes(&self, id: u32) -> &[u8] {
        self.tags.get(&id).map_or_else(|| self.token_bytes(id), Vec::as_slice)
    }

    /// A control token of the dialect's.
    pub fn is_tag(&self, id: u32) -> bool {
        self.tags.contains_key(&id)
    }

    /// Bytes → text of many tokens, control tokens left out (but for the dialect's), invalid UTF-8 replaced.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.shown_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Texts of all control (special) tokens.
    pub fn control_tokens(&self) -> Vec<String> {
        self.control.keys().cloned().collect()
    }

    /// All control tokens by their text.
    pub fn control_ids(&self) -> &ControlTokens {
        &self.control
    }

    /// The id of a control token.
    pub fn control_token_id(&self, text: &str) -> Option<u32> {
        self.control.get(text).copied()
    }

    /// The model's own chat template, if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.special.chat_template.as_deref()
    }

    /// Whether `text` is its own chat template, which adapters are often saved with.
    pub fn has_template(&self, text: &str) -> bool {
        self.chat_template().is_some_and(|own| own.trim_end() == text.trim_end())
    }

    /// The text that a template writes at the start of a prompt.
    pub fn bos_token(&self) -> Option<String> {
        self.special.bos.clone()
    }

    /// The text that a template writes at the end of a turn.
    pub fn eos_token(&self) -> Option<String> {
        self.special.eos.clone()
    }

    /// Ids that end an assistant turn.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.special.eos_ids
    }

    /// What llguidance needs: a trie as wide as the logits, with this tokenizer's encoding.
    pub fn tok_env(&self) -> TokEnv {
        self.tok_env.clone()
    }
}

/// Builds the tokenizer; the crate panics on some malformed files.
fn build(json: &Value) -> Result<tokenizers::Tokenizer, ChatError> {
    let text = json.to_string();
    let built = catch_unwind(|| text.parse::<tokenizers::Tokenizer>());
    let built =
        built.map_err(|_| ChatError::Tokenizer("tokenizer.json: malformed (the tokenizer library gave up)".into()))?;
    built.map_err(|error| ChatError::Tokenizer(format!("tokenizer.json: {error}")))
}

/// The bytes of every id, control tokens marked as llguidance marks them.
fn token_words(json: &Value, logits_width: usize) -> Result<Vec<Vec<u8>>, ChatError> {
    let mut words = words(json)?;
    if words.len() > logits_width {
        let found = words.len();
        let message =
            format!("tokenizer.json has ids up to {}, but the model's logits are {logits_width} wide", found - 1);
        return Err(ChatError::Tokenizer(message));
    }
    words.resize(logits_width, Vec::new());
    Ok(words)
}

fn words(json: &Value) -> Result<Vec<Vec<u8>>, ChatError> {
    let words = catch_unwind(AssertUnwindSafe(|| llguidance::token_bytes_from_tokenizer_json(json)));
    let words = words.map_err(|_| ChatError::Tokenizer("tokenizer.json: malformed vocabulary".into()))?;
    words.map_err(|error| ChatError::Tokenizer(format!("tokenizer.json: {error}")))
}

fn trie(words: &[Vec<u8>], eos_ids: &[u32]) -> TokTrie {
    let info = TokRxInfo::new(words.len() as u32, eos_ids[0]);
    TokTrie::from(&info, words).with_eos_tokens(eos_ids)
}

fn readable(mut words: Vec<Vec<u8>>, control: &HashMap<String, u32>) -> Vec<Vec<u8>> {
    for &id in control.values() {
        words[id as usize].clear();
    }
    words
}

#[cfg(test)]
mod tests;
