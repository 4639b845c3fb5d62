//! A model's shape ↔ the metadata of its GGUF file. Knows no tensors but the rotary divisors.

use super::super::{Family, ModelConfig, ModelError, RopeScaling, ops};
use crate::gguf::{Header, Metadata};
use serde_json::{Value, json};

/// The context that Llama 3.1's rotary embeddings were first trained for; files do not say it.
const LLAMA3_ORIGINAL_CONTEXT: u64 = 8192;
/// Divisors are f32 values that came from f32 frequencies.
const TOLERANCE: f64 = 1e-4;

/// How files call the architectures. A Mistral is called `llama`; the two differ in the window alone.
const ARCHITECTURES: [(&str, Family); 3] =
    [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3)];

/// How a file calls the architecture.
fn name(family: Family) -> &'static str {
    match family {
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
    }
}

/// The model's shape. `factors` are the divisors of the rotary frequencies, if the file has them.
pub(super) fn config(header: &Header<'_>, factors: Option<&[f32]>) -> Result<ModelConfig, ModelError> {
    let fields = Fields::new(header)?;
    fields.refuse_unsupported()?;
    let config = ModelConfig::from_json(&fields.to_json()?)?;
    match factors {
        None => Ok(config),
        Some(factors) => with_factors(&config, factors, fields.unsigned("rope.scaling.original_context_length")?),
    }
}

/// Reads of single values, with errors that name them.
struct Fields<'a> {
    header: &'a Header<'a>,
    architecture: &'static str,
    family: Family,
}

impl<'a> Fields<'a> {
    fn new(header: &'a Header<'a>) -> Result<Self, ModelError> {
        let found = header.text("general.architecture")?;
        let Some((architecture, family)) = ARCHITECTURES.into_iter().find(|(name, _)| Some(*name) == found) else {
            let known = ARCHITECTURES.map(|(name, _)| name).join(", ");
            let found = found.unwrap_or("(none)");
            return refuse(format!("architecture `{found}` is not supported in GGUF files; supported: {known}"));
        };
        Ok(Self { header, architecture, family })
    }

    fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.architecture)
    }

    fn unsigned(&self, field: &str) -> Result<Option<u64>, ModelError> {
        Ok(self.header.unsigned(&self.key(field))?)
    }

    fn required(&self, field: &str) -> Result<u64, ModelError> {
        match self.unsigned(field)? {
            Some(value) => Ok(value),
            None => refuse(format!("metadata `{}` is missing", self.key(field))),
        }
    }

    fn number(&self, field: &str) -> Result<Option<f64>, ModelError> {
        match self.header.number(&self.key(field))? {
            Some(number) if number <= 0.0 => refuse(format!("metadata `{}` must be positive", self.key(field))),
            number => Ok(number),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), ModelError> {
        if self.header.unsigned("split.count")?.is_some_and(|parts| parts > 1) {
            return refuse("this file is one part of several; merge them (`llama-gguf-split --merge`)");
        }
        if self.unsigned("expert_count")?.is_some_and(|experts| experts > 0) {
            return refuse(format!("models with experts (metadata `{}`) are not supported", self.key("expert_count")));
        }
        let head = self.head_dim()?;
        for field in ["attention.value_length", "rope.dimension_count"] {
            if self.unsigned(field)?.is_some_and(|found| found != head) {
                return refuse(format!("metadata `{}` must be the width of a head, {head}", self.key(field)));
            }
        }
        Ok(())
    }

    fn head_dim(&self) -> Result<u64, ModelError> {
        let default = self.required("embedding_length")? / self.required("attention.head_count")?.max(1);
        Ok(self.unsigned("attention.key_length")?.unwrap_or(default))
    }

    /// The same as a `config.json`, whose reader checks what it says.
    fn to_json(&self) -> Result<Value, ModelError> {
        let Some(embedding) = self.header.tensors().get("token_embd.weight") else {
            return Err(ModelError::MissingTensor("token_embd.weight".into()));
        };
        let window = self.unsigned("attention.sliding_window")?.filter(|window| *window > 0);
        let family = if self.family == Family::Llama && window.is_some() { Family::Mistral } else { self.family };
        let Some(eps) = self.number("attention.layer_norm_rms_epsilon")? else {
            return refuse(format!("metadata `{}` is missing", self.key("attention.layer_norm_rms_epsilon")));
        };
        Ok(json!({
            "architectures": [family.architecture()],
            "vocab_size": embedding.shape[0],
            "hidden_size": self.required("embedding_length")?,
            "intermediate_size": self.required("feed_forward_length")?,
            "num_hidden_layers": self.required("block_count")?,
            "num_attention_heads": self.required("attention.head_count")?,
            "num_key_value_heads": self.unsigned("attention.head_count_kv")?,
            "head_dim": self.head_dim()?,
            "rms_norm_eps": eps,
            "rope_theta": self.number("rope.freq_base")?.unwrap_or(10_000.0),
            "rope_scaling": self.rope_scaling()?,
            "max_position_embeddings": self.required("context_length")?,
            "sliding_window": window,
            "use_sliding_window": window.is_some(),
            "tie_word_embeddings": !self.header.tensors().contains_key("output.weight"),
            "eos_token_id": self.eos()?,
        }))
    }

    /// A factor without a type is linear, and the older key means it too.
    fn rope_scaling(&self) -> Result<Value, ModelError> {
        let kind = self.header.text(&self.key("rope.scaling.type"))?.unwrap_or("linear");
        let factor = self.number("rope.scaling.factor")?.or(self.number("rope.scale_linear")?);
        Ok(match (kind, factor) {
            ("none", _) | ("linear", None | Some(1.0)) => Value::Null,
            (kind, factor) => json!({"rope_type": kind, "factor": factor}),
        })
    }

    fn eos(&self) -> Result<Vec<u64>, ModelError> {
        let mut ids = Vec::new();
        for key in ["eos", "eot", "eom"] {
            let id = self.header.unsigned(&format!("tokenizer.ggml.{key}_token_id"))?;
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        Ok(ids)
    }
}

/// Finds the parameters behind the divisors: those of Llama 3.1 and its successors differ in the factor alone.
fn with_factors(config: &ModelConfig, factors: &[f32], original: Option<u64>) -> Result<ModelConfig, ModelError> {
    let largest = factors.iter().copied().fold(0.0, f32::max);
    let scaling = RopeScaling::Llama3 {
        factor: f64::from(largest),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: original.unwrap_or(LLAMA3_ORIGINAL_CONTEXT) as f64,
    };
    let scaled = ModelConfig { rope_scaling: scaling, ..config.clone() };
    let expected = ops::rope_divisors(&scaled);
    let close = |(found, expected): (&f32, &f64)| (f64::from(*found) / expected - 1.0).abs() < TOLERANCE;
    let same = factors.len() == expected.len() && factors.iter().zip(&expected).all(close);
    match config.rope_scaling {
        RopeScaling::None if same => Ok(scaled),
        _ => refuse(format!(
            "`{}` is not Llama 3's rule (factors 1 and 4), which alone is supported",
            super::ROPE_FACTORS
        )),
    }
}

/// What llama.cpp's loader reads of a model's shape.
pub(super) fn describe(config: &ModelConfig) -> Metadata {
    let architecture = name(config.family);
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", architecture);
    let mut size = |field: &str, value: usize| metadata.u32(&format!("{architecture}.{field}"), value as u32);
    size("vocab_size", config.vocab_size);
    size("context_length", config.max_position_embeddings);
    size("embedding_length", config.hidden_size);
    size("block_count", config.num_layers);
    size("feed_forward_length", config.intermediate_size);
    size("attention.head_count", config.num_heads);
    size("attention.head_count_kv", config.num_kv_heads);
    size("attention.key_length", config.head_dim);
    size("attention.value_length", config.head_dim);
    size("rope.dimension_count", config.head_dim);
    if let Some(window) = config.sliding_window {
        size("attention.sliding_window", window);
    }
    if let RopeScaling::Llama3 { original_max_position, .. } = config.rope_scaling {
        size("rope.scaling.original_context_length", original_max_position as usize);
    }
    let mut number = |field: &str, value: f64| metadata.f32(&format!("{architecture}.{field}"), value as f32);
    number("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    number("rope.freq_base", config.rope_theta);
    if let RopeScaling::Linear { factor } = config.rope_scaling {
        number("rope.scaling.factor", factor);
        metadata.text(&format!("{architecture}.rope.scaling.type"), "linear");
    }
    metadata
}

fn refuse<T>(message: impl Into<String>) -> Result<T, ModelError> {
    Err(ModelError::Config(message.into()))
}
