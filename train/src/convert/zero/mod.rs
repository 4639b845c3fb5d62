//! A DeepSpeed ZeRO checkpoint (stages 1, 2 and 3) → the weights in f32, without DeepSpeed.
//!
//! The masters in f32 lie in the optimizer's states, flat and divided among the ranks; the names and shapes in the model's
//! (`states`). `assemble` finds out of which pieces each tensor is made; here they are put together, one tensor in memory at a
//! time. Layout: DeepSpeed's `runtime/zero/{stage_1_and_2,stage3}.py` and `runtime/engine.py`.

mod assemble;
mod states;

use crate::atomic;
use crate::error::{Result, TrainError};
use crate::model_dir;
use crate::tensors::{self, Layout, Plan, Raw};
use assemble::{Assembled, assemble};
use callsmith::model::{ModelConfig, ModelError, decoder};
use safetensors::Dtype;
use states::States;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What one file of weights is called.
const EXTENSION: &str = "safetensors";

/// Writes the weights of the checkpoint `tag` in `from` (the one that `latest` names when absent): to one file when `out` ends in
/// `.safetensors`, else to a Hugging Face directory, for which `from` must hold `config.json`. It appears whole or not at all.
///
/// # Errors
/// When the checkpoint is damaged, incomplete, or of another kind; when its tensors are not those of `config.json`'s decoder; or
/// when `out` cannot be written.
pub fn to_hf(from: &Path, tag: Option<&str>, out: &Path) -> Result<()> {
    let states = States::open(&folder(from, tag)?)?;
    let tensors = assemble(&states)?;
    let plans: Vec<Plan> = tensors.iter().map(|(name, tensor)| Plan::new(name, layout(tensor))).collect();
    let mut values = |plan: &Plan| read(plan, &tensors[&plan.name]);
    if out.extension().is_some_and(|extension| extension == EXTENSION) {
        return tensors::write::file(out, &plans, &mut values);
    }
    let (json, config) = model_dir::read_config(from)?;
    check(&config, &tensors)?;
    atomic::new_directory(out, |dir| {
        model_dir::write_config(dir, &json, Dtype::F32)?;
        model_dir::copy_tokenizer(from, dir)?;
        tensors::write::sharded(dir, &plans, tensors::write::SHARD_BYTES, &mut values)
    })
}

/// The folder of one step.
fn folder(from: &Path, tag: Option<&str>) -> Result<PathBuf> {
    let path = from.join("latest");
    let tag = match tag {
        Some(tag) => tag.to_owned(),
        None => fs::read_to_string(&path)
            .map_err(|error| TrainError::input(&path, format!("{error}; name the checkpoint with --tag")))?,
    };
    let tag = tag.trim();
    let folder = from.join(tag);
    match folder.is_dir() && !tag.is_empty() && !tag.contains(['/', '\\']) && tag != ".." {
        true => Ok(folder),
        false => Err(TrainError::input(from, format!("holds no checkpoint `{tag}`; name another with --tag"))),
    }
}

/// Floats become f32, whatever they were.
fn layout(tensor: &Assembled<'_>) -> Layout {
    let dtype = if tensor.layout.is_float() { Dtype::F32 } else { tensor.layout.dtype };
    Layout { dtype, ..tensor.layout.clone() }
}

fn read(plan: &Plan, tensor: &Assembled<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(tensor.layout.bytes().unwrap_or_default());
    for piece in &tensor.pieces {
        bytes.extend(piece.file.read_values(&piece.tensor, piece.values.clone())?);
    }
    Raw { layout: tensor.layout.clone(), bytes }.into_bytes(&plan.name, plan.layout.dtype)
}

/// An error unless the tensors are the decoder's.
fn check(config: &ModelConfig, tensors: &BTreeMap<String, Assembled<'_>>) -> Result<()> {
    for (name, expected) in decoder::parameter_shapes(config) {
        let Some(tensor) = tensors.get(&name) else {
            let message =
                format!("tensor `{name}` of config.json's model is not in it; name a .{EXTENSION} file as --out");
            return Err(TrainError::Data(format!("the checkpoint: {message}")));
        };
        let found = &tensor.layout.shape;
        if *found != expected {
            return Err(ModelError::Shape { name, expected, found: found.clone() }.into());
        }
    }
    Ok(())
}
