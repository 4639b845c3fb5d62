//! Where a decoder's tensors come from: safetensors on disk or in memory, a GGUF file, or named tensors (training, tests).
//!
//! Base weights are memory-mapped; adapters are not read here.

use super::gguf::{self, Encoding};
use super::stored::{Source, Stored};
use super::weight::Weight;
use super::{Decoder, ModelConfig, ModelError, Site};
use candle_core::quantized::GgmlDType;
use candle_core::safetensors::{MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, tensor::TensorView};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A supply of named tensors.
pub(super) trait Tensors {
    /// The tensor of this name, or an error that names it.
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError>;

    /// A matrix, held as this supply holds matrices.
    fn matrix(&mut self, name: &str) -> Result<Weight, ModelError> {
        self.take(name).map(Weight::Dense)
    }
}

impl Tensors for &HashMap<String, Tensor> {
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.get(name).cloned().ok_or_else(|| ModelError::MissingTensor(name.to_owned()))
    }
}

/// Stored tensors, cast to the compute type.
struct Cast<'a> {
    source: &'a dyn Source,
    dtype: DType,
    device: &'a Device,
}

impl Tensors for Cast<'_> {
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.source.stored(name)?.tensor(self.dtype, self.device)
    }
}

/// Stored tensors whose matrices stay packed.
struct Packed<'a> {
    cast: Cast<'a>,
    encoding: Encoding,
}

impl Tensors for Packed<'_> {
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.cast.take(name)
    }

    fn matrix(&mut self, name: &str) -> Result<Weight, ModelError> {
        Weight::pack(&self.cast.source.stored(name)?, self.encoding, self.cast.dtype, self.cast.device)
    }
}

impl Source for MmapedSafetensors {
    fn stored(&self, name: &str) -> Result<Stored<'_>, ModelError> {
        let view = self.get(name).map_err(|_| ModelError::MissingTensor(name.to_owned()))?;
        Ok(Stored { mapped: true, ..stored(name, &view)? })
    }
}

impl Source for SliceSafetensors<'_> {
    fn stored(&self, name: &str) -> Result<Stored<'_>, ModelError> {
        stored(name, &self.get(name).map_err(|_| ModelError::MissingTensor(name.to_owned()))?)
    }
}

impl Source for HashMap<String, Tensor> {
    fn stored(&self, name: &str) -> Result<Stored<'_>, ModelError> {
        let tensor = self.get(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        let bytes = Cow::Owned(values.into_iter().flat_map(f32::to_le_bytes).collect());
        Ok(Stored { encoding: GgmlDType::F32, shape: tensor.dims().to_vec(), bytes, mapped: false })
    }
}

fn stored<'a>(name: &str, view: &TensorView<'a>) -> Result<Stored<'a>, ModelError> {
    let encoding = match view.dtype() {
        Dtype::F32 => GgmlDType::F32,
        Dtype::F16 => GgmlDType::F16,
        Dtype::BF16 => GgmlDType::BF16,
        other => return Err(ModelError::Encoding { name: name.to_owned(), found: format!("{other:?}") }),
    };
    Ok(Stored { encoding, shape: view.shape().to_vec(), bytes: Cow::Borrowed(view.data()), mapped: false })
}

/// The shape of a model and its weights, still in their files.
pub struct Checkpoint<'a> {
    config: ModelConfig,
    source: Box<dyn Source + 'a>,
}

impl<'a> Checkpoint<'a> {
    /// A Hugging Face model directory (`config.json` and safetensors), or a GGUF file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            let (config, source) = gguf::open(path)?;
            return Ok(Self { config, source: Box::new(source) });
        }
        Ok(Self { config: load_config(path)?, source: Box::new(map(&shards(path)?)?) })
    }

    /// The same from the bytes of `config.json` and `model.safetensors`.
    pub fn from_bytes(config: &[u8], weights: &'a [u8]) -> Result<Self, ModelError> {
        let json = serde_json::from_slice(config).map_err(|e| ModelError::Config(e.to_string()))?;
        Ok(Self { config: ModelConfig::from_json(&json)?, source: Box::new(SliceSafetensors::new(weights)?) })
    }

    /// A model in memory, by the Hugging Face names of its tensors.
    pub fn from_tensors(config: ModelConfig, tensors: HashMap<String, Tensor>) -> Self {
        Self { config, source: Box::new(tensors) }
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn source(&self) -> &(dyn Source + 'a) {
        &*self.source
    }

    /// One tensor by its Hugging Face name, decoded to f32 on the CPU.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        self.source.stored(name)?.tensor(DType::F32, &Device::Cpu)
    }

    /// A site's matrix in f32 on the CPU.
    pub(super) fn matrix(&self, site: Site) -> Result<Weight, ModelError> {
        self.tensor(&format!("model.layers.{}.{}.weight", site.layer, site.module.path())).map(Weight::Dense)
    }

    /// The decoder with its weights in `dtype`.
    pub fn decoder(&self, dtype: DType, device: &Device) -> Result<Decoder, ModelError> {
        Decoder::load(self.config.clone(), &mut Cast { source: self.source.as_ref(), dtype, device })
    }

    /// The decoder with frozen matrices that are held in `encoding` and computed with in `dtype`.
    pub fn frozen_decoder(&self, encoding: Encoding, dtype: DType, device: &Device) -> Result<Decoder, ModelError> {
        let cast = Cast { source: self.source.as_ref(), dtype, device };
        Decoder::load(self.config.clone(), &mut Packed { cast, encoding })
    }
}

/// An error unless the tensor has this shape.
pub(super) fn expect_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<(), ModelError> {
    match found == expected {
        true => Ok(()),
        false => Err(ModelError::Shape { name: name.to_owned(), expected: expected.to_vec(), found: found.to_vec() }),
    }
}

/// Reads a Hugging Face model directory or a GGUF file. Compute dtype is `dtype`.
pub fn load_decoder(path: &Path, dtype: DType, device: &Device) -> Result<Decoder, ModelError> {
    Checkpoint::open(path)?.decoder(dtype, device)
}

/// Reads the shape alone: `config.json` of a directory, or a GGUF file's metadata.
pub fn load_config(path: &Path) -> Result<ModelConfig, ModelError> {
    if path.is_file() {
        return gguf::config(path);
    }
    ModelConfig::from_json(&read_json(&path.join("config.json"))?)
}

/// The files with a model directory's weights: `model.safetensors`, or what `model.safetensors.index.json` lists.
///
/// # Errors
/// When there are none, or the index names one that is absent or lies elsewhere.
pub fn shards(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
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
