//! Tokenizers in the metadata of GGUF files ↔ the files of a model directory. Encodes nothing.
//!
//! What such metadata cannot say exactly is refused when it is read, and written with the whole `tokenizer.json` beside it.

mod byte_level;
mod sentencepiece;
mod vocabulary;
mod write;

pub use write::{metadata, metadata_of};

use super::super::ChatError;
use super::files::{OwnedFiles, Special, named_template, read_dir};
use crate::gguf::{GgufError, Header, map};
use memmap2::Mmap;
use serde_json::{Value, json};
use std::path::Path;
use vocabulary::Vocabulary;

/// The whole `tokenizer.json`; goes before everything else.
const TOKENIZER_JSON: &str = "tokenizer.huggingface.json";
/// What to do when the metadata do not suffice.
const REMEDY: &str = "put the model's own tokenizer.json (and tokenizer_config.json) beside the file";
/// Control tokens that end a turn in every model that has them; most files name only one of a model's.
const ENDS: [&str; 6] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"];

/// A file, and the files of a model directory beside it; those count if a `tokenizer.json` is among them.
pub(super) struct GgufTokenizer {
    file: Mmap,
    beside: Option<OwnedFiles>,
}

impl GgufTokenizer {
    pub(super) fn open(path: &Path) -> Result<Self, ChatError> {
        let beside = read_dir(path.parent().unwrap_or(Path::new("")))?;
        let counts = beside.as_ref().tokenizer.is_some();
        Ok(Self { file: map(path)?, beside: counts.then_some(beside) })
    }

    pub(super) fn tokenizer_json(&self) -> Result<Value, ChatError> {
        match &self.beside {
            Some(files) => files.as_ref().tokenizer_json(),
            None => tokenizer_json(&Header::parse(&self.file)?),
        }
    }

    /// What the files beside leave open, the metadata say.
    pub(super) fn special(&self) -> Result<Special, ChatError> {
        let own = special(&Header::parse(&self.file)?);
        let Some(files) = &self.beside else { return own };
        let Special { bos, eos, eos_ids, chat_template } = Special::read(&files.as_ref())?;
        // Files that say all there is to say mend metadata that cannot be read.
        let complete = bos.is_some() && (eos.is_some() || !eos_ids.is_empty()) && chat_template.is_some();
        let own = if complete { own.unwrap_or_default() } else { own? };
        let (eos, eos_ids) = if eos.is_none() && eos_ids.is_empty() { (own.eos, own.eos_ids) } else { (eos, eos_ids) };
        Ok(Special { bos: bos.or(own.bos), eos, eos_ids, chat_template: chat_template.or(own.chat_template) })
    }
}

/// The `tokenizer.json` that the metadata describe.
fn tokenizer_json(header: &Header<'_>) -> Result<Value, ChatError> {
    if let Some(text) = header.text(TOKENIZER_JSON)? {
        return serde_json::from_str(text).map_err(|error| refused(&format!("{TOKENIZER_JSON}: {error}")));
    }
    let vocabulary = Vocabulary::read(header)?;
    let lead = |by_default: bool| lead(header, &vocabulary, by_default);
    match header.text("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level::tokenizer_json(header, &vocabulary, lead),
        Some("llama") => sentencepiece::tokenizer_json(header, &vocabulary, &lead(true)?),
        other => {
            let found = other.unwrap_or("(none)");
            Err(refused(&format!("tokenizer.ggml.model `{found}` is not supported (gpt2, llama); {REMEDY}")))
        }
    }
}

/// The post-processor that puts the beginning-of-sequence token before a text, if there is to be one.
fn lead(header: &Header<'_>, vocabulary: &Vocabulary<'_>, by_default: bool) -> Result<Value, ChatError> {
    let bos = vocabulary.role(header, "bos")?;
    Ok(match (header.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(by_default), bos) {
        (true, Some((id, bos))) => {
            let token = json!({"SpecialToken": {"id": bos, "type_id": 0}});
            let text = |id: &str, kind: usize| json!({"Sequence": {"id": id, "type_id": kind}});
            json!({
                "type": "TemplateProcessing", "single": [token, text("A", 0)], "pair": [token, text("A", 0), text("B", 1)],
                "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
            })
        }
        _ => Value::Null,
    })
}

/// The tokens with a role of their own, and the chat template.
fn special(header: &Header<'_>) -> Result<Special, ChatError> {
    let vocabulary = Vocabulary::read(header)?;
    let roles = ["eos", "eot", "eom"].map(|role| vocabulary.role(header, role));
    let roles: Vec<_> = roles.into_iter().collect::<Result<_, _>>()?;
    let text = |role: Option<(u32, &str)>| role.map(|(_, text)| text.to_owned());
    let named = roles.iter().flatten().map(|(id, _)| *id);
    Ok(Special {
        bos: text(vocabulary.role(header, "bos")?),
        eos: text(roles[0]),
        eos_ids: named.chain(vocabulary.control_ids(&ENDS)).collect(),
        chat_template: chat_template(header)?,
    })
}

fn chat_template(header: &Header<'_>) -> Result<Option<String>, ChatError> {
    let named = [("default", "tokenizer.chat_template"), ("tool_use", "tokenizer.chat_template.tool_use")];
    let mut list = Vec::new();
    for (name, key) in named {
        list.extend(header.text(key)?.map(|template| json!({"name": name, "template": template})));
    }
    Ok(named_template(&list.into()))
}

fn refused(reason: &str) -> ChatError {
    ChatError::Tokenizer(reason.to_owned())
}

impl From<GgufError> for ChatError {
    fn from(error: GgufError) -> Self {
        Self::Tokenizer(error.to_string())
    }
}

#[cfg(test)]
mod tests;
