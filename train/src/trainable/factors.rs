//! The tensors of an adapter: which sites have factors, of what rank, under which names.
//!
//! The recipe speaks PEFT's words, and the server's own reader decides what they mean. Knows no values.

use crate::error::{Result, TrainError};
use crate::optim::Slot;
use crate::recipe::Recipe;
use callsmith::adapter::peft::{self, PeftConfig, SiteSpec};
use callsmith::model::{AdapterWeights, LoraPair, Magnitude, ModelConfig, ModelError, Site, TargetModule, decoder};
use candle_core::Tensor;
use std::collections::BTreeMap;

const PREFIX: &str = "base_model.model.model.layers.";

/// What a tensor is to its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    B,
    /// DoRA's lengths of rows.
    Magnitude,
}

impl Kind {
    const ALL: [Self; 3] = [Self::A, Self::B, Self::Magnitude];

    fn suffix(self) -> &'static str {
        match self {
            Self::A => "lora_A.weight",
            Self::B => "lora_B.weight",
            Self::Magnitude => "lora_magnitude_vector",
        }
    }

    /// PEFT's name of the tensor.
    fn name(self, site: Site) -> String {
        format!("{PREFIX}{}.{}.{}", site.layer, site.module.path(), self.suffix())
    }

    /// The site and kind of a tensor, by its name.
    pub fn of(name: &str) -> Option<(Site, Self)> {
        let (layer, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let kind = Self::ALL.into_iter().find(|kind| rest.ends_with(kind.suffix()))?;
        let module = TargetModule::ALL.into_iter().find(|module| rest.starts_with(&module.path()))?;
        Some((Site { layer: layer.parse().ok()?, module }, kind))
    }
}

/// The adapter that a recipe describes, for one model.
pub struct Factors {
    pub settings: PeftConfig,
    sites: BTreeMap<Site, SiteSpec>,
}

impl Factors {
    /// Resolves the recipe's targets and patterns.
    pub fn of(recipe: &Recipe, config: &ModelConfig) -> Result<Self> {
        let lora = recipe.lora.as_ref().ok_or_else(|| TrainError::field("lora", "is missing"))?;
        let base_model = recipe.model.path.as_ref().map(|path| path.display().to_string());
        let (settings, sites) =
            peft::resolve(&lora.settings(), config.num_layers).map_err(|e| TrainError::field("lora", e.to_string()))?;
        Ok(Self { settings: PeftConfig { base_model, ..settings }, sites })
    }

    /// Names, shapes and places of all tensors.
    pub fn slots(&self, config: &ModelConfig) -> Vec<Slot> {
        let tensors = self.sites.iter().flat_map(|(&site, spec)| {
            let (out, input) = decoder::module_shape(config, site.module);
            let magnitude = self.settings.use_dora.then(|| (Kind::Magnitude.name(site), vec![out]));
            let factors = [(Kind::A.name(site), vec![spec.rank, input]), (Kind::B.name(site), vec![out, spec.rank])];
            factors.into_iter().chain(magnitude)
        });
        Slot::layout(tensors)
    }

    /// The adapter over tensors by their PEFT names.
    pub fn weights(&self, config: &ModelConfig, tensors: &BTreeMap<String, Tensor>) -> Result<AdapterWeights> {
        let find = |name: String| tensors.get(&name).cloned().ok_or(ModelError::MissingTensor(name));
        let mut weights = AdapterWeights::empty(config.num_layers);
        for (&site, spec) in &self.sites {
            let magnitude = self.settings.use_dora.then(|| find(Kind::Magnitude.name(site))).transpose()?;
            let (a, b) = (find(Kind::A.name(site))?, find(Kind::B.name(site))?);
            weights.insert(site, LoraPair { a, b, scale: spec.scale, magnitude: magnitude.map(Magnitude::Wanted) });
        }
        Ok(weights)
    }
}
