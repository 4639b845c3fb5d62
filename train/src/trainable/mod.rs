//! What is trained: a decoder whose named tensors (all, some, or an adapter's beside a frozen base) are variables.
//!
//! Knows no optimizer: values go in and gradients come out as flat f32 buffers in the order of [`Trainable::slots`].

pub mod factors;
mod gradients;
mod init;
mod positional;

pub use gradients::Gradients;

use crate::error::{Result, TrainError};
use crate::new_tokens::{self, NewTokens};
use crate::optim::Slot;
use crate::random;
use crate::recipe::{DeviceKind, Held, Method, Recipe, ShapeSection};
use callsmith::adapter::peft::{PROMPT_TENSOR, Table, TokenRows};
use callsmith::chat::tokenizer::ChatTokenizer;
use callsmith::model::config::{Family, RopeScaling};
use callsmith::model::{
    AdapterBatch, AdapterWeights, Checkpoint, Decoder, Dropout, ModelConfig, Recompute, decoder, weights,
};
use candle_core::{DType, Device, Tensor, TensorId, Var};
use factors::Factors;
use rand::RngExt;
use rayon::prelude::*;
use regex::RegexSet;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Below this many values a model's micro-batches run at once on a CPU, each on a thread: its own operations are too small to
/// keep several threads busy.
const SMALL_MODEL: usize = 64 << 20;

/// A decoder and the variables in it.
pub struct Trainable {
    pub decoder: Decoder,
    /// Name, shape and place of each variable.
    pub slots: Vec<Slot>,
    pub recompute: Recompute,
    vars: Vec<Var>,
    adapter: Option<Arc<AdapterWeights>>,
    /// Of what goes through the factors.
    dropout: f32,
    seed: u64,
    parallel: Option<usize>,
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
        let config = weights::load_config(dir)?;
        return NewTokens::of(recipe)?.map_or(Ok(config.clone()), |new| new.resize(config));
    }
    let shape = recipe.model.shape.as_ref().ok_or_else(|| TrainError::field("model", "give `path` or `shape`"))?;
    shape_config(shape, recipe.tokenizer_dir()?)
}

fn shape_config(shape: &ShapeSection, tokenizer_dir: &Path) -> Result<ModelConfig> {
    let least = new_tokens::tokenizer(tokenizer_dir)?.get_vocab_size(true);
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

impl Trainable {
    /// Builds what the recipe says, with its initial values.
    pub fn build(recipe: &Recipe, config: ModelConfig, device: &Device) -> Result<Self> {
        match recipe.method {
            Method::Full => Self::full(recipe, config, device),
            Method::Lora => Self::lora_on(recipe, frozen_base(recipe, device)?, &config, device),
            Method::Prompt => Self::prompt_on(recipe, frozen_base(recipe, device)?, &config, device),
        }
    }

    fn full(recipe: &Recipe, config: ModelConfig, device: &Device) -> Result<Self> {
        let (slots, frozen) = partition(recipe, &config)?;
        let (vars, mut tensors) = match &recipe.model.path {
            Some(dir) => {
                let stored = Checkpoint::open(dir)?;
                let new = NewTokens::of(recipe)?;
                let read = |name: &str| match &new {
                    Some(new) if Table::of_parameter(name).is_some() => {
                        new.extend(&init::read(&stored, name, recipe.dtype(), device)?)
                    }
                    _ => init::read(&stored, name, recipe.dtype(), device),
                };
                let vars: Vec<Var> =
                    slots.iter().map(|slot| Ok(Var::from_tensor(&read(&slot.name)?)?)).collect::<Result<_>>()?;
                let frozen: HashMap<_, _> =
                    frozen.into_iter().map(|name| Ok((name.clone(), read(&name)?))).collect::<Result<_>>()?;
                (vars, frozen)
            }
            None => (init::random(recipe, &config, &slots, device)?, HashMap::new()),
        };
        tensors.extend(named(&slots, &vars));
        Ok(Self::new(recipe, Decoder::from_tensors(config, &tensors)?, slots, vars))
    }

    /// LoRA factors beside a decoder in memory, which stays frozen.
    pub fn lora_on(recipe: &Recipe, decoder: Decoder, config: &ModelConfig, device: &Device) -> Result<Self> {
        let factors = Factors::of(recipe, config)?;
        let slots = factors.slots(config);
        let vars = init::factors(recipe.seed, &factors, &decoder, device)?;
        let tensors = named(&slots, &vars).collect();
        let adapter = factors.weights(config, &tensors)?;
        let decoder = match factors.token_rows(&tensors)? {
            Some(TokenRows { ids, embedding, head }) => decoder.with_token_rows(ids[0] as usize, embedding, head)?,
            None => decoder,
        };
        let dropout = factors.settings.dropout as f32;
        let trainable = Self::new(recipe, decoder, slots, vars);
        Ok(Self { adapter: Some(Arc::new(adapter)), dropout, ..trainable })
    }

    /// A soft prompt before a decoder in memory, which stays frozen.
    pub fn prompt_on(recipe: &Recipe, decoder: Decoder, config: &ModelConfig, device: &Device) -> Result<Self> {
        let slots = prompt_slots(recipe, config);
        let start = init::prompt(recipe, &decoder)?;
        let var = Var::from_tensor(&start.to_dtype(DType::F32)?.to_device(device)?)?;
        let adapter = AdapterWeights::empty(config.num_layers).with_prompt(var.as_tensor().clone());
        let trainable = Self::new(recipe, decoder, slots, vec![var]);
        Ok(Self { adapter: Some(Arc::new(adapter)), ..trainable })
    }

    fn new(recipe: &Recipe, decoder: Decoder, slots: Vec<Slot>, vars: Vec<Var>) -> Self {
        let (recompute, parallel) = (recipe.batch.recompute, recipe.batch.parallel);
        Self { decoder, slots, recompute, vars, adapter: None, dropout: 0.0, seed: recipe.seed, parallel }
    }

    /// The adapter that a pass over `rows` rows uses.
    pub fn adapters(&self, rows: usize) -> AdapterBatch {
        self.adapter.as_ref().map_or_else(AdapterBatch::none, |weights| AdapterBatch::uniform(rows, weights.clone()))
    }

    /// The same while training: with dropout that is a function of the seed, the step and the micro-batch alone.
    pub fn training_adapters(&self, rows: usize, (step, micro): (u64, usize)) -> AdapterBatch {
        let dropout = (self.dropout > 0.0).then(|| {
            let seed = random::stream(self.seed, &format!("dropout {micro}"), step).random();
            Dropout { share: self.dropout, seed }
        });
        self.adapters(rows).with_dropout(dropout)
    }

    /// The decoder and the adapter as the server would use them now, to be let go before they are trained further.
    pub fn serving(&self) -> Result<(Decoder, Option<Arc<AdapterWeights>>)> {
        let adapter = self.adapter.as_ref().map(|adapter| self.decoder.serving(adapter)).transpose()?;
        Ok((self.decoder.clone(), adapter.map(Arc::new)))
    }

    /// Micro-batches that are worked on at once.
    pub fn parallel_passes(&self) -> usize {
        let threads = rayon::current_num_threads();
        let small = || decoder::parameter_count(self.decoder.config()) < SMALL_MODEL;
        match self.parallel {
            Some(asked) => asked.min(threads),
            None if self.decoder.device().is_cpu() && small() => threads,
            None => 1,
        }
    }

    /// The place among the slots of each variable.
    fn places(&self) -> HashMap<TensorId, usize> {
        self.vars.iter().enumerate().map(|(place, var)| (var.as_tensor().id(), place)).collect()
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
            Ok(var.set(&tensor.to_dtype(var.dtype())?)?)
        })
    }
}

/// The base beside which an adapter is trained.
fn frozen_base(recipe: &Recipe, device: &Device) -> Result<Decoder> {
    let dir = recipe.model.path.as_deref();
    let stored =
        Checkpoint::open(dir.ok_or_else(|| TrainError::field("model.path", "an adapter needs a base model"))?)?;
    Ok(match recipe.model.weights {
        Held::F32 => stored.decoder(recipe.dtype(), device)?,
        packed => stored.frozen_decoder(packed.encoding(), recipe.dtype(), device)?,
    })
}

/// The trained tensor of a soft prompt.
fn prompt_slots(recipe: &Recipe, config: &ModelConfig) -> Vec<Slot> {
    Slot::layout([(PROMPT_TENSOR.to_owned(), vec![recipe.virtual_tokens(), config.hidden_size])])
}

/// The trained tensors of a recipe's run.
pub fn slots(recipe: &Recipe, config: &ModelConfig) -> Result<Vec<Slot>> {
    Ok(match recipe.method {
        Method::Full => partition(recipe, config)?.0,
        Method::Lora => Factors::of(recipe, config)?.slots(config),
        Method::Prompt => prompt_slots(recipe, config),
    })
}

/// The parameters that are trained, and the names of those that stay frozen.
pub fn partition(recipe: &Recipe, config: &ModelConfig) -> Result<(Vec<Slot>, Vec<String>)> {
    let shapes = decoder::parameter_shapes(config);
    let Some(section) = &recipe.full else { return Ok((Slot::layout(shapes), Vec::new())) };
    let wanted = RegexSet::new(section.train.iter().map(|pattern| format!(r"\A(?:{pattern})\z")));
    let wanted = wanted.map_err(|e| TrainError::field("full.train", e.to_string()))?;
    let (trained, frozen): (Vec<_>, Vec<_>) = shapes.into_iter().partition(|(name, _)| wanted.is_match(name));
    if trained.is_empty() {
        let known = "the names are those of the checkpoint, for example model\\.layers\\.(10|11)\\..*";
        return Err(TrainError::field("full.train", format!("selects no parameter; {known}")));
    }
    if let (false, Some((name, _))) =
        (recipe.new_tokens.is_empty(), frozen.iter().find(|(name, _)| Table::of_parameter(name).is_some()))
    {
        return Err(TrainError::field("full.train", format!("must select {name}, which gets rows for new tokens")));
    }
    Ok((Slot::layout(trained), frozen.into_iter().map(|(name, _)| name).collect()))
}

fn named<'a>(slots: &'a [Slot], vars: &'a [Var]) -> impl Iterator<Item = (String, Tensor)> + 'a {
    slots.iter().zip(vars).map(|(slot, var)| (slot.name.clone(), var.as_tensor().clone()))
}

fn flat(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()
}
