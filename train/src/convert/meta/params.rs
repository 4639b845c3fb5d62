//! Meta's `params.json` ↔ the shape of a decoder.
//!
//! The file does not say the width of the MLP (only how to compute it), the vocabulary (−1 in Llama 2) or the context; the first
//! two are read from the tensors.

use crate::error::{Result, TrainError};
use callsmith::model::{Family, ModelConfig, RopeScaling};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Llama 3.1's rule for stretched frequencies; only its factor changes between models.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
const ORIGINAL_CONTEXT: f64 = 8192.0;
/// Before the MLP's width is rounded up to a multiple of a power of two, that power is at most this.
const LARGEST_MULTIPLE: usize = 4096;

/// The file. A key that is not known here could change the arithmetic, so it is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) dim: usize,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) n_kv_heads: Option<usize>,
    #[serde(default = "unknown")]
    vocab_size: i64,
    #[serde(default = "default_multiple")]
    multiple_of: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ffn_dim_multiplier: Option<f64>,
    norm_eps: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope_theta: Option<f64>,
    #[serde(default, skip_serializing_if = "is_false")]
    use_scaled_rope: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope_scaling_factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_seq_len: Option<usize>,
    #[serde(default, skip_serializing)]
    max_batch_size: Option<usize>,
}

fn unknown() -> i64 {
    -1
}

fn default_multiple() -> usize {
    256
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What the tensors say about a model's shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) vocab_size: usize,
    pub(super) intermediate_size: usize,
    /// There is no head beside the embedding.
    pub(super) tied: bool,
}

impl Params {
    pub(super) fn kv_heads(&self) -> usize {
        self.n_kv_heads.unwrap_or(self.n_heads)
    }

    /// The decoder's shape.
    ///
    /// # Errors
    /// When no decoder can have it; `path` is the file's.
    pub(super) fn config(&self, path: &Path, measured: Measured) -> Result<ModelConfig> {
        if self.n_heads == 0 || !self.dim.is_multiple_of(self.n_heads) {
            return Err(TrainError::input(path, "`dim` is not a multiple of `n_heads`"));
        }
        let config = ModelConfig {
            family: Family::Llama,
            vocab_size: measured.vocab_size,
            hidden_size: self.dim,
            intermediate_size: measured.intermediate_size,
            num_layers: self.n_layers,
            num_heads: self.n_heads,
            num_kv_heads: self.kv_heads(),
            head_dim: self.dim / self.n_heads,
            rms_norm_eps: self.norm_eps,
            rope_theta: self.rope_theta.unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling(measured.tied),
            max_position_embeddings: self.context(),
            sliding_window: None,
            tie_word_embeddings: measured.tied,
            eos_token_ids: Vec::new(),
        };
        ModelConfig::from_json(&config.to_json()).map_err(|error| TrainError::input(path, error.to_string()))
    }

    fn rope_scaling(&self, tied: bool) -> RopeScaling {
        if !self.use_scaled_rope {
            return RopeScaling::None;
        }
        RopeScaling::Llama3 {
            factor: self.rope_scaling_factor.unwrap_or(usual_factor(tied)),
            low_freq_factor: LOW_FREQ_FACTOR,
            high_freq_factor: HIGH_FREQ_FACTOR,
            original_max_position: ORIGINAL_CONTEXT,
        }
    }

    /// What the models with these frequencies were published with: 3.1 and later, 3, 2.
    fn context(&self) -> usize {
        let usual = match (self.use_scaled_rope, self.rope_theta) {
            (true, _) => 131_072,
            (false, Some(theta)) if theta >= 500_000.0 => 8192,
            (false, _) => 4096,
        };
        self.max_seq_len.unwrap_or(usual)
    }

    /// The file for a decoder of this shape.
    ///
    /// # Errors
    /// When Meta's code has no such model; the message names what of `config.json` is in the way.
    pub(super) fn of(config: &ModelConfig) -> Result<Self, String> {
        if config.family != Family::Llama {
            return Err(format!("architecture {} has no form of Meta's", config.family.architecture()));
        }
        if config.head_dim * config.num_heads != config.hidden_size {
            return Err("`head_dim` is not hidden_size / num_attention_heads, as Meta's code has it".to_owned());
        }
        let factor = scaling_factor(&config.rope_scaling)?;
        let (multiple_of, ffn_dim_multiplier) = mlp_rule(config.hidden_size, config.intermediate_size);
        Ok(Self {
            dim: config.hidden_size,
            n_layers: config.num_layers,
            n_heads: config.num_heads,
            n_kv_heads: Some(config.num_kv_heads),
            vocab_size: config.vocab_size as i64,
            multiple_of,
            ffn_dim_multiplier,
            norm_eps: config.rms_norm_eps,
            rope_theta: Some(config.rope_theta),
            use_scaled_rope: factor.is_some(),
            rope_scaling_factor: factor.filter(|factor| *factor != usual_factor(config.tie_word_embeddings)),
            max_seq_len: None,
            max_batch_size: None,
        })
    }
}

/// How far Llama stretches frequencies where the file does not say it: 3.1 and 3.3 eightfold, the small models of 3.2 (which
/// alone have no head of their own) 32-fold.
fn usual_factor(tied: bool) -> f64 {
    if tied { 32.0 } else { 8.0 }
}

fn scaling_factor(scaling: &RopeScaling) -> Result<Option<f64>, String> {
    match *scaling {
        RopeScaling::None => Ok(None),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position }
            if [low_freq_factor, high_freq_factor, original_max_position]
                == [LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR, ORIGINAL_CONTEXT] =>
        {
            Ok(Some(factor))
        }
        _ => Err("`rope_scaling` is not Llama 3.1's, which alone Meta's code knows".to_owned()),
    }
}

/// `multiple_of` and `ffn_dim_multiplier` from which Meta's code computes this width of the MLP.
fn mlp_rule(dim: usize, intermediate: usize) -> (usize, Option<f64>) {
    let multiple = (1 << intermediate.trailing_zeros().min(LARGEST_MULTIPLE.trailing_zeros())).max(1);
    if mlp_width(dim, multiple, None) == intermediate {
        return (multiple, None);
    }
    let exact = (intermediate as f64 + 0.5) / (8 * dim / 3) as f64;
    let rounded = |digits: i32| {
        let scale = 10f64.powi(digits);
        (exact * scale).round() / scale
    };
    // The shortest number that gives the width, as a person would have written it.
    let shortest = (1..16).map(rounded).find(|factor| mlp_width(dim, multiple, Some(*factor)) == intermediate);
    (multiple, Some(shortest.unwrap_or(exact)))
}

/// The width of the MLP as Meta's code computes it: two thirds of four times the model's, scaled, rounded up.
fn mlp_width(dim: usize, multiple: usize, factor: Option<f64>) -> usize {
    let width = 8 * dim / 3;
    let width = factor.map_or(width, |factor| (factor * width as f64) as usize);
    width.div_ceil(multiple) * multiple
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_widths_have_a_rule_that_gives_them() {
        // Llama 2 7B, 13B, 70B; Llama 3 8B, 70B, 405B; Llama 3.2 1B, 3B; and one that no power of two divides.
        let widths = [
            (4096, 11_008),
            (5120, 13_824),
            (8192, 28_672),
            (4096, 14_336),
            (16_384, 53_248),
            (2048, 8192),
            (3072, 8192),
            (16, 37),
        ];
        for (dim, width) in widths {
            let (multiple, factor) = mlp_rule(dim, width);
            assert_eq!(mlp_width(dim, multiple, factor), width, "{dim} {width}: {multiple} {factor:?}");
        }
        assert_eq!(mlp_rule(4096, 11_008), (256, None));
        assert_eq!(mlp_rule(4096, 14_336), (2048, Some(1.3)));
    }

    #[test]
    fn a_shape_survives_writing_and_reading() {
        let text = r#"{"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1, "multiple_of": 32,
                       "ffn_dim_multiplier": 1.3, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": true}"#;
        let params: Params = serde_json::from_str(text).unwrap();
        for tied in [false, true] {
            let measured = Measured { vocab_size: 100, intermediate_size: 224, tied };
            let config = params.config(Path::new("params.json"), measured).unwrap();
            assert_eq!((config.max_position_embeddings, config.head_dim), (131_072, 16));
            let again = Params::of(&config).unwrap();
            assert_eq!(again.config(Path::new("params.json"), measured).unwrap(), config);
            assert_eq!(again.rope_scaling_factor, None);
        }
    }

    #[test]
    fn what_meta_cannot_say_is_refused_by_name() {
        let text = r#"{"dim": 64, "n_layers": 1, "n_heads": 4, "norm_eps": 1e-05}"#;
        let params: Params = serde_json::from_str(text).unwrap();
        let measured = Measured { vocab_size: 100, intermediate_size: 176, tied: false };
        let config = params.config(Path::new("params.json"), measured).unwrap();
        let refused = |config: ModelConfig| Params::of(&config).unwrap_err();
        assert!(refused(ModelConfig { family: Family::Qwen3, ..config.clone() }).contains("Qwen3"));
        assert!(refused(ModelConfig { head_dim: 32, ..config.clone() }).contains("head_dim"));
        assert!(refused(ModelConfig { rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..config }).contains("rope"));
        let unknown = text.replace("norm_eps", "vision_chunk_size\": 560, \"norm_eps");
        assert!(serde_json::from_str::<Params>(&unknown).unwrap_err().to_string().contains("vision_chunk_size"));
    }
}
