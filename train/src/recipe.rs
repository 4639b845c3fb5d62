//! The training recipe: one TOML file says everything that a run does. An unknown key is an error.
//!
//! Knows no tensors and no data; paths are relative to the working directory. What the values must satisfy is in
//! `recipe/validate.rs`.

mod data;
mod default;
mod model;
mod overrides;
mod validate;

pub use data::{BatchSection, BestBy, CopySection, EvalSection, Paths, Phase, RecallSection, SourceSection};
pub use model::{
    Compute, FullSection, Held, InitSection, LoraSection, ModelSection, NewToken, PromptSection, ShapeSection,
    TargetModules,
};

use crate::error::{Result, TrainError};
use callsmith::model::Recompute;
use candle_core::DType;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which weights are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// All weights.
    Full,
    /// Low-rank factors beside a frozen base.
    Lora,
    /// Embeddings of virtual tokens before every sequence; the base is frozen (Lester et al. 2021).
    Prompt,
}

/// Where the tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    #[default]
    Cpu,
    Cuda,
}

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub method: Method,
    /// Directory of the run: checkpoints, log, resolved recipe, final model.
    pub output: PathBuf,
    #[serde(default)]
    pub seed: u64,
    /// Compute threads; all cores when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    #[serde(default)]
    pub device: DeviceKind,
    /// Directory in which encoded conversations are kept for later runs with the same tokenizer; without it they are encoded
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    pub model: ModelSection,
    /// Tokens that the base does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_tokens: Vec<NewToken>,
    #[serde(default)]
    pub init: InitSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<FullSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptSection>,
    pub optim: OptimSection,
    pub batch: BatchSection,
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalSection>,
    #[serde(default)]
    pub log: LogSection,
    #[serde(default)]
    pub checkpoint: CheckpointSection,
}

/// How the learning rate goes from its peak to its minimum after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    #[default]
    Cosine,
    Linear,
    Constant,
}

/// How gradients become updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    #[default]
    AdamW,
    /// Muon for the matrices of the layers, AdamW for embeddings, head, norms and biases.
    Muon,
}

/// The optimizer and its learning rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimSection {
    #[serde(default)]
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    #[serde(default = "default::min_lr_ratio")]
    pub min_lr_ratio: f64,
    #[serde(default)]
    pub warmup_steps: u64,
    #[serde(default)]
    pub schedule: Decay,
    /// Decoupled, on matrices only.
    #[serde(default)]
    pub weight_decay: f64,
    #[serde(default = "default::betas")]
    pub betas: [f64; 2],
    #[serde(default = "default::eps")]
    pub eps: f64,
    /// Of Muon.
    #[serde(default = "default::momentum")]
    pub momentum: f64,
    /// Largest global gradient norm.
    #[serde(default = "default::clip")]
    pub clip: f64,
    /// Non-finite steps in a row after which the run stops.
    #[serde(default = "default::max_skipped")]
    pub max_skipped: usize,
}

/// How often a line is logged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    pub every: u64,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { every: 20 }
    }
}

/// How often the run is saved, and how many saves are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    pub every: u64,
    pub keep: usize,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self { every: 500, keep: 2 }
    }
}

impl Recipe {
    /// Reads and checks a recipe; `sets` are `key=value` overrides with dotted keys.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        Self::parse(&text, &path.display().to_string(), sets)
    }

    /// Parses and checks a recipe's text; `name` is for messages.
    pub fn parse(text: &str, name: &str, sets: &[String]) -> Result<Self> {
        let wrong = |message: String| TrainError::Recipe { path: name.to_owned(), message };
        // Without overrides the text itself is read, because its errors then show line and column.
        let recipe: Self = if sets.is_empty() {
            toml::from_str(text).map_err(|e| wrong(e.to_string()))?
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
            sets.iter().try_for_each(|set| overrides::apply(&mut table, set))?;
            table.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?
        };
        validate::recipe(&recipe)?;
        Ok(recipe.with_defaults())
    }

    /// The recipe with all defaults filled in, as TOML.
    pub fn resolved(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| TrainError::field("(whole recipe)", e.to_string()))
    }

    /// SHA-256 of everything that decides the weights after each step: not of logging, saving, threads and evaluation, but of
    /// what evaluation keeps from training.
    pub fn digest(&self) -> Result<String> {
        let mut relevant = self.clone();
        relevant.output = PathBuf::new();
        relevant.threads = None;
        relevant.cache = None;
        relevant.eval = None;
        relevant.log = LogSection::default();
        relevant.checkpoint = CheckpointSection::default();
        relevant.batch.workers = 1;
        relevant.batch.parallel = None;
        relevant.batch.recompute = Recompute::default();
        let (share, seed) = self.held_out();
        let text = format!("{}held_out = [{share}, {seed}]", relevant.resolved()?);
        Ok(Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Share of the conversations of the recipe's files that is kept from training, and the seed that chooses them, 0 of none.
    pub fn held_out(&self) -> (f64, u64) {
        let of = |eval: &EvalSection| (eval.held_out(), eval.seed);
        self.eval.as_ref().map(of).filter(|&(share, _)| share > 0.0).unwrap_or_default()
    }

    /// The recipe by which one process would train what `ranks` of them train by this one together.
    pub fn of_all(&self, ranks: usize) -> Self {
        Self { batch: self.batch.clone().of_all(ranks), ..self.clone() }
    }

    /// The type that is computed in.
    pub fn dtype(&self) -> DType {
        match (self.model.compute, self.device) {
            (Some(Compute::Bf16), _) | (None, DeviceKind::Cuda) => DType::BF16,
            (Some(Compute::F32), _) | (None, DeviceKind::Cpu) => DType::F32,
        }
    }

    /// All files of conversations that phases read, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let sources = self.phases.iter().flat_map(|phase| &phase.sources);
        let files: BTreeSet<&PathBuf> =
            sources.filter_map(|source| source.jsonl.as_ref()).flat_map(Paths::all).collect();
        files.into_iter().cloned().collect()
    }

    /// The same with each file of conversations in the place that `of` gives.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn with_files(mut self, of: impl Fn(&Path) -> Result<PathBuf>) -> Result<Self> {
        let sources = self.phases.iter_mut().flat_map(|phase| &mut phase.sources);
        let files = sources.filter_map(|source| source.jsonl.as_mut()).flat_map(Paths::all_mut);
        let held_out = self.eval.iter_mut().filter_map(|eval| eval.data.as_mut());
        for file in files.chain(held_out) {
            *file = of(file)?;
        }
        Ok(self)
    }

    /// Whether the run has a tokenizer directory of its own: with new tokens, or with another chat template.
    pub fn has_own_tokenizer(&self) -> bool {
        !self.new_tokens.is_empty() || self.model.chat_template.is_some()
    }

    /// The directory of the tokenizer and the chat template that the run uses.
    pub fn full_tokenizer_dir(&self) -> Result<PathBuf> {
        match self.has_own_tokenizer() {
            true => Ok(self.output.join("tokenizer")),
            false => self.tokenizer_dir().map(Path::to_owned),
        }
    }

    /// The base as an adapter's settings name it.
    pub fn base_name(&self) -> Option<String> {
        self.model.path.as_ref().map(|path| path.display().to_string())
    }

    /// Tokens that a soft prompt puts before every sequence.
    pub fn virtual_tokens(&self) -> usize {
        self.prompt.as_ref().map_or(0, |prompt| prompt.tokens)
    }

    /// Evaluation is on wherever there are files to hold something out of.
    fn with_defaults(mut self) -> Self {
        if self.eval.is_none() && !self.files().is_empty() {
            self.eval = Some(EvalSection::default());
        }
        let packed = self.model.weights != Held::F32;
        if let Some(eval) = &mut self.eval {
            let count = if packed && eval.best == BestBy::Loss { 0 } else { default::EVAL_GENERATE };
            eval.generate.get_or_insert(count);
        }
        self
    }

    /// The directory of the base's tokenizer and chat template.
    pub fn tokenizer_dir(&self) -> Result<&Path> {
        let dir = self.model.tokenizer.as_deref().or(self.model.path.as_deref());
        dir.ok_or_else(|| TrainError::field("model.tokenizer", "give the directory of tokenizer.json"))
    }
}

#[cfg(test)]
mod tests;
