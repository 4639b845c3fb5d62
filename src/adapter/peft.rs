//! PEFT directories (`adapter_config.json`, `adapter_model.safetensors`), read and written.

use super::AdapterError;
use crate::model::{AdapterWeights, ModelConfig, TargetModule};
use candle_core::{DType, Device};
use std::path::Path;

/// The settings of an adapter that its `adapter_config.json` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    pub rank: usize,
    pub alpha: f64,
    pub use_rslora: bool,
    pub dropout: f64,
    pub target_modules: Vec<TargetModule>,
    pub base_model: Option<String>,
}

/// An adapter read into memory and checked against a decoder's shape.
pub struct LoadedAdapter {
    pub config: PeftConfig,
    pub weights: AdapterWeights,
    /// SHA-256 over both files, hexadecimal.
    pub digest: String,
}

/// Reads and checks a PEFT directory.
pub fn load(dir: &Path, model: &ModelConfig, dtype: DType, device: &Device) -> Result<LoadedAdapter, AdapterError> {
    let _ = (dir, model, dtype, device);
    todo!()
}

/// Writes a PEFT directory atomically (temporary directory beside it, then rename).
pub fn save(dir: &Path, config: &PeftConfig, weights: &AdapterWeights) -> Result<(), AdapterError> {
    let _ = (dir, config, weights);
    todo!()
}
