//! From trained tensors to what the server loads: a Hugging Face model directory, or a PEFT adapter directory.

use crate::atomic;
use crate::checkpoint;
use crate::error::{Result, TrainError};
use crate::optim::Slot;
use crate::progress;
use crate::recipe::{Method, Recipe};
use crate::trainable;
use crate::trainable::factors::Factors;
use callsmith::adapter::peft;
use callsmith::model::{Checkpoint, ModelConfig};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// Files that belong to a tokenizer.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// How values are stored in a model directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }
}

/// Writes `tensors` (by their names in checkpoints) to `target`, which appears whole or not at all.
pub fn write(
    recipe: &Recipe,
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    target: &Path,
    precision: Precision,
) -> Result<()> {
    check_finite(tensors)?;
    match recipe.method {
        Method::Full => {
            let tensors = with_frozen(recipe, config, tensors)?;
            atomic::directory(target, |dir| write_model(recipe.tokenizer_dir()?, config, &tensors, dir, precision))
        }
        Method::Lora => {
            let factors = Factors::of(recipe, config)?;
            Ok(peft::save(target, &factors.settings, &factors.weights(config, tensors)?)?)
        }
    }
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

fn check_finite(tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in tensors {
        let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(TrainError::Data(format!("not exported: `{name}` holds values that are not finite")));
        }
    }
    Ok(())
}

fn write_model(
    tokenizer_dir: &Path,
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    dir: &Path,
    precision: Precision,
) -> Result<()> {
    let mut json = config.to_json();
    json["torch_dtype"] = precision.name().into();
    let text = serde_json::to_vec_pretty(&json).map_err(|e| TrainError::output(dir, e.to_string()))?;
    atomic::file(&dir.join("config.json"), &text)?;
    let cast = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_dtype(precision.dtype())?));
    let tensors: HashMap<_, _> = tensors.iter().map(cast).collect::<Result<_>>()?;
    let path = dir.join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path)?;
    // The writer above makes a file that others cannot read.
    let readable = fs::metadata(dir.join("config.json")).map(|config| config.permissions());
    readable.and_then(|mode| fs::set_permissions(&path, mode)).map_err(TrainError::io(&path))?;
    fs::File::open(&path).and_then(|file| file.sync_all()).map_err(TrainError::io(&path))?;
    for name in TOKENIZER_FILES {
        let from = tokenizer_dir.join(name);
        if from.exists() {
            atomic::file(&dir.join(name), &fs::read(&from).map_err(TrainError::io(&from))?)?;
        }
    }
    Ok(())
}

/// Exports the newest whole checkpoint of a run.
pub fn from_run(run: &Path, target: &Path, precision: Precision) -> Result<()> {
    let recipe = Recipe::load(&run.join("recipe.toml"), &[])?;
    let config = trainable::model_config(&recipe)?;
    let slots = match recipe.method {
        Method::Full => trainable::partition(&recipe, &config)?.0,
        Method::Lora => Factors::of(&recipe, &config)?.slots(&config),
    };
    let found = checkpoint::newest(run, &slots, progress::note)?;
    let found = found.ok_or_else(|| TrainError::output(run, "holds no checkpoint to export"))?;
    let tensor = |slot: &Slot| {
        let tensor = Tensor::from_slice(&found.values[slot.range.clone()], slot.shape.as_slice(), &Device::Cpu)?;
        Ok((slot.name.clone(), tensor))
    };
    let tensors = slots.iter().map(tensor).collect::<Result<_>>()?;
    write(&recipe, &config, &tensors, target, precision)
}
