//! What a model directory's files say about its tokens. Encodes nothing.

use super::super::ChatError;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Tags of calls and thoughts: ordinary text here, whatever the tokenizer's file says, because most files say so.
const TEXT_TAGS: [&str; 6] =
    ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"];

/// The contents of the files that describe a tokenizer; only `tokenizer` must be there.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer: Option<&'a [u8]>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`
    pub chat_template: Option<&'a [u8]>,
    /// `generation_config.json`
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`
    pub config: Option<&'a [u8]>,
}

impl TokenizerFiles<'_> {
    pub(super) fn tokenizer_json(&self) -> Result<Value, ChatError> {
        let bytes = self.tokenizer.ok_or_else(|| ChatError::Tokenizer("tokenizer.json is missing".into()))?;
        parse("tokenizer.json", Some(bytes))
    }
}

/// The files of one directory, read.
#[derive(Default)]
pub(super) struct OwnedFiles([Option<Vec<u8>>; 5]);

impl OwnedFiles {
    pub(super) fn as_ref(&self) -> TokenizerFiles<'_> {
        let [tokenizer, tokenizer_config, chat_template, generation_config, config] =
            self.0.each_ref().map(Option::as_deref);
        TokenizerFiles { tokenizer, tokenizer_config, chat_template, generation_config, config }
    }
}

pub(super) fn read_dir(dir: &Path) -> Result<OwnedFiles, ChatError> {
    let names =
        ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json"];
    let mut files = OwnedFiles::default();
    for (slot, name) in files.0.iter_mut().zip(names) {
        *slot = read_optional(&dir.join(name))?;
    }
    Ok(files)
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, ChatError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ChatError::Tokenizer(format!("{}: {error}", path.display()))),
    }
}

/// The message without the error's own heading, for wrapping.
pub(super) fn reason(error: &ChatError) -> String {
    match error {
        ChatError::Tokenizer(reason) | ChatError::Template(reason) => reason.clone(),
        other => other.to_string(),
    }
}

/// A missing file reads as `null`.
fn parse(name: &str, bytes: Option<&[u8]>) -> Result<Value, ChatError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    serde_json::from_slice(bytes).map_err(|error| ChatError::Tokenizer(format!("{name}: {error}")))
}

/// The tokens with a role of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Special {
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
    /// Ids that end a turn; the usual one first.
    pub(super) eos_ids: Vec<u32>,
    pub(super) chat_template: Option<String>,
}

impl Special {
    pub(super) fn read(files: &TokenizerFiles<'_>) -> Result<Self, ChatError> {
        let tokenizer_config = parse("tokenizer_config.json", files.tokenizer_config)?;
        let generation_config = parse("generation_config.json", files.generation_config)?;
        let config = parse("config.json", files.config)?;
        let own_file = files.chat_template.map(|bytes| String::from_utf8(bytes.to_vec())).transpose();
        let own_file = own_file.map_err(|_| ChatError::Template("chat_template.jinja is not UTF-8".into()))?;
        Ok(Self {
            bos: token_text(&tokenizer_config["bos_token"]),
            eos: token_text(&tokenizer_config["eos_token"]),
            eos_ids: [&generation_config, &config].into_iter().flat_map(|file| ids(&file["eos_token_id"])).collect(),
            chat_template: own_file.or_else(|| named_template(&tokenizer_config["chat_template"])),
        })
    }

    /// Puts the id of the eos text first and drops what the model cannot say.
    pub(super) fn resolve_eos(&mut self, control: &HashMap<String, u32>, logits_width: usize) -> Result<(), ChatError> {
        let named = self.eos.as_ref().and_then(|text| control.get(text)).copied();
        let mut ids: Vec<u32> = Vec::new();
        for id in named.into_iter().chain(self.eos_ids.drain(..)) {
            // An id beyond the logits can never be sampled.
            if (id as usize) < logits_width && !ids.contains(&id) {
                ids.push(id);
            }
        }
        if ids.is_empty() {
            let remedy = "set eos_token in tokenizer_config.json or eos_token_id in config.json (in GGUF: tokenizer.ggml.eos_token_id)";
            return Err(ChatError::Tokenizer(format!("no token ends a turn: {remedy}")));
        }
        let text_of = |id: u32| control.iter().find(|(_, known)| **known == id).map(|(text, _)| text.clone());
        self.eos = self.eos.take().or_else(|| text_of(ids[0]));
        self.eos_ids = ids;
        Ok(())
    }
}

/// A token is written as its text or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().map_or_else(|| id(value).into_iter().collect(), |list| list.iter().filter_map(id).collect())
}

/// One template, or a list of named ones: then `tool_use` serves the conversations with tools and `default` the others.
pub(super) fn named_template(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let list = value.as_array()?;
    let find =
        |name: &str| list.iter().find(|entry| entry["name"] == name).and_then(|entry| entry["template"].as_str());
    match (find("tool_use"), find("default")) {
        (Some(tools), Some(plain)) => Some(format!("{{% if tools %}}{tools}{{% else %}}{plain}{{% endif %}}")),
        (tools, plain) => tools.or(plain).or_else(|| list.first()?["template"].as_str()).map(str::to_owned),
    }
}

/// Sets `special` on the control tokens of a `tokenizer.json`, and on nothing else; returns their texts and ids.
///
/// Control tokens are those that the file calls special, those written `<|like this|>` (Qwen's file-separator and
/// fill-in-the-middle tokens are not marked), and the ones that begin a prompt or end a turn.
pub(super) fn mark_control_tokens(json: &mut Value, special: &Special) -> Result<HashMap<String, u32>, ChatError> {
    let edges: Vec<String> = edge_tokens(json, special);
    let mut control = HashMap::new();
    let Some(added) = json["added_tokens"].as_array_mut() else {
        return Err(ChatError::Tokenizer("tokenizer.json: `added_tokens` is missing or no list".into()));
    };
    for token in added {
        let (Some(text), Some(id)) = (token["content"].as_str().map(str::to_owned), token["id"].as_u64()) else {
            return Err(ChatError::Tokenizer(format!("tokenizer.json: added token without id or content: {token}")));
        };
        let id =
            u32::try_from(id).map_err(|_| ChatError::Tokenizer(format!("tokenizer.json: id {id} is too large")))?;
        let edge = edges.contains(&text) || special.eos_ids.contains(&id);
        let marked = token["special"] == true || (text.starts_with("<|") && text.ends_with("|>"));
        let is_control = edge || (marked && !TEXT_TAGS.contains(&text.as_str()));
        token["special"] = is_control.into();
        if is_control {
            control.insert(text, id);
        }
    }
    Ok(control)
}

/// The texts of bos and eos; those that are plain vocabulary entries become added tokens, so that all control tokens are.
fn edge_tokens(json: &mut Value, special: &Special) -> Vec<String> {
    let vocabulary = &json["model"]["vocab"];
    let by_id = |id: &u32| {
        vocabulary
            .as_object()?
            .iter()
            .find(|(_, value)| value.as_u64() == Some(u64::from(*id)))
            .map(|(text, _)| text.clone())
    };
    let mut texts: Vec<String> = special.eos_ids.iter().filter_map(by_id).collect();
    texts.extend([&special.bos, &special.eos].into_iter().flatten().cloned());
    let missing = |text: &&String| {
        json["added_tokens"].as_array().is_some_and(|added| added.iter().all(|token| token["content"] != text.as_str()))
    };
    let entry = |text: &String| {
        let id = vocabulary[text].as_u64()?;
        Some(
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}),
        )
    };
    let new: Vec<Value> = texts.iter().filter(missing).filter_map(entry).collect();
    if let Some(added) = json["added_tokens"].as_array_mut() {
        added.extend(new);
    }
    texts
}

/// The tokenizer for text that continues other text: no blank is put before it. `None` when it is the same one.
pub(super) fn without_dummy_prefix(json: &Value) -> Option<Value> {
    let mut changed = json.clone();
    strip_prefix_rules(&mut changed["normalizer"], "normalizers");
    strip_prefix_rules(&mut changed["pre_tokenizer"], "pretokenizers");
    (changed != *json).then_some(changed)
}

fn strip_prefix_rules(rule: &mut Value, children: &str) {
    match rule["type"].as_str() {
        Some("Sequence") => {
            if let Some(rules) = rule[children].as_array_mut() {
                rules.retain(|rule| rule["type"] != "Prepend");
                rules.iter_mut().for_each(|rule| strip_prefix_rules(rule, children));
            }
        }
        Some("Prepend") => *rule = Value::Null,
        Some("Metaspace") => {
            rule["prepend_scheme"] = "never".into();
            if rule.get("add_prefix_space").is_some() {
                rule["add_prefix_space"] = false.into();
            }
        }
        Some("ByteLevel") => rule["add_prefix_space"] = false.into(),
        _ => {}
    }
}
