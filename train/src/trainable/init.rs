//! Initial values: random by name and seed, or read from a model directory.

use super::positional;
use crate::error::{Result, TrainError};
use crate::optim::Slot;
use crate::random;
use crate::recipe::Recipe;
use callsmith::model::{ModelConfig, ModelError};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::HashMap;
use std::path::Path;

/// Random weights: normal, norms 1, biases 0; the projections back into the residual stream scaled by 1/sqrt(2·layers)
/// (Radford et al. 2019). A tensor's values depend on the seed and its name alone.
pub(super) fn random(recipe: &Recipe, config: &ModelConfig, slots: &[Slot], device: &Device) -> Result<Vec<Var>> {
    let residual = 1.0 / (2.0 * config.num_layers as f64).sqrt();
    let init = &recipe.init;
    let values = |slot: &Slot| {
        let std = match slot.name.as_str() {
            name if name.contains("norm") => return vec![1.0; slot.range.len()],
            name if init.positional_heads && name.ends_with("q_proj.bias") => return positional::queries(config),
            name if init.positional_heads && name.ends_with("k_proj.bias") => return positional::keys(config),
            name if name.ends_with(".bias") => return vec![0.0; slot.range.len()],
            name if name.contains("embed_tokens") => init.embedding_std,
            name if name.contains("o_proj") || name.contains("down_proj") => init.std * residual,
            _ => init.std,
        };
        random::normal(&mut random::stream(recipe.seed, &slot.name, 0), slot.range.len(), std)
    };
    slots.iter().map(|slot| Ok(Var::from_vec(values(slot), slot.shape.as_slice(), device)?)).collect()
}

/// LoRA factors: A uniform as PEFT does it (Kaiming with a = sqrt 5, that is within 1/sqrt(in)), B zero.
pub(super) fn factors(seed: u64, slots: &[Slot], device: &Device) -> Result<Vec<Var>> {
    let values = |slot: &Slot| {
        if slot.name.ends_with("lora_B.weight") {
            return vec![0.0; slot.range.len()];
        }
        let bound = 1.0 / (slot.shape[1] as f64).sqrt();
        random::uniform(&mut random::stream(seed, &slot.name, 0), slot.range.len(), bound)
    };
    slots.iter().map(|slot| Ok(Var::from_vec(values(slot), slot.shape.as_slice(), device)?)).collect()
}

/// All weights of a model directory, as f32.
pub(super) fn read(dir: &Path, slots: &[Slot], device: &Device) -> Result<Vec<Var>> {
    let tensors = read_shards(dir)?;
    let var = |slot: &Slot| {
        let tensor = tensors.get(&slot.name).ok_or_else(|| ModelError::MissingTensor(slot.name.clone()))?;
        if tensor.dims() != slot.shape.as_slice() {
            let (expected, found) = (slot.shape.clone(), tensor.dims().to_vec());
            return Err(ModelError::Shape { name: slot.name.clone(), expected, found }.into());
        }
        Ok(Var::from_tensor(&tensor.to_dtype(DType::F32)?.to_device(device)?.force_contiguous()?)?)
    };
    slots.iter().map(var).collect()
}

fn read_shards(dir: &Path) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    for entry in std::fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let path = entry.map_err(TrainError::io(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            tensors.extend(candle_core::safetensors::load(&path, &Device::Cpu)?);
        }
    }
    if tensors.is_empty() {
        return Err(TrainError::field("model.path", format!("{} holds no .safetensors file", dir.display())));
    }
    Ok(tensors)
}
