//! Where a decoder's tensors come from: safetensors shards on disk or in memory, or named tensors (training, tests).
//!
//! Base weights are memory-mapped; adapters are not read here.

use super::{Decoder, ModelConfig, ModelError};
use candle_core::safetensors::{BufferedSafetensors, MmapedSafetensors};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A supply of named tensors.
pub(super) trait Tensors {
    /// The tensor of this name, or an error that names it.
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError>;
}

impl Tensors for &HashMap<String, Tensor> {
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.get(name).cloned().ok_or_else(|| ModelError::MissingTensor(name.to_owned()))
    }
}

/// Tensors of safetensors files, cast to the compute type.
struct Files {
    shards: MmapedSafetensors,
    dtype: DType,
    device: Device,
}

impl Tensors for Files {
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.shards.get(name).map_err(|_| ModelError::MissingTensor(name.to_owned()))?;
        Ok(self.shards.load(name, &self.device)?.to_dtype(self.dtype)?)
    }
}

/// Tensors of one safetensors file in memory.
struct Bytes {
    file: BufferedSafetensors,
    dtype: DType,
    device: Device,
}

impl Tensors for Bytes {
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.file.get(name).map_err(|_| ModelError::MissingTensor(name.to_owned()))?;
        Ok(self.file.load(name, &self.device)?.to_dtype(self.dtype)?)
    }
}

/// An error unless the tensor has this shape.
pub(super) fn expect_shape(name: &str, tensor: &Tensor, expected: &[usize]) -> Result<(), ModelError> {
    match tensor.dims() == expected {
        true => Ok(()),
        false => {
            Err(ModelError::Shape { name: name.to_owned(), expected: expected.to_vec(), found: tensor.dims().to_vec() })
        }
    }
}

/// Reads `config.json` and the safetensors of a Hugging Face model directory. Compute dtype is `dtype`.
pub fn load_decoder(dir: &Path, dtype: DType, device: &Device) -> Result<Decoder, ModelError> {
    let config = load_config(dir)?;
    Decoder::load(config, &mut Files { shards: map(&shards(dir)?)?, dtype, device: device.clone() })
}

/// The same from the bytes of `config.json` and `model.safetensors`.
pub fn load_decoder_from_bytes(
    config: &[u8],
    weights: &[u8],
    dtype: DType,
    device: &Device,
) -> Result<Decoder, ModelError> {
    let json = serde_json::from_slice(config).map_err(|e| ModelError::Config(e.to_string()))?;
    let file = BufferedSafetensors::new(weights.to_vec())?;
    Decoder::load(ModelConfig::from_json(&json)?, &mut Bytes { file, dtype, device: device.clone() })
}

/// Reads `config.json` alone.
pub fn load_config(dir: &Path) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_json(&read_json(&dir.join("config.json"))?)
}

/// `model.safetensors`, or the files that `model.safetensors.index.json` lists.
fn shards(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        let single = dir.join("model.safetensors");
        let missing = "no model.safetensors and no model.safetensors.index.json beside it";
        return if single.exists() { Ok(vec![single]) } else { Err(file_error(&single, missing)) };
    }
    let json = read_json(&index)?;
    let Some(map) = json["weight_map"].as_object() else { return Err(file_error(&index, "`weight_map` is missing")) };
    let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
    names.into_iter().map(|name| shard(dir, name)).collect()
}

fn shard(dir: &Path, name: &str) -> Result<PathBuf, ModelError> {
    let path = dir.join(name);
    if name.contains(['/', '\\']) {
        return Err(file_error(&path, "a shard must lie in the model's directory"));
    }
    if path.exists() { Ok(path) } else { Err(file_error(&path, "the index lists this file, but it does not exist")) }
}

#[expect(unsafe_code, reason = "the base weights are memory-mapped so that loading does not double the memory")]
fn map(paths: &[PathBuf]) -> Result<MmapedSafetensors, ModelError> {
    // SAFETY: the operator must not truncate the base weights while the server runs; DESIGN keeps adapters, which do
    // change at run time, off the mapped path.
    unsafe { MmapedSafetensors::multi(paths) }.map_err(|e| {
        let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
        ModelError::File { path: names.join(", "), message: e.to_string() }
    })
}

fn read_json(path: &Path) -> Result<serde_json::Value, ModelError> {
    let bytes = std::fs::read(path).map_err(|e| file_error(path, &e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| file_error(path, &e.to_string()))
}

fn file_error(path: &Path, message: &str) -> ModelError {
    ModelError::File { path: path.display().to_string(), message: message.to_owned() }
}
