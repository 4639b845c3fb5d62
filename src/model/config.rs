//! `config.json` of a Hugging Face model directory → [`ModelConfig`]; says which architectures are accepted.
//!
//! Knows no tensors and no files: a JSON value in, a shape or a clear refusal out.

use super::ModelError;
use serde_json::{Value, json};

/// The shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub family: Family,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Window of the last n positions that a token sees (Mistral), if any.
    pub sliding_window: Option<usize>,
    pub tie_word_embeddings: bool,
    /// End-of-turn token ids named by the configuration.
    pub eos_token_ids: Vec<u32>,
}

/// The architectures that differ only in the details below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Family {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// The class name in `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Bias on q, k and v.
    pub fn qkv_bias(self) -> bool {
        self == Self::Qwen2
    }

    /// RMSNorm over each head of q and k.
    pub fn qk_norm(self) -> bool {
        self == Self::Qwen3
    }
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position: f64,
    },
}

impl ModelConfig {
    /// Reads the contents of `config.json`; unknown architectures are refused by name.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        let fields = Fields(json);
        let family = fields.family()?;
        fields.refuse_unsupported(family)?;
        let (num_heads, hidden_size) = (fields.size("num_attention_heads")?, fields.size("hidden_size")?);
        let config = Self {
            family,
            vocab_size: fields.size("vocab_size")?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            num_layers: fields.size("num_hidden_layers")?,
            num_heads,
            num_kv_heads: fields.optional_size("num_key_value_heads")?.unwrap_or(num_heads),
            head_dim: fields.optional_size("head_dim")?.unwrap_or(hidden_size / num_heads.max(1)),
            rms_norm_eps: fields.number("rms_norm_eps").unwrap_or(1e-6),
            rope_theta: fields.rope_theta(),
            rope_scaling: fields.rope_scaling()?,
            max_position_embeddings: fields.optional_size("max_position_embeddings")?.unwrap_or(2048),
            sliding_window: fields.sliding_window(family)?,
            tie_word_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
            eos_token_ids: fields.eos(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ModelError> {
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return refuse(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {}",
                self.num_heads, self.num_kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse(format!("head_dim {} is odd; rotary embeddings need an even one", self.head_dim));
        }
        Ok(())
    }

    /// Width of the concatenated query heads.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of the concatenated key (or value) heads.
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        super::decoder::parameter_shapes(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// A `config.json` that [`Self::from_json`] (and Hugging Face transformers) reads back.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
        });
        json["rope_scaling"] = self.rope_scaling.to_json();
        if let Some(window) = self.sliding_window {
            json["sliding_window"] = json!(window);
            json["use_sliding_window"] = json!(true);
        }
        if !self.eos_token_ids.is_empty() {
            json["eos_token_id"] = json!(self.eos_token_ids);
        }
        json
    }
}

impl RopeScaling {
    fn to_json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": *original_max_position as u64,
            }),
        }
    }
}

fn refuse<T>(message: String) -> Result<T, ModelError> {
    Err(ModelError::Config(message))
}

/// Reads of single fields, with errors that name them.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn family(&self) -> Result<Family, ModelError> {
        let name = self.0["architectures"][0].as_str();
        let known = || Family::ALL.map(Family::architecture).join(", ");
        match name {
            None => refuse(format!("`architectures` is missing; known: {}", known())),
            Some(name) => match Family::ALL.into_iter().find(|family| family.architecture() == name) {
                Some(family) => Ok(family),
                None => refuse(format!("architecture `{name}` is not supported; supported: {}", known())),
            },
        }
    }

    fn refuse_unsupported(&self, family: Family) -> Result<(), ModelError> {
        let activation = self.0["hidden_act"].as_str().unwrap_or("silu");
        if activation != "silu" {
            return refuse(format!("hidden_act `{activation}` is not supported (only silu)"));
        }
        for field in ["attention_bias", "mlp_bias"] {
            if self.0[field].as_bool() == Some(true) && family != Family::Qwen2 {
                return refuse(format!("`{field}`: true is not supported for {}", family.architecture()));
            }
        }
        if self.0.get("quantization_config").is_some_and(|q| !q.is_null()) {
            return refuse("`quantization_config`: only plain f32, f16 and bf16 weights are supported".into());
        }
        Ok(())
    }

    fn size(&self, field: &str) -> Result<usize, ModelError> {
        match self.optional_size(field)? {
            Some(size) => Ok(size),
            None => refuse(format!("`{field}` is missing")),
        }
    }

    fn optional_size(&self, field: &str) -> Result<Option<usize>, ModelError> {
        match &self.0[field] {
            Value::Null => Ok(None),
            value => match value.as_u64() {
                Some(n) if n > 0 && n <= u64::from(u32::MAX) => Ok(Some(n as usize)),
                _ => refuse(format!("`{field}` must be a positive integer, found {value}")),
            },
        }
    }

    fn number(&self, field: &str) -> Option<f64> {
        self.0[field].as_f64()
    }

    /// `rope_parameters` is where transformers 5 keeps what used to be `rope_theta` and `rope_scaling`.
    fn rope_theta(&self) -> f64 {
        self.number("rope_theta").or_else(|| self.0["rope_parameters"]["rope_theta"].as_f64()).unwrap_or(10_000.0)
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let scaling =
            if self.0["rope_scaling"].is_object() { &self.0["rope_scaling"] } else { &self.0["rope_parameters"] };
        let kind = scaling["rope_type"].as_str().or_else(|| scaling["type"].as_str()).unwrap_or("default");
        let number = |field: &str| match scaling[field].as_f64() {
            Some(x) if x > 0.0 => Ok(x),
            _ => refuse(format!("`rope_scaling.{field}` must be a positive number, found {}", scaling[field])),
        };
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position: number("original_max_position_embeddings")?,
            }),
            other => refuse(format!("rope_scaling type `{other}` is not supported (default, linear, llama3)")),
        }
    }

    fn sliding_window(&self, family: Family) -> Result<Option<usize>, ModelError> {
        let window = self.optional_size("sliding_window")?;
        let switch = self.0["use_sliding_window"].as_bool();
        match family {
            Family::Llama => Ok(None),
            Family::Mistral => Ok(window),
            Family::Qwen2 | Family::Qwen3 if switch != Some(true) => Ok(None),
            _ if self.optional_size("max_window_layers").is_ok_and(|n| n.is_some_and(|n| n > 0)) => {
                refuse("`max_window_layers` > 0 with `use_sliding_window` is not supported".into())
            }
            _ => Ok(window),
        }
    }

    fn eos(&self) -> Vec<u32> {
        match &self.0["eos_token_id"] {
            Value::Array(ids) => ids.iter().filter_map(|id| id.as_u64().map(|id| id as u32)).collect(),
            id => id.as_u64().map(|id| id as u32).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Value {
        json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
               "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500000.0,
               "eos_token_id": [1, 2], "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})
    }

    #[test]
    fn a_config_survives_writing_and_reading() {
        let config = ModelConfig::from_json(&llama()).unwrap();
        assert_eq!(config.head_dim, 16);
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let cases = [
            ("architectures", json!(["GemmaForCausalLM"]), "GemmaForCausalLM"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("vocab_size", json!(-1), "vocab_size"),
            ("num_key_value_heads", json!(3), "num_key_value_heads"),
            ("rope_scaling", json!({"rope_type": "yarn"}), "yarn"),
            ("rope_scaling", json!({"type": "linear"}), "rope_scaling.factor"),
            ("mlp_bias", json!(true), "mlp_bias"),
        ];
        for (field, value, named) in cases {
            let mut json = llama();
            json[field] = value;
            let error = ModelConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(named), "{field}: {error}");
        }
    }
}
