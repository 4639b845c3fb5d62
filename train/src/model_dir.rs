//! What stands beside the weights in a Hugging Face model directory: `config.json` and the tokenizer's files.

use crate::atomic;
use crate::error::{Result, TrainError};
use crate::tensors::{self, Weights};
use callsmith::adapter::peft::tokenizer_files;
use callsmith::model::{ModelConfig, ModelError, decoder};
use candle_core::DType;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// The file of a chat template, of a model or of an adapter.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// How values are stored in a model directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    /// For tensors in memory.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Writes `config.json`, which says that the weights are of type `dtype`.
///
/// # Errors
/// When it cannot be written.
pub fn write_config(dir: &Path, config: &Value, dtype: Dtype) -> Result<()> {
    let mut config = config.clone();
    // transformers 5 writes the shorter name and reads both.
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = torch_name(dtype).into();
    atomic::file(&dir.join("config.json"), format!("{config:#}\n").as_bytes())
}

fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F64 => "float64",
        _ => "float32",
    }
}

/// Reads `config.json` of a directory, as it is and as the shape of a decoder.
///
/// # Errors
/// When it is absent, no JSON object, or not of a decoder that is known here.
pub fn read_config(dir: &Path) -> Result<(Value, ModelConfig)> {
    let path = dir.join("config.json");
    let json: Value = read_json(&path)?;
    let config = ModelConfig::from_json(&json).map_err(|error| TrainError::input(&path, error.to_string()))?;
    Ok((json, config))
}

/// Reads a file of JSON.
///
/// # Errors
/// When it cannot be read, or is not what is expected; the message says what.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| TrainError::input(path, error.to_string()))
}

/// The names of the decoder's tensors, after a check that all are there, in their shapes, and floating-point numbers.
///
/// # Errors
/// When one is not; the message names it.
pub fn check_weights(weights: &Weights, config: &ModelConfig) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for (name, expected) in decoder::parameter_shapes(config) {
        let layout = weights.layout(&name).ok_or_else(|| ModelError::MissingTensor(name.clone()))?;
        if layout.shape != expected {
            return Err(ModelError::Shape { name, expected, found: layout.shape.clone() }.into());
        }
        if !layout.is_float() {
            return Err(ModelError::Encoding { name, found: layout.dtype.to_string() }.into());
        }
        names.insert(name);
    }
    Ok(names)
}

/// Looks for a value that nothing can be trained on.
///
/// # Errors
/// When a value is not finite; the message names its tensor.
pub fn check_finite(dir: &Path) -> Result<()> {
    let weights = Weights::open(dir)?;
    for name in weights.names() {
        let raw = weights.read(name)?;
        if raw.layout.is_float() && !tensors::is_finite(&raw.tensor()?)? {
            let message = format!("`{name}` has a value that is not finite, so no loss is; get the model again");
            return Err(TrainError::input(dir, message));
        }
    }
    Ok(())
}

/// Copies those of the tokenizer's files that are there.
///
/// # Errors
/// When one cannot be read or written.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    tokenizer_files().try_for_each(|name| copy_file(from, to, name))
}

/// Copies a file if it is there.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy_file(from: &Path, to: &Path, name: &str) -> Result<()> {
    let source = from.join(name);
    if !source.exists() {
        return Ok(());
    }
    atomic::file(&to.join(name), &fs::read(&source).map_err(TrainError::io(&source))?)
}
