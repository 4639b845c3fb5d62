//! What a recipe says of the model: where its weights come from, which of them are trained, what is computed in.

use super::default;
use callsmith::chat::dialect::DialectChoice;
use callsmith::model::gguf::Encoding;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    /// Chat template to use instead of the one beside the tokenizer. The run keeps a copy, and what it exports carries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<PathBuf>,
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

/// The virtual tokens of a soft prompt, and what their embeddings start from: those of a text, or of tokens drawn from the vocabulary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSection {
    /// How many; they count as part of each sample.
    pub tokens: usize,
    /// Repeated or cut to so many tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A token that is added to the base's tokenizer, and with it a row to its tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    pub text: String,
    /// A control token: ordinary text never becomes it.
    #[serde(default)]
    pub special: bool,
    /// Its row starts as the mean of these words' tokens; as the mean of all tokens when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
