//! The tokens of a GGUF file and what kind each is.

use super::super::super::ChatError;
use super::refused;
use crate::gguf::{Header, Metadata};
use serde_json::{Map, Value, json};

/// What a token is, as files number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    /// Found in text before anything else is.
    UserDefined = 4,
    /// An id without a token.
    Unused = 5,
    /// One byte of a character that has no token.
    Byte = 6,
}

impl Kind {
    fn of(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// Whether the token is looked for in text before it is split.
    fn is_added(self) -> bool {
        matches!(self, Self::Unknown | Self::Control | Self::UserDefined)
    }
}

/// By id.
pub(super) struct Vocabulary<'a>(Vec<(&'a str, Kind)>);

impl<'a> Vocabulary<'a> {
    pub(super) fn read(header: &Header<'a>) -> Result<Self, ChatError> {
        let Some(tokens) = header.texts("tokenizer.ggml.tokens")? else {
            return Err(refused(&format!("metadata `tokenizer.ggml.tokens` is missing; {}", super::REMEDY)));
        };
        let kinds = header.integers("tokenizer.ggml.token_type")?;
        if kinds.as_ref().is_some_and(|kinds| kinds.len() != tokens.len()) {
            return Err(refused(
                "metadata `tokenizer.ggml.token_type` has another length than `tokenizer.ggml.tokens`",
            ));
        }
        let kind = |id: usize| kinds.as_ref().map_or(Kind::Normal, |kinds| Kind::of(kinds[id]));
        Ok(Self(tokens.into_iter().enumerate().map(|(id, text)| (text, kind(id))).collect()))
    }

    /// The token that metadata give a role, for example `eos`.
    pub(super) fn role(&self, header: &Header<'_>, role: &str) -> Result<Option<(u32, &'a str)>, ChatError> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = header.unsigned(&key)? else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| self.0.get(id)) {
            Some((text, _)) => Ok(Some((id as u32, text))),
            None => Err(refused(&format!("metadata `{key}` is {id}, but there are {} tokens", self.0.len()))),
        }
    }

    /// The control tokens among some texts.
    pub(super) fn control_ids(&self, texts: &[&str]) -> impl Iterator<Item = u32> {
        let found = |(_, (text, kind)): &(usize, &(&str, Kind))| *kind == Kind::Control && texts.contains(text);
        self.0.iter().enumerate().filter(found).map(|(id, _)| id as u32)
    }

    /// Ids and texts of the tokens of some kinds.
    pub(super) fn of_kinds(&self, kinds: &[Kind]) -> impl Iterator<Item = (usize, &'a str)> {
        let tokens = self.0.iter().enumerate().filter(|(_, (text, kind))| kinds.contains(kind) && !text.is_empty());
        tokens.map(|(id, (text, _))| (id, *text))
    }

    /// The tokens of some kinds as `tokenizer.json` lists them.
    pub(super) fn vocab(&self, kinds: &[Kind]) -> Map<String, Value> {
        self.of_kinds(kinds).map(|(id, text)| (text.to_owned(), id.into())).collect()
    }

    /// The tokens that are looked for in text, as `tokenizer.json` lists them.
    pub(super) fn added_tokens(&self) -> Value {
        let added = self.0.iter().enumerate().filter(|(_, (text, kind))| kind.is_added() && !text.is_empty());
        let entry = |(id, (text, kind)): (usize, &(&str, Kind))| {
            json!({"id": id, "content": text, "special": *kind != Kind::UserDefined,
                   "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        };
        added.map(entry).collect()
    }
}

/// The tokens that a file is to list.
pub(super) struct Listed(Vec<(String, Kind)>);

impl Listed {
    /// Of a `tokenizer.json` whose control tokens are marked, as many as the logits are wide.
    pub(super) fn of(json: &Value, width: usize) -> Result<Self, ChatError> {
        let mut listed: Vec<(String, Kind)> = (0..width).map(|id| (format!("[PAD{id}]"), Kind::Unused)).collect();
        let mut put = |id: &Value, token: (String, Kind)| {
            let slot = id.as_u64().and_then(|id| listed.get_mut(id as usize));
            slot.map(|slot| *slot = token).ok_or_else(|| refused(&format!("tokenizer.json: {id} is no id of a token")))
        };
        let bytes = json["model"]["byte_fallback"] == true;
        for (text, id) in json["model"]["vocab"].as_object().into_iter().flatten() {
            let kind = if bytes && is_byte(text) { Kind::Byte } else { Kind::Normal };
            put(id, (text.clone(), kind))?;
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let kind = match token["special"] == true {
                true if token["content"] == json["model"]["unk_token"] => Kind::Unknown,
                true => Kind::Control,
                false => Kind::UserDefined,
            };
            put(&token["id"], (token["content"].as_str().unwrap_or_default().to_owned(), kind))?;
        }
        Ok(Self(listed))
    }

    pub(super) fn write(&self, metadata: &mut Metadata) {
        metadata.texts("tokenizer.ggml.tokens", self.0.iter().map(|(text, _)| text.as_str()));
        let kinds: Vec<i32> = self.0.iter().map(|(_, kind)| *kind as i32).collect();
        metadata.integers("tokenizer.ggml.token_type", &kinds);
    }

    /// The texts by id.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str())
    }
}

/// `<0x0A>`
fn is_byte(text: &str) -> bool {
    text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).is_some_and(|hex| hex.len() == 2)
}
