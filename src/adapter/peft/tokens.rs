//! Rows that an adapter brings for some tokens, mostly new ones: PEFT's `trainable_token_indices`.
//!
//! They are read for merging alone. A server has one tokenizer, that of the base, which cannot write or read such tokens.

use super::config::{Fields, field};
use super::header::Declared;
use super::save::{Beside, named, write_with};
use super::{PeftConfig, invalid, save};
use crate::adapter::AdapterError;
use crate::model::{AdapterWeights, ModelConfig};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) const SETTING: &str = "trainable_token_indices";

/// A table with a row for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Embedding,
    /// Where it is not the embedding itself.
    Head,
}

impl Table {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Embedding, Self::Head];

    fn module(self) -> &'static str {
        match self {
            Self::Embedding => "embed_tokens",
            Self::Head => "lm_head",
        }
    }

    /// Its name in checkpoints.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Embedding => "model.embed_tokens.weight",
            Self::Head => "lm_head.weight",
        }
    }

    /// PEFT's name of the rows that an adapter has for it.
    pub fn rows_name(self) -> &'static str {
        match self {
            Self::Embedding => "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            Self::Head => "base_model.model.lm_head.token_adapter.trainable_tokens_delta",
        }
    }

    /// The table that PEFT's name of rows is for.
    pub fn of_rows(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.rows_name() == name)
    }

    /// The table that has this name in checkpoints.
    pub fn of_parameter(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.parameter() == name)
    }
}

/// Rows of the tables for some tokens, in place of the base's or behind them.
#[derive(Debug, Clone)]
pub struct TokenRows {
    pub ids: Vec<u32>,
    /// `[ids, hidden]`
    pub embedding: Tensor,
    /// `[ids, hidden]`, if the head is a table of its own and has rows too.
    pub head: Option<Tensor>,
}

/// The tokens whose rows the settings speak of.
pub(super) struct Wanted {
    ids: Vec<u32>,
    has_head: bool,
}

impl Wanted {
    /// Reads the settings of an adapter for this model; `None` without such tokens.
    pub(super) fn of(settings: &Value, model: &ModelConfig) -> Result<Option<Self>, AdapterError> {
        let fields = Fields::of(settings)?;
        let is_off = |value: &&Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(modules) => modules.is_empty(),
            value => **value == Value::Bool(false),
        };
        let Some(value) = fields.get(SETTING).filter(|value| !is_off(value)) else { return Ok(None) };
        let empty = Value::Null;
        let (embedding, head) = match value {
            Value::Object(modules) => {
                let known = |name: &String| Table::ALL.iter().any(|table| table.module() == name);
                if let Some(other) = modules.keys().find(|name| !known(name)) {
                    return Err(field(
                        SETTING,
                        format!("names `{}`; only embed_tokens and lm_head can be", super::shown(other)),
                    ));
                }
                let of = |table: Table| modules.get(table.module()).unwrap_or(&empty);
                (of(Table::Embedding), of(Table::Head))
            }
            list => (list, &empty),
        };
        let has_head = !head.is_null();
        if has_head && (head != embedding || model.tie_word_embeddings) {
            let message = "must list the same tokens for lm_head as for embed_tokens, and none where the two are one";
            return Err(field(SETTING, message));
        }
        let ids = ids(embedding, model.vocab_size).ok_or_else(|| {
            field(SETTING, "must list different tokens of embed_tokens that the base has or that come right behind")
        })?;
        Ok(Some(Self { ids, has_head }))
    }

    /// Takes their rows from the tensors of the file.
    pub(super) fn find(
        self,
        declared: &mut BTreeMap<String, Declared>,
        model: &ModelConfig,
    ) -> Result<Plan, AdapterError> {
        let shape = [self.ids.len(), model.hidden_size];
        let mut take = |table: Table| {
            let name = table.rows_name();
            let tensor = declared.remove(name).ok_or_else(|| invalid(format!("tensor `{name}` is missing")))?;
            match tensor.shape == shape {
                true => Ok(tensor),
                false => Err(invalid(format!("tensor `{name}` has shape {:?}, expected {shape:?}", tensor.shape))),
            }
        };
        let embedding = take(Table::Embedding)?;
        let head = self.has_head.then(|| take(Table::Head)).transpose()?;
        Ok(Plan { ids: self.ids, embedding, head })
    }
}

/// Where the rows lie in the file.
pub(super) struct Plan {
    pub(super) ids: Vec<u32>,
    pub(super) embedding: Declared,
    pub(super) head: Option<Declared>,
}

/// A list of different ids without a gap behind the vocabulary.
fn ids(value: &Value, vocab_size: usize) -> Option<Vec<u32>> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    let ids: Vec<u32> = list.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect::<Option<_>>()?;
    let sorted: BTreeSet<u32> = ids.iter().copied().collect();
    let new: Vec<usize> = sorted.iter().map(|&id| id as usize).filter(|&id| id >= vocab_size).collect();
    let dense = new.iter().copied().eq(vocab_size..vocab_size + new.len());
    (dense && sorted.len() == ids.len()).then_some(ids)
}

/// Why a server does not take such an adapter.
pub(super) fn refusal() -> AdapterError {
    let reason = "brings tokens of its own, which the base's tokenizer does not have; merge the adapter into its base \
                  (callsmith merge) and serve the result";
    field(SETTING, reason)
}

/// As [`save`], with rows for tokens and the files of a tokenizer that has them.
///
/// # Errors
/// As [`save`], and when a file of the tokenizer cannot be read.
pub fn save_with_tokens(
    dir: &Path,
    config: &PeftConfig,
    weights: &AdapterWeights,
    (rows, tokenizer): (&TokenRows, &Path),
) -> Result<(), AdapterError> {
    let mut settings = config.to_json(&save::check(config, weights)?);
    let mut tensors = named(weights);
    let mut modules = json!({});
    for (table, rows_of) in [(Table::Embedding, Some(&rows.embedding)), (Table::Head, rows.head.as_ref())] {
        let Some(tensor) = rows_of else { continue };
        modules[table.module()] = json!(rows.ids);
        tensors.push((table.rows_name().to_owned(), tensor));
    }
    settings[SETTING] = modules;
    write_with(dir, &settings, &tensors, Beside::Tokenizer(tokenizer))
}
