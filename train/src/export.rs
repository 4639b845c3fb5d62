//! From trained tensors to what the server loads: a Hugging Face model directory, or a PEFT adapter directory.

use crate::atomic;
use crate::checkpoint;
use crate::error::{Result, TrainError};
use crate::faults;
use crate::model_dir;
use crate::monitor;
use crate::optim::Slot;
use crate::own_tokenizer;
use crate::recipe::{Method, Recipe};
use crate::tensors::{self, Layout, Plan};
use crate::trainable;
use crate::trainable::factors::Factors;
use callsmith::adapter::peft::{self, PROMPT_TENSOR};
use callsmith::model::{Checkpoint, ModelConfig, ModelError};
use candle_core::{Device, Tensor};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

pub use crate::model_dir::Precision;

/// Writes `tensors` (by their names in checkpoints) to `target`, which appears whole or not at all.
///
/// # Errors
/// When a value is not finite, or files cannot be written.
pub fn write(
    recipe: &Recipe,
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    target: &Path,
    precision: Precision,
) -> Result<()> {
    faults::point("export").map_err(TrainError::io(target))?;
    match recipe.method {
        Method::Full => {
            let tensors = with_frozen(recipe, config, tensors)?;
            atomic::directory(target, |dir| {
                write_model(&recipe.full_tokenizer_dir()?, config, &tensors, dir, precision)
            })
        }
        Method::Lora => {
            let factors = Factors::of(recipe, config)?;
            let weights = factors.weights(config, tensors)?;
            match factors.token_rows(tensors)? {
                Some(rows) => {
                    let tokenizer = recipe.full_tokenizer_dir()?;
                    peft::save_with_tokens(target, &factors.settings, &weights, (&rows, &tokenizer))?;
                }
                None => peft::save_with_template(target, &factors.settings, &weights, template(recipe)?.as_deref())?,
            }
            Ok(())
        }
        Method::Prompt => {
            let missing = || ModelError::MissingTensor(PROMPT_TENSOR.to_owned());
            let (prompt, base) = (tensors.get(PROMPT_TENSOR).ok_or_else(missing)?, recipe.base_name());
            Ok(peft::save_prompt(target, prompt, base.as_deref(), template(recipe)?.as_deref())?)
        }
    }
}

/// The chat template that the adapter was trained with, where it is not the base's.
fn template(recipe: &Recipe) -> Result<Option<String>> {
    recipe.model.chat_template.as_ref().map(|_| own_tokenizer::template(recipe)).transpose()
}

/// The trained tensors and, from the base, those that stayed as they were.
fn with_frozen(
    recipe: &Recipe,
    config: &ModelConfig,
    trained: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = trained.clone();
    let (_, frozen) = trainable::partition(recipe, config)?;
    if let (Some(dir), false) = (&recipe.model.path, frozen.is_empty()) {
        let base = Checkpoint::open(dir)?;
        for name in frozen {
            let tensor = base.tensor(&name)?;
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

fn write_model(
    tokenizer_dir: &Path,
    config: &ModelConfig,
    values: &BTreeMap<String, Tensor>,
    dir: &Path,
    precision: Precision,
) -> Result<()> {
    let dtype: Dtype = precision.dtype().into();
    model_dir::write_config(dir, &config.to_json(), dtype)?;
    let plan = |(name, tensor): (&String, &Tensor)| Plan::new(name, Layout { dtype, shape: tensor.dims().to_vec() });
    let plans: Vec<Plan> = values.iter().map(plan).collect();
    tensors::write::sharded(dir, &plans, tensors::write::SHARD_BYTES, &mut |plan| {
        tensors::cast(&plan.name, &values[&plan.name], dtype)
    })?;
    model_dir::copy_tokenizer(tokenizer_dir, dir)
}

/// Exports the newest whole checkpoint of a run, which may still be going on. An adapter replaces an adapter that is at
/// `target`; a model replaces nothing.
///
/// # Errors
/// When the run holds no whole checkpoint, something else is at `target`, or files cannot be written.
pub fn from_run(run: &Path, target: &Path, precision: Precision) -> Result<()> {
    // The run may have been moved since.
    let recipe = Recipe { output: run.to_owned(), ..Recipe::load(&run.join("recipe.toml"), &[])? };
    if recipe.method == Method::Full {
        atomic::refuse_taken(target)?;
    }
    let config = trainable::model_config(&recipe)?;
    let slots = trainable::slots(&recipe, &config)?;
    let found = checkpoint::newest(run, &slots, monitor::note)?;
    let found = found.ok_or_else(|| TrainError::output(run, "holds no checkpoint to export"))?;
    let tensor = |slot: &Slot| {
        let tensor = Tensor::from_slice(&found.values[slot.range.clone()], slot.shape.as_slice(), &Device::Cpu)?;
        Ok((slot.name.clone(), tensor))
    };
    let tensors = slots.iter().map(tensor).collect::<Result<_>>()?;
    write(&recipe, &config, &tensors, target, precision)
}
