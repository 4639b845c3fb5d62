//! What is trained: a decoder whose named tensors (all of them, or LoRA factors beside a frozen base) are variables.
//!
//! Knows no optimizer: values go in and gradients come out as flat f32 buffers in the order of [`Trainable::slots`].

mod init;
mod positional;

use crate::error::{Result, TrainError};
use crate::optim::Slot;
use crate::recipe::{DeviceKind, Method, Recipe, ShapeSection};
use callsmith::adapter::peft::PeftConfig;
use callsmith::chat::tokenizer::ChatTokenizer;
use callsmith::model::config::{Family, RopeScaling};
use callsmith::model::{
    AdapterBatch, AdapterWeights, Decoder, LoraPair, ModelConfig, ModelError, Site, decoder, weights,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// A decoder and the variables in it.
pub struct Trainable {
    pub decoder: Decoder,
    /// Name, shape and place of each variable.
    pub slots: Vec<Slot>,
    vars: Vec<Var>,
    adapter: Option<Arc<AdapterWeights>>,
}

/// The device a recipe asks for.
pub fn device(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu => Ok(Device::Cpu),
        DeviceKind::Cuda => Device::new_cuda(0).map_err(|e| {
            TrainError::field(
                "device",
                format!("{e}; build with --features cuda on a machine with an NVIDIA GPU, or set device = \"cpu\""),
            )
        }),
    }
}

/// The decoder's shape that a recipe describes.
pub fn model_config(recipe: &Recipe) -> Result<ModelConfig> {
    if let Some(dir) = &recipe.model.path {
        return Ok(weights::load_config(dir)?);
    }
    let shape = recipe.model.shape.as_ref().ok_or_else(|| TrainError::field("model", "give `path` or `shape`"))?;
    shape_config(shape, recipe.tokenizer_dir()?)
}

fn shape_config(shape: &ShapeSection, tokenizer_dir: &Path) -> Result<ModelConfig> {
    let path = tokenizer_dir.join("tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(&path)
        .map_err(|e| TrainError::field("model.tokenizer", format!("{}: {e}", path.display())))?;
    let least = tokenizer.get_vocab_size(true);
    let vocab_size = shape.vocab_size.unwrap_or(least);
    if vocab_size < least {
        return Err(TrainError::field("model.shape.vocab_size", format!("must be at least the tokenizer's {least}")));
    }
    let eos_token_ids = ChatTokenizer::load(tokenizer_dir, vocab_size)?.eos_token_ids().to_vec();
    let family = match (shape.qk_norm, shape.attention_bias) {
        (true, _) => Family::Qwen3,
        (false, true) => Family::Qwen2,
        (false, false) => Family::Llama,
    };
    Ok(ModelConfig {
        family,
        vocab_size,
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        num_layers: shape.num_hidden_layers,
        num_heads: shape.num_attention_heads,
        num_kv_heads: shape.num_key_value_heads,
        head_dim: shape.head_dim.unwrap_or(shape.hidden_size / shape.num_attention_heads),
        rms_norm_eps: shape.rms_norm_eps,
        rope_theta: shape.rope_theta,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: shape.max_position_embeddings,
        sliding_window: None,
        tie_word_embeddings: shape.tie_word_embeddings,
        eos_token_ids,
    })
}

/// Settings and target sites of the adapter that a recipe describes.
pub fn peft_config(recipe: &Recipe) -> Result<PeftConfig> {
    let lora = recipe.lora.as_ref().ok_or_else(|| TrainError::field("lora", "is missing"))?;
    Ok(PeftConfig {
        rank: lora.rank,
        alpha: lora.alpha,
        use_rslora: lora.rslora,
        dropout: lora.dropout,
        target_modules: crate::recipe::validate::targets(&lora.target_modules)?,
        base_model: recipe.model.path.as_ref().map(|path| path.display().to_string()),
    })
}

/// PEFT's names of the two factors of a site.
fn factor_names(site: Site) -> [String; 2] {
    let path = format!("base_model.model.model.layers.{}.{}", site.layer, site.module.path());
    [format!("{path}.lora_A.weight"), format!("{path}.lora_B.weight")]
}

fn sites(config: &ModelConfig, peft: &PeftConfig) -> Vec<Site> {
    let modules = peft.target_modules.clone();
    (0..config.num_layers)
        .flat_map(|layer| modules.clone().into_iter().map(move |module| Site { layer, module }))
        .collect()
}

/// The factors of an adapter, from tensors by their PEFT names.
pub fn adapter_weights(
    config: &ModelConfig,
    peft: &PeftConfig,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<AdapterWeights> {
    let rank = peft.rank as f64;
    let scale = peft.alpha / if peft.use_rslora { rank.sqrt() } else { rank };
    let find = |name: &String| tensors.get(name).cloned().ok_or_else(|| ModelError::MissingTensor(name.clone()));
    let mut weights = AdapterWeights::empty(config.num_layers);
    for site in sites(config, peft) {
        let [a, b] = factor_names(site);
        weights.insert(site, LoraPair { a: find(&a)?, b: find(&b)?, scale });
    }
    Ok(weights)
}

/// Names and shapes of all factors of an adapter.
pub fn factor_slots(config: &ModelConfig, peft: &PeftConfig) -> Result<Vec<Slot>> {
    let shapes: HashMap<_, _> = decoder::parameter_shapes(config).into_iter().collect();
    let mut tensors = Vec::new();
    for site in sites(config, peft) {
        let base = format!("model.layers.{}.{}.weight", site.layer, site.module.path());
        let shape = shapes.get(&base).ok_or(ModelError::MissingTensor(base))?;
        let [a, b] = factor_names(site);
        tensors.extend([(a, vec![peft.rank, shape[1]]), (b, vec![shape[0], peft.rank])]);
    }
    Ok(Slot::layout(tensors))
}

impl Trainable {
    /// Builds what the recipe says, with its initial values.
    pub fn build(recipe: &Recipe, config: ModelConfig, device: &Device) -> Result<Self> {
        match recipe.method {
            Method::Full => Self::full(recipe, config, device),
            Method::Lora => Self::lora(recipe, &config, device),
        }
    }

    fn full(recipe: &Recipe, config: ModelConfig, device: &Device) -> Result<Self> {
        let slots = Slot::layout(decoder::parameter_shapes(&config));
        let vars = match &recipe.model.path {
            Some(dir) => init::read(dir, &slots, device)?,
            None => init::random(recipe, &config, &slots, device)?,
        };
        let tensors: HashMap<_, _> = named(&slots, &vars).collect();
        Ok(Self { decoder: Decoder::from_tensors(config, &tensors)?, slots, vars, adapter: None })
    }

    fn lora(recipe: &Recipe, config: &ModelConfig, device: &Device) -> Result<Self> {
        let dir =
            recipe.model.path.as_deref().ok_or_else(|| TrainError::field("model.path", "LoRA needs a base model"))?;
        let decoder = weights::load_decoder(dir, DType::F32, device)?;
        Self::lora_on(recipe, decoder, config, device)
    }

    /// LoRA factors beside a decoder in memory, which stays frozen.
    pub fn lora_on(recipe: &Recipe, decoder: Decoder, config: &ModelConfig, device: &Device) -> Result<Self> {
        let peft = peft_config(recipe)?;
        let slots = factor_slots(config, &peft)?;
        let vars = init::factors(recipe.seed, &slots, device)?;
        let adapter = adapter_weights(config, &peft, &named(&slots, &vars).collect())?;
        Ok(Self { decoder, slots, vars, adapter: Some(Arc::new(adapter)) })
    }

    /// The adapter that a pass over `rows` rows uses.
    pub fn adapters(&self, rows: usize) -> AdapterBatch {
        self.adapter.as_ref().map_or_else(AdapterBatch::none, |weights| AdapterBatch::uniform(rows, weights.clone()))
    }

    /// Whether the weights are in main memory.
    pub fn on_cpu(&self) -> bool {
        self.decoder.device().is_cpu()
    }

    /// Number of trained values.
    pub fn count(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.range.end)
    }

    /// The trained tensors by name.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        named(&self.slots, &self.vars).collect()
    }

    /// Reads all values.
    pub fn values(&self) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(self.count());
        for var in &self.vars {
            values.extend(flat(var.as_tensor())?);
        }
        Ok(values)
    }

    /// Overwrites all values.
    pub fn set_values(&self, values: &[f32]) -> Result<()> {
        self.slots.par_iter().zip(&self.vars).try_for_each(|(slot, var)| {
            let tensor = Tensor::from_slice(&values[slot.range.clone()], slot.shape.as_slice(), var.device())?;
            Ok(var.set(&tensor)?)
        })
    }
}

fn named<'a>(slots: &'a [Slot], vars: &'a [Var]) -> impl Iterator<Item = (String, Tensor)> + 'a {
    slots.iter().zip(vars).map(|(slot, var)| (slot.name.clone(), var.as_tensor().clone()))
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}

/// The gradient of one step, summed over its micro-batches.
pub struct Gradients {
    pub values: Vec<f32>,
    /// Whether each slot was reached.
    present: Vec<bool>,
}

impl Gradients {
    /// Zero gradients for all slots.
    pub fn new(trainable: &Trainable) -> Self {
        Self { values: vec![0.0; trainable.count()], present: vec![false; trainable.slots.len()] }
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        self.values.fill(0.0);
        self.present.fill(false);
    }

    /// Adds what one backward pass found.
    pub fn add(&mut self, trainable: &Trainable, found: &GradStore) -> Result<()> {
        let mut rest = self.values.as_mut_slice();
        let mut sums = Vec::with_capacity(trainable.slots.len());
        for slot in &trainable.slots {
            let (sum, tail) = rest.split_at_mut(slot.range.len());
            sums.push(sum);
            rest = tail;
        }
        sums.into_par_iter().zip(&trainable.vars).zip(&mut self.present).try_for_each(|((sum, var), present)| {
            if let Some(gradient) = found.get(var.as_tensor()) {
                *present = true;
                sum.iter_mut().zip(flat(gradient)?).for_each(|(sum, gradient)| *sum += gradient);
            }
            Ok(())
        })
    }

    /// At the first step every variable must have been reached. A LoRA A factor's gradient is exactly zero then,
    /// because B is zero: it only has to be present.
    pub fn check_reached(&self, trainable: &Trainable) -> Result<()> {
        for (slot, &present) in trainable.slots.iter().zip(&self.present) {
            let zero = self.values[slot.range.clone()].iter().all(|&value| value == 0.0);
            let reason = match (present, zero) {
                (false, _) => "it is not part of the loss",
                (true, true) if !slot.name.ends_with("lora_A.weight") => "all of it is zero",
                _ => continue,
            };
            return Err(TrainError::NoGradient { tensor: slot.name.clone(), reason });
        }
        Ok(())
    }
}
