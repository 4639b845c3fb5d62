//! The files of a model directory → the metadata about the tokenizer in a GGUF file.

use super::super::super::ChatError;
use super::super::files::{Special, mark_control_tokens, read_dir, reason};
use super::super::{ChatTokenizer, TokenizerFiles};
use super::vocabulary::Listed;
use super::{ENDS, TOKENIZER_JSON, byte_level, refused, sentencepiece};
use crate::gguf::{Header, Metadata};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The name of a way of splitting that has none: no other program takes it for one that it knows.
const UNNAMED: &str = "huggingface";

/// The entries of a GGUF file about the tokenizer of a model directory, from [`metadata`].
///
/// # Errors
/// As [`metadata`]; the error says the directory.
pub fn metadata_of(dir: &Path, logits_width: usize) -> Result<Metadata, ChatError> {
    metadata(&read_dir(dir)?.as_ref(), logits_width)
        .map_err(|error| refused(&format!("{}: {}", dir.display(), reason(&error))))
}

/// The entries of a GGUF file about a tokenizer. `logits_width` is the model's vocabulary size.
///
/// A tokenizer that these entries cannot say exactly is added as a whole (`tokenizer.huggingface.json`), which callsmith
/// reads first.
///
/// # Errors
/// When the files are malformed, or the tokenizer is neither byte-level nor SentencePiece BPE.
pub fn metadata(files: &TokenizerFiles<'_>, logits_width: usize) -> Result<Metadata, ChatError> {
    let tokenizer = ChatTokenizer::from_files(files, logits_width)?;
    let mut json = files.tokenizer_json()?;
    mark_control_tokens(&mut json, &Special::read(files)?)?;
    let mut metadata = vocabulary(&json, logits_width)?;
    roles(&mut metadata, &tokenizer)?;
    metadata.flag("tokenizer.ggml.add_bos_token", !lead(&json).is_empty());
    if let Some(template) = tokenizer.chat_template() {
        metadata.text("tokenizer.chat_template", template);
    }
    if !says(&metadata, &json)? {
        metadata.text(TOKENIZER_JSON, &json.to_string());
    }
    Ok(metadata)
}

fn vocabulary(json: &Value, width: usize) -> Result<Metadata, ChatError> {
    let listed = Listed::of(json, width)?;
    let mut metadata = Metadata::default();
    match kind(json)? {
        TokenizerKind::ByteLevel => {
            metadata.text("tokenizer.ggml.model", "gpt2");
            metadata.text("tokenizer.ggml.pre", splitting(json));
            listed.write(&mut metadata);
            let merges: Vec<String> = merges(json)?.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
            metadata.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
        }
        TokenizerKind::SentencePiece => {
            metadata.text("tokenizer.ggml.model", "llama");
            metadata.text("tokenizer.ggml.pre", "default");
            listed.write(&mut metadata);
            metadata.floats("tokenizer.ggml.scores", &sentencepiece::scores(&listed, &merges(json)?));
            let bare = json["normalizer"] == sentencepiece::normalizer(false);
            metadata.flag("tokenizer.ggml.add_space_prefix", !bare);
        }
    }
    Ok(metadata)
}

enum TokenizerKind {
    ByteLevel,
    SentencePiece,
}

fn kind(json: &Value) -> Result<TokenizerKind, ChatError> {
    let byte_level = json["decoder"]["type"] == "ByteLevel";
    match json["model"]["type"].as_str() {
        Some("BPE") if byte_level => Ok(TokenizerKind::ByteLevel),
        Some("BPE") if json["model"]["byte_fallback"] == true => Ok(TokenizerKind::SentencePiece),
        _ => Err(refused("tokenizer.json: GGUF holds byte-level BPE and SentencePiece BPE with byte fallback only")),
    }
}

/// What files call the way in which this tokenizer splits text.
fn splitting(json: &Value) -> &'static str {
    let same = |splitting: &byte_level::Splitting| {
        plain(&json["pre_tokenizer"]) == plain(&splitting.pre_tokenizer)
            && plain(&json["normalizer"]) == plain(&splitting.normalizer)
    };
    byte_level::known().iter().find(|splitting| same(splitting)).map_or(UNNAMED, |splitting| splitting.names[0])
}

/// A rule without what says nothing about ids.
fn plain(rule: &Value) -> Value {
    match rule {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| *key != "trim_offsets");
            Value::Object(kept.map(|(key, value)| (key.clone(), plain(value))).collect())
        }
        Value::Array(rules) => rules.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// Merges are written as `"a b"` or as `["a", "b"]`.
fn merges(json: &Value) -> Result<Vec<(String, String)>, ChatError> {
    let pair = |merge: &Value| match merge.as_str() {
        Some(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        None => Some((merge[0].as_str()?.to_owned(), merge[1].as_str()?.to_owned())),
    };
    let all = json["model"]["merges"].as_array().map(|merges| merges.iter().map(pair).collect::<Option<Vec<_>>>());
    all.flatten().ok_or_else(|| refused("tokenizer.json: `model.merges` is not a list of pairs"))
}

/// The texts of the tokens that the tokenizer puts before every text.
fn lead(json: &Value) -> Vec<&str> {
    let post = &json["post_processor"];
    let rules = post["processors"].as_array().map_or(std::slice::from_ref(post), Vec::as_slice);
    let template = rules.iter().find(|rule| rule["type"] == "TemplateProcessing");
    let pieces = template.and_then(|rule| rule["single"].as_array()).into_iter().flatten();
    pieces.map_while(|piece| piece["SpecialToken"]["id"].as_str()).collect()
}

fn roles(metadata: &mut Metadata, tokenizer: &ChatTokenizer) -> Result<(), ChatError> {
    let bos = tokenizer.bos_token().and_then(|text| tokenizer.control_token_id(&text));
    if let Some(id) = bos {
        metadata.u32("tokenizer.ggml.bos_token_id", id);
    }
    // The usual one must be named; of the others, those that every reader knows by their text need not be.
    let known = |id: &u32| ENDS.iter().any(|text| tokenizer.control_token_id(text) == Some(*id));
    let Some((eos, others)) = tokenizer.eos_token_ids().split_first() else { return Ok(()) };
    let others: Vec<u32> = others.iter().copied().filter(|id| !known(id)).collect();
    if others.len() > 2 {
        return Err(refused(&format!("GGUF can name three tokens that end a turn, not {}", others.len() + 1)));
    }
    for (role, id) in ["eos", "eot", "eom"].into_iter().zip(std::iter::once(*eos).chain(others)) {
        metadata.u32(&format!("tokenizer.ggml.{role}_token_id"), id);
    }
    Ok(())
}

/// Whether the metadata alone give this tokenizer back.
fn says(metadata: &Metadata, json: &Value) -> Result<bool, ChatError> {
    let file = metadata.to_file();
    match super::tokenizer_json(&Header::parse(&file)?) {
        Ok(rebuilt) => Ok(essence(&rebuilt)? == essence(json)?),
        Err(_) => Ok(false),
    }
}

/// What decides about ids, in one form.
fn essence(json: &Value) -> Result<Value, ChatError> {
    let model = &json["model"];
    let flag = |key: &str| model[key] == true;
    let text = |key: &str| model[key].as_str().unwrap_or_default();
    Ok(json!({
        "normalizer": plain(&json["normalizer"]),
        "pre_tokenizer": plain(&json["pre_tokenizer"]),
        "lead": lead(json),
        "added": added(json),
        "vocab": ordinary_tokens(json),
        "merges": merges(json)?,
        "flags": [flag("ignore_merges"), flag("byte_fallback"), flag("fuse_unk")],
        "texts": [text("unk_token"), text("continuing_subword_prefix"), text("end_of_word_suffix")],
        "dropout": model["dropout"],
    }))
}

/// By id, so that their order says nothing.
fn added(json: &Value) -> Map<String, Value> {
    let flags = ["content", "special", "single_word", "lstrip", "rstrip", "normalized"];
    let tokens = json["added_tokens"].as_array().into_iter().flatten();
    tokens.map(|token| (token["id"].to_string(), flags.map(|flag| token[flag].clone()).to_vec().into())).collect()
}

fn ordinary_tokens(json: &Value) -> Map<String, Value> {
    let added = added(json);
    let vocab = json["model"]["vocab"].as_object().into_iter().flatten();
    let ordinary = vocab.filter(|(_, id)| !added.contains_key(&id.to_string()));
    ordinary.map(|(text, id)| (text.clone(), id.clone())).collect()
}
