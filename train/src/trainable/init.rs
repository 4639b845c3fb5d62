//! Initial values: random by name and seed, or read from a model directory.

use super::factors::Factors;
use super::{flat, positional};
use crate::error::{Result, TrainError};
use crate::new_tokens;
use crate::optim::Slot;
use crate::random;
use crate::recipe::Recipe;
use callsmith::adapter::peft::{Factor, PROMPT_TENSOR, Table, parse_tensor_name};
use callsmith::model::{Checkpoint, Decoder, ModelConfig};
use candle_core::{DType, Device, Tensor, Var};
use rand::RngExt;

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
    let var = |slot: &Slot| {
        let tensor = Tensor::from_vec(values(slot), slot.shape.as_slice(), device)?;
        Ok(Var::from_tensor(&tensor.to_dtype(recipe.dtype())?)?)
    };
    slots.iter().map(var).collect()
}

/// LoRA factors: A uniform as PEFT does it (Kaiming with a = sqrt 5, that is within 1/sqrt(in)), B zero; DoRA's
/// magnitudes are the lengths that the base's rows have; new tokens' rows are means.
pub(super) fn factors(seed: u64, factors: &Factors, decoder: &Decoder, device: &Device) -> Result<Vec<Var>> {
    let values = |slot: &Slot| -> Result<Vec<f32>> {
        if let (Some(new), Some(table)) = (&factors.new_tokens, Table::of_rows(&slot.name)) {
            let rows = new.rows(|ids| {
                Ok(match table {
                    Table::Embedding => decoder.embeddings(ids)?,
                    Table::Head => decoder.head_rows(ids)?,
                })
            })?;
            return Ok(flat(&rows)?);
        }
        match parse_tensor_name(&slot.name) {
            Some((site, Factor::Magnitude)) => Ok(flat(&decoder.row_norms(site)?)?),
            Some((_, Factor::A)) => {
                let bound = 1.0 / (slot.shape[1] as f64).sqrt();
                Ok(random::uniform(&mut random::stream(seed, &slot.name, 0), slot.range.len(), bound))
            }
            _ => Ok(vec![0.0; slot.range.len()]),
        }
    };
    let var = |slot: &Slot| Ok(Var::from_vec(values(slot)?, slot.shape.as_slice(), device)?);
    factors.slots(decoder.config()).iter().map(var).collect()
}

/// A soft prompt's embeddings: those of its text's tokens, again and again, or of tokens drawn from the vocabulary (Lester et al.
/// 2021, section 3.2).
pub(super) fn prompt(recipe: &Recipe, decoder: &Decoder) -> Result<Tensor> {
    let tokenizer = new_tokens::tokenizer(recipe.tokenizer_dir()?)?;
    let wrong = |message: String| TrainError::field("prompt.text", message);
    let ids: Vec<u32> = match recipe.prompt.as_ref().and_then(|prompt| prompt.text.as_deref()) {
        Some(text) => {
            let encoding = tokenizer.encode(text, false).map_err(|e| wrong(e.to_string()))?;
            encoding.get_ids().iter().copied().cycle().take(recipe.virtual_tokens()).collect()
        }
        None => {
            let known = tokenizer.get_vocab_size(true).min(decoder.config().vocab_size) as u32;
            let mut stream = random::stream(recipe.seed, PROMPT_TENSOR, 0);
            (0..recipe.virtual_tokens()).map(|_| stream.random_range(0..known)).collect()
        }
    };
    if ids.is_empty() {
        return Err(wrong("has no token; write some words".to_owned()));
    }
    Ok(decoder.embeddings(&ids)?)
}

/// One parameter of a model directory, in the type that is computed with.
pub(super) fn read(stored: &Checkpoint<'_>, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(stored.tensor(name)?.to_dtype(dtype)?.to_device(device)?)
}
