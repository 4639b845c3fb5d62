//! New tokens: the tokenizer with them, the rows that the tables get for them, and where these start from.
//!
//! They stand behind all tokens that the tokenizer has, which may be inside of tables that were made longer than that. Chat
//! templates and dialects decide where they occur. Knows no training.

use crate::error::{Result, TrainError};
use crate::recipe::{NewToken, Recipe};
use callsmith::model::ModelConfig;
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

/// The tokens that a recipe adds.
pub struct NewTokens {
    tokenizer: Tokenizer,
    first: u32,
    /// Tokens whose mean each starts from; none = all.
    sources: Vec<Vec<u32>>,
}

impl NewTokens {
    /// `None` when the recipe adds none.
    ///
    /// # Errors
    /// When the tokenizer cannot be read or has one of them already.
    pub fn of(recipe: &Recipe) -> Result<Option<Self>> {
        if recipe.new_tokens.is_empty() {
            return Ok(None);
        }
        let mut tokenizer = tokenizer(recipe.tokenizer_dir()?)?;
        let sources = recipe.new_tokens.iter().map(|token| source(&tokenizer, token)).collect::<Result<_>>()?;
        let mut first = None;
        for token in &recipe.new_tokens {
            first.get_or_insert(add(&mut tokenizer, token)?);
        }
        Ok(Some(Self { tokenizer, first: first.unwrap_or_default(), sources }))
    }

    /// Their ids.
    pub fn ids(&self) -> Range<u32> {
        self.first..self.first + self.sources.len() as u32
    }

    /// The shape of a model with them.
    ///
    /// # Errors
    /// When the model has no rows for tokens that the tokenizer has.
    pub fn resize(&self, config: ModelConfig) -> Result<ModelConfig> {
        if config.vocab_size < self.first as usize {
            let message = format!(
                "the tokenizer has {} tokens, but the model {}, and new ones stand behind both; name the directory of the \
                 model's own tokenizer",
                self.first, config.vocab_size
            );
            return Err(TrainError::field("model.tokenizer", message));
        }
        Ok(ModelConfig { vocab_size: config.vocab_size.max(self.ids().end as usize), ..config })
    }

    /// The rows that they start with, `[n, hidden]` in f32, from those of other tokens: means (Hewitt 2021), which leave what the
    /// model says of all other tokens nearly as it was.
    pub fn rows(&self, select: impl Fn(&[u32]) -> Result<Tensor>) -> Result<Tensor> {
        let mean = |ids: &[u32]| -> Result<Tensor> { Ok(select(ids)?.to_dtype(DType::F32)?.mean_keepdim(0)?) };
        let all = match self.sources.iter().any(Vec::is_empty) {
            true => Some(mean(&(0..self.first).collect::<Vec<_>>())?),
            false => None,
        };
        let row = |source: &Vec<u32>| all.clone().filter(|_| source.is_empty()).map_or_else(|| mean(source), Ok);
        Ok(Tensor::cat(&self.sources.iter().map(row).collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// A table `[vocab, hidden]` with these rows.
    pub fn extend(&self, table: &Tensor) -> Result<Tensor> {
        let rows = self.rows(|ids| Ok(table.index_select(&Tensor::new(ids, table.device())?, 0)?))?;
        replace_rows(table, &self.ids().collect::<Vec<_>>(), &rows)
    }

    /// The contents of `tokenizer.json` with them.
    ///
    /// # Errors
    /// When the tokenizer cannot be written as JSON.
    pub fn tokenizer_json(&self) -> Result<String> {
        self.tokenizer.to_string(true).map_err(|e| wrong(e.to_string()))
    }
}

/// A table with other rows for some ids, which may lie behind its end.
///
/// # Errors
/// When there would be a gap.
pub fn replace_rows(table: &Tensor, ids: &[u32], rows: &Tensor) -> Result<Tensor> {
    let (count, rows) = (table.dims()[0], rows.to_dtype(table.dtype())?.to_device(table.device())?);
    let size = ids.iter().map(|&id| id as usize + 1).max().unwrap_or(0).max(count);
    let mut places: Vec<u32> = (0..size as u32).collect();
    let mut known = vec![false; size];
    known[..count].fill(true);
    for (index, &id) in ids.iter().enumerate() {
        (places[id as usize], known[id as usize]) = ((count + index) as u32, true);
    }
    if let Some(gap) = known.iter().position(|known| !known) {
        let message = format!("the tables have {count} rows and the new ones would begin behind row {gap}");
        return Err(TrainError::Data(format!("{message}; use the base that the new tokens were added to")));
    }
    Ok(Tensor::cat(&[table, &rows], 0)?.index_select(&Tensor::new(places, table.device())?, 0)?)
}

/// The tokenizer of a directory.
///
/// # Errors
/// When its file is missing or malformed.
pub fn tokenizer(dir: &Path) -> Result<Tokenizer> {
    let path = dir.join("tokenizer.json");
    Tokenizer::from_file(&path).map_err(|e| TrainError::field("model.tokenizer", format!("{}: {e}", path.display())))
}

/// Adds a token and says its id.
fn add(tokenizer: &mut Tokenizer, NewToken { text, special, .. }: &NewToken) -> Result<u32> {
    if tokenizer.token_to_id(text).is_some() {
        return Err(wrong(format!("`{text}` is a token of the base already; remove it")));
    }
    let refused = |reason: String| wrong(format!("`{text}` cannot be added{reason}; write it otherwise or remove it"));
    let token = AddedToken::from(text.as_str(), *special).normalized(false);
    tokenizer.add_tokens([token]).map_err(|error| refused(format!(" ({error})")))?;
    tokenizer.token_to_id(text).ok_or_else(|| refused(String::new()))
}

fn source(tokenizer: &Tokenizer, token: &NewToken) -> Result<Vec<u32>> {
    let Some(description) = &token.description else { return Ok(Vec::new()) };
    let encoding = tokenizer.encode(description.as_str(), false).map_err(|e| wrong(e.to_string()))?;
    match encoding.get_ids() {
        [] => Err(wrong(format!("the description of `{}` has no token; write some words", token.text))),
        ids => Ok(ids.to_vec()),
    }
}

fn wrong(message: String) -> TrainError {
    TrainError::field("new_tokens", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rows_that_would_leave_a_gap_are_refused_with_a_remedy() {
        let rows = |count| Tensor::zeros((count, 2), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(replace_rows(&rows(3), &[2, 3], &rows(2)).unwrap().dims(), [4, 2]);
        let refused = replace_rows(&rows(3), &[4, 5], &rows(2)).unwrap_err().to_string();
        assert!(refused.contains("3 rows") && refused.contains("use the base"), "{refused}");
    }
}
