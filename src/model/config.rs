//! `config.json` of a Hugging Face model directory → [`ModelConfig`]; says which architectures are accepted.

/// The shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
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
    /// Bias on q, k and v (Qwen 2).
    pub qkv_bias: bool,
    /// RMSNorm over each head of q and k (Qwen 3).
    pub qk_norm: bool,
    /// End-of-turn token ids named by the configuration.
    pub eos_token_ids: Vec<u32>,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    Linear { factor: f64 },
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position: f64 },
}

impl ModelConfig {
    /// Reads the contents of `config.json`; unknown architectures are refused by name.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, super::ModelError> {
        let _ = json;
        todo!()
    }

    /// A `config.json` that [`Self::from_json`] (and Hugging Face transformers) reads back.
    pub fn to_json(&self) -> serde_json::Value {
        todo!()
    }
}
