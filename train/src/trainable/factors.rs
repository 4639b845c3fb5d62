//! The tensors of a LoRA adapter: which sites have factors, of what rank, under which names; and the rows of new tokens.
//!
//! The recipe speaks PEFT's words, and the server's own reader decides what they mean. Knows no values.

use crate::error::{Result, TrainError};
use crate::new_tokens::NewTokens;
use crate::optim::Slot;
use crate::recipe::Recipe;
use callsmith::adapter::peft::{self, Factor, PeftConfig, SiteSpec, Table, TokenRows, tensor_name};
use callsmith::model::{AdapterWeights, LoraPair, Magnitude, ModelConfig, ModelError, Site, decoder};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The adapter that a recipe describes, for one model.
pub struct Factors {
    pub settings: PeftConfig,
    pub new_tokens: Option<NewTokens>,
    sites: BTreeMap<Site, SiteSpec>,
}

impl Factors {
    /// Resolves the recipe's targets and patterns.
    pub fn of(recipe: &Recipe, config: &ModelConfig) -> Result<Self> {
        let lora = recipe.lora.as_ref().ok_or_else(|| TrainError::field("lora", "is missing"))?;
        let base_model = recipe.base_name();
        let (settings, sites) =
            peft::resolve(&lora.settings(), config.num_layers).map_err(|e| TrainError::field("lora", e.to_string()))?;
        Ok(Self { settings: PeftConfig { base_model, ..settings }, new_tokens: NewTokens::of(recipe)?, sites })
    }

    /// Names, shapes and places of all tensors.
    pub fn slots(&self, config: &ModelConfig) -> Vec<Slot> {
        let tensors = self.sites.iter().flat_map(|(&site, spec)| {
            let (out, input) = decoder::module_shape(config, site.module);
            let magnitude = self.settings.use_dora.then(|| (tensor_name(site, Factor::Magnitude), vec![out]));
            let factors = [
                (tensor_name(site, Factor::A), vec![spec.rank, input]),
                (tensor_name(site, Factor::B), vec![out, spec.rank]),
            ];
            factors.into_iter().chain(magnitude)
        });
        let rows = self.new_tokens.iter().flat_map(|new| {
            let tables =
                Table::ALL.into_iter().filter(|table| *table == Table::Embedding || !config.tie_word_embeddings);
            tables.map(|table| (table.rows_name().to_owned(), vec![new.ids().len(), config.hidden_size]))
        });
        Slot::layout(tensors.chain(rows))
    }

    /// The rows of new tokens among tensors by their PEFT names.
    pub fn token_rows(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Option<TokenRows>> {
        let Some(new) = &self.new_tokens else { return Ok(None) };
        let find = |table: Table| tensors.get(table.rows_name()).cloned();
        let missing = || ModelError::MissingTensor(Table::Embedding.rows_name().to_owned());
        let (ids, embedding) = (new.ids().collect(), find(Table::Embedding).ok_or_else(missing)?);
        Ok(Some(TokenRows { ids, embedding, head: find(Table::Head) }))
    }

    /// The adapter over tensors by their PEFT names.
    pub fn weights(&self, config: &ModelConfig, tensors: &BTreeMap<String, Tensor>) -> Result<AdapterWeights> {
        let find = |name: String| tensors.get(&name).cloned().ok_or(ModelError::MissingTensor(name));
        let mut weights = AdapterWeights::empty(config.num_layers);
        for (&site, spec) in &self.sites {
            let magnitude = self.settings.use_dora.then(|| find(tensor_name(site, Factor::Magnitude))).transpose()?;
            let (a, b) = (find(tensor_name(site, Factor::A))?, find(tensor_name(site, Factor::B))?);
            weights.insert(site, LoraPair { a, b, scale: spec.scale, magnitude: magnitude.map(Magnitude::Wanted) });
        }
        Ok(weights)
    }
}
