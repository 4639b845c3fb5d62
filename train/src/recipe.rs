//! The training recipe: one TOML file says everything that a run does. An unknown key is an error.
//!
//! Knows no tensors and no data; paths are relative to the working directory. What the values must satisfy is in
//! `recipe/validate.rs`.

mod default;
mod overrides;
pub(crate) mod validate;

use crate::data::synth::SynthConfig;
use crate::error::{Result, TrainError};
use callsmith::chat::dialect::DialectChoice;
use callsmith::model::Recompute;
use callsmith::model::gguf::Encoding;
use candle_core::DType;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Which weights are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// All weights.
    Full,
    /// Low-rank factors beside a frozen base.
    Lora,
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
    pub model: ModelSection,
    #[serde(default)]
    pub init: InitSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<FullSection>,
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

/// Where the weights come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Start from the weights of this Hugging Face directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Directory of `tokenizer.json` (and chat template); `path` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Dialect by name; chosen from the chat template when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// Directory of further dialects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect_dir: Option<PathBuf>,
    /// Start from random weights of this shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<ShapeSection>,
    /// How the frozen weights beside an adapter are held.
    #[serde(default)]
    pub weights: Held,
    /// What is computed in: `f32`, or on a GPU `bf16`. Trained values and their moments are f32 in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
}

/// How frozen weights are held in memory. They are expanded for each product, so that the result is that of the values held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// In the type that is computed in.
    #[default]
    F32,
    /// Half the memory of f32; exact where the checkpoint is bf16.
    Bf16,
    /// Blocks of 32 values in 34 bytes (QLoRA).
    Q8_0,
    /// Blocks of 256 values in 144 bytes (QLoRA).
    #[serde(rename = "q4_k")]
    Q4K,
}

impl Held {
    /// The encoding of GGUF that this is.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::F32 => Encoding::F32,
            Self::Bf16 => Encoding::Bf16,
            Self::Q8_0 => Encoding::Q8_0,
            Self::Q4K => Encoding::Q4K,
        }
    }
}

/// The type that is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    F32,
    Bf16,
}

impl ModelSection {
    /// How the model writes calls.
    pub fn dialect(&self) -> DialectChoice {
        DialectChoice { name: self.dialect.clone(), dir: self.dialect_dir.clone() }
    }
}

/// A Llama-shaped decoder, in the words of its `config.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeSection {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub max_position_embeddings: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// The tokenizer's size when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    #[serde(default = "default::rope_theta")]
    pub rope_theta: f64,
    #[serde(default = "default::rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default = "default::yes")]
    pub tie_word_embeddings: bool,
    /// RMSNorm over each head of q and k (the model is then a Qwen 3).
    #[serde(default)]
    pub qk_norm: bool,
    /// Biases on q, k and v (the model is then a Qwen 2).
    #[serde(default)]
    pub attention_bias: bool,
}

/// Spread of random initial weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitSection {
    pub embedding_std: f64,
    pub std: f64,
    /// Let some heads of each layer start out looking at the token before and at near tokens, by their biases.
    pub positional_heads: bool,
}

impl Default for InitSection {
    fn default() -> Self {
        Self { embedding_std: 0.15, std: 0.02, positional_heads: false }
    }
}

/// The shape of a LoRA adapter, in PEFT's words.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    pub rank: usize,
    pub alpha: f64,
    #[serde(default)]
    pub rslora: bool,
    /// Train the lengths of the rows apart from their directions (DoRA).
    #[serde(default)]
    pub dora: bool,
    /// Share of the factors' input that is dropped while training.
    #[serde(default)]
    pub dropout: f64,
    /// Module names or the ends of their paths, one pattern over whole paths, or "all-linear".
    #[serde(default)]
    pub target_modules: TargetModules,
    /// Only these blocks; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// Other ranks by patterns over paths; the first match counts.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub rank_pattern: toml::Table,
    /// Other alphas by patterns over paths; the first match counts.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub alpha_pattern: toml::Table,
}

/// Which linear layers an adapter is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    Pattern(String),
    Names(Vec<String>),
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::Pattern("all-linear".into())
    }
}

impl LoraSection {
    /// The same as PEFT's `adapter_config.json` says it.
    pub fn settings(&self) -> serde_json::Value {
        serde_json::json!({
            "peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha, "use_rslora": self.rslora,
            "use_dora": self.dora, "lora_dropout": self.dropout, "target_modules": self.target_modules,
            "layers_to_transform": self.layers, "rank_pattern": self.rank_pattern, "alpha_pattern": self.alpha_pattern,
        })
    }
}

/// Which parameters are trained when not all are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullSection {
    /// Patterns over whole parameter names, as they stand in checkpoints; the others stay frozen.
    pub train: Vec<String>,
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

/// How much one step sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSection {
    /// Most tokens of one optimizer step.
    pub tokens: usize,
    /// Longer samples are dropped and counted.
    pub max_len: usize,
    /// Most tokens of one forward pass; gradients are accumulated. `tokens` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_tokens: Option<usize>,
    /// Passes that run at once, each with activations of its own. When absent: on a CPU as many as threads for a small model,
    /// else 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Which intermediate results are computed again instead of kept: off, selective (those of the feed-forward layers), all.
    #[serde(default)]
    pub recompute: Recompute,
    /// Threads that prepare data.
    #[serde(default = "default::workers")]
    pub workers: usize,
}

/// A stretch of the run with one mixture of data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub steps: u64,
    #[serde(rename = "source")]
    pub sources: Vec<SourceSection>,
}

/// One source of a mixture: exactly one of `copy`, `recall`, `synth`, `jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// Share of the samples, relative to the phase's other sources.
    #[serde(default = "default::one")]
    pub weight: f64,
    /// Loss weight of what follows the system message and functions and is not the assistant's: requests and results
    /// (conversations only).
    #[serde(default)]
    pub lm_weight: f32,
    /// Loss weight of the first token of each function name.
    #[serde(default = "default::one_f32")]
    pub name_weight: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopySection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<RecallSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synth: Option<SynthConfig>,
    /// A file with one conversation per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonl: Option<PathBuf>,
}

/// Random token sequences, repeated. Each pair is `[at the start, at the end]` of the growth.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySection {
    /// Different tokens in use; grows geometrically.
    pub pool: [usize; 2],
    /// Tokens of a sequence before it is repeated.
    pub length: [usize; 2],
    /// Share of the phase after which the growth is complete.
    #[serde(default = "default::grow")]
    pub grow: f64,
}

/// Functions named and described by random words, and requests for them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallSection {
    /// Different words in use; grows geometrically.
    pub pool: [usize; 2],
    /// Most functions on offer; the start is also the least.
    pub functions: [usize; 2],
    /// Most other words in a description, and in a request.
    pub noise: [usize; 2],
    /// Most words that a description and a request for it share.
    #[serde(default = "default::single")]
    pub key_words: [usize; 2],
    /// Most words of a name.
    #[serde(default = "default::single")]
    pub name_words: [usize; 2],
    #[serde(default = "default::grow")]
    pub grow: f64,
}

/// Teacher-forced evaluation on held-out dialogues while training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    pub every: u64,
    pub samples: usize,
    #[serde(default)]
    pub seed: u64,
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
        Ok(recipe)
    }

    /// The recipe with all defaults filled in, as TOML.
    pub fn resolved(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| TrainError::field("(whole recipe)", e.to_string()))
    }

    /// SHA-256 of everything that decides the trained weights (not of logging, saving, evaluation or threads).
    pub fn digest(&self) -> Result<String> {
        let mut relevant = self.clone();
        relevant.output = PathBuf::new();
        relevant.threads = None;
        relevant.eval = None;
        relevant.log = LogSection::default();
        relevant.checkpoint = CheckpointSection::default();
        relevant.batch.workers = 1;
        relevant.batch.parallel = None;
        relevant.batch.recompute = Recompute::default();
        Ok(Sha256::digest(relevant.resolved()?.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The type that is computed in.
    pub fn dtype(&self) -> DType {
        match (self.model.compute, self.device) {
            (Some(Compute::Bf16), _) | (None, DeviceKind::Cuda) => DType::BF16,
            (Some(Compute::F32), _) | (None, DeviceKind::Cpu) => DType::F32,
        }
    }

    /// Optimizer steps of all phases.
    pub fn total_steps(&self) -> u64 {
        self.phases.iter().map(|phase| phase.steps).sum()
    }

    /// The directory of the tokenizer and the chat template.
    pub fn tokenizer_dir(&self) -> Result<&Path> {
        let dir = self.model.tokenizer.as_deref().or(self.model.path.as_deref());
        dir.ok_or_else(|| TrainError::field("model.tokenizer", "give the directory of tokenizer.json"))
    }
}

#[cfg(test)]
mod tests;
