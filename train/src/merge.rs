//! `callsmith-train merge`: a base and LoRA adapters → one model without adapters, `W + Σ weight · scale · B A` (Hu et al. 2021).
//!
//! One tensor is in memory at a time, beside the adapters. What no adapter touches is copied byte for byte, also what no decoder
//! knows. An adapter is read and checked as the server does it, so what fits the server fits here.

use crate::atomic;
use crate::error::{Result, TrainError};
use crate::model_dir::{self, CHAT_TEMPLATE, Precision};
use crate::new_tokens::replace_rows;
use crate::tensors::{self, Layout, Plan, Raw, Weights};
use callsmith::adapter::peft::{self, Table, TokenRows};
use callsmith::model::{LoraPair, ModelConfig};
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An adapter and how much of it is merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// PEFT directory.
    pub adapter: PathBuf,
    /// Factor on all that the adapter adds; 1 is the adapter as it was trained.
    pub weight: f64,
}

impl FromStr for Share {
    type Err = String;

    /// `DIR` or `DIR:WEIGHT`. A colon that no number follows belongs to the directory.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.rsplit_once(':').and_then(|(dir, weight)| Some((dir, weight.parse::<f64>().ok()?)));
        match number {
            None if text.is_empty() => Err("expected DIR or DIR:WEIGHT".to_owned()),
            None => Ok(Self { adapter: text.into(), weight: 1.0 }),
            Some((dir, weight)) if weight.is_finite() && !dir.is_empty() => Ok(Self { adapter: dir.into(), weight }),
            Some(_) => Err("expected DIR:WEIGHT with a finite number as WEIGHT".to_owned()),
        }
    }
}

/// How the merged model is stored.
#[derive(Debug, Clone, Copy)]
pub struct Storage {
    /// The type of the decoder's tensors; as the base stores each when absent.
    pub precision: Option<Precision>,
    /// Largest file in bytes.
    pub shard_bytes: u64,
}

/// Writes `base` with `shares` merged into it as a Hugging Face model directory, whole or not at all.
///
/// # Errors
/// When the base is no such directory, an adapter does not fit it or has no weights, a merged value is not finite in the wanted type, `out` is there
/// already, or files cannot be read or written.
pub fn run(base: &Path, shares: &[Share], out: &Path, storage: Storage) -> Result<()> {
    let (json, config) = model_dir::read_config(base)?;
    let weights = Weights::open(base)?;
    let known = model_dir::check_weights(&weights, &config)?;
    let additions = Additions::load(shares, &config)?;
    let layout = |name: &str, layout: &Layout| {
        let precision = storage.precision.filter(|_| known.contains(name));
        let dtype = precision.map_or(layout.dtype, |precision| precision.dtype().into());
        Layout { dtype, shape: additions.shape(name, &layout.shape) }
    };
    let plan = |name: &str| Some(Plan::new(name, layout(name, weights.layout(name)?)));
    let plans: Vec<Plan> = weights.names().filter_map(plan).collect();
    atomic::new_directory(out, |dir| {
        model_dir::write_config(dir, &additions.resize(json), main_dtype(&plans))?;
        model_dir::copy_tokenizer(base, dir)?;
        if let Some(New { adapter, .. }) = &additions.new {
            model_dir::copy_tokenizer(adapter, dir)?;
        }
        if let Some((_, template)) = &additions.template {
            atomic::file(&dir.join(CHAT_TEMPLATE), template.as_bytes())?;
        }
        tensors::write::sharded(dir, &plans, storage.shard_bytes, &mut |plan| {
            additions.apply(&plan.name, weights.read(&plan.name)?, plan.layout.dtype)
        })
    })
}

/// The type that `config.json` names: the embedding's.
fn main_dtype(plans: &[Plan]) -> Dtype {
    let embedding = plans.iter().find(|plan| plan.name == "model.embed_tokens.weight");
    embedding.map_or(Dtype::F32, |plan| plan.layout.dtype)
}

/// What all adapters add.
struct Additions {
    /// By the name of the tensor that it is added to.
    factors: HashMap<String, Vec<(LoraPair, f64)>>,
    new: Option<New>,
    /// An adapter with a chat template of its own, and the template: the model speaks as the adapter did.
    template: Option<(PathBuf, String)>,
}

/// An adapter's rows for tokens, and the size of the tables with them.
struct New {
    rows: TokenRows,
    tied: bool,
    vocab_size: usize,
    /// Where its tokenizer is.
    adapter: PathBuf,
}

impl New {
    fn of(rows: TokenRows, share: &Share, config: &ModelConfig) -> Result<Self> {
        let wrong = |message: &str| Err(TrainError::input(&share.adapter, message));
        if share.weight != 1.0 {
            return wrong("has tokens of its own, of which there is no part: give no weight");
        }
        let size = rows.ids.iter().map(|&id| id as usize + 1).max().unwrap_or(0).max(config.vocab_size);
        if size > config.vocab_size && rows.head.is_none() && !config.tie_word_embeddings {
            return wrong(
                "adds tokens without rows of lm_head; train them with trainable_token_indices of both tables",
            );
        }
        let tied = config.tie_word_embeddings;
        Ok(Self { rows, tied, vocab_size: size, adapter: share.adapter.clone() })
    }

    /// The rows for the tensor of this name.
    fn rows(&self, name: &str) -> Option<&Tensor> {
        match Table::of_parameter(name)? {
            Table::Head if !self.tied => self.rows.head.as_ref(),
            // Some files of tied models have the table twice.
            Table::Head | Table::Embedding => Some(&self.rows.embedding),
        }
    }
}

impl Additions {
    fn load(shares: &[Share], config: &ModelConfig) -> Result<Self> {
        let mut all = Self { factors: HashMap::new(), new: None, template: None };
        for share @ Share { adapter, weight } in shares {
            let loaded = peft::load(adapter, config, DType::F32, &Device::Cpu);
            let loaded = loaded.map_err(|error| TrainError::input(adapter, error.to_string()))?;
            if loaded.weights.virtual_tokens() > 0 {
                let message = "is a soft prompt, which changes no weights and cannot be merged; serve it as an adapter";
                return Err(TrainError::input(adapter, message));
            }
            for (site, pair) in loaded.weights.iter() {
                let name = format!("model.layers.{}.{}.weight", site.layer, site.module.path());
                all.factors.entry(name).or_default().push((pair.clone(), *weight));
            }
            if let Some(template) = loaded.chat_template {
                all.speak(adapter, template)?;
            }
            if let Some(rows) = loaded.tokens {
                if all.new.is_some() {
                    let message = "has tokens of its own, and so has another one; merge them one after the other";
                    return Err(TrainError::input(adapter, message));
                }
                all.new = Some(New::of(rows, share, config)?);
            }
        }
        Ok(all)
    }

    fn speak(&mut self, adapter: &Path, template: String) -> Result<()> {
        match &self.template {
            Some((other, known)) if *known != template => {
                let message = format!(
                    "has another {CHAT_TEMPLATE} than {}, and a model has one; give both the same",
                    other.display()
                );
                Err(TrainError::input(adapter, message))
            }
            _ => {
                self.template = Some((adapter.to_owned(), template));
                Ok(())
            }
        }
    }

    /// The shape that a tensor gets.
    fn shape(&self, name: &str, shape: &[usize]) -> Vec<usize> {
        match (&self.new, shape) {
            (Some(new), [_, width]) if new.rows(name).is_some() => vec![new.vocab_size, *width],
            _ => shape.to_vec(),
        }
    }

    /// `config.json` for the size of the tables.
    fn resize(&self, mut config: Value) -> Value {
        if let Some(new) = &self.new {
            config["vocab_size"] = new.vocab_size.into();
        }
        config
    }

    /// The bytes of a tensor with what adapters add to it.
    fn apply(&self, name: &str, base: Raw, dtype: Dtype) -> Result<Vec<u8>> {
        if let Some((new, rows)) = self.new.as_ref().and_then(|new| Some((new, new.rows(name)?))) {
            return tensors::cast(
                name,
                &replace_rows(&base.tensor()?.to_dtype(DType::F32)?, &new.rows.ids, rows)?,
                dtype,
            );
        }
        let Some(pairs) = self.factors.get(name) else { return base.into_bytes(name, dtype) };
        let base = base.tensor()?.to_dtype(DType::F32)?;
        let mut merged = base.clone();
        for (pair, weight) in pairs {
            merged = (merged + (delta(&base, pair)? * *weight)?)?;
        }
        tensors::cast(name, &merged, dtype)
    }
}

/// What one adapter adds to one layer, `[out, in]` in f32: `scale · B A`, or with DoRA what makes each row of the sum as long
/// as it was trained to be.
fn delta(base: &Tensor, pair: &LoraPair) -> candle_core::Result<Tensor> {
    let product = (pair.b.matmul(&pair.a)? * pair.scale)?;
    let Some(magnitude) = &pair.magnitude else { return Ok(product) };
    let sum = (base + product)?;
    let ratio = (magnitude.tensor() / sum.sqr()?.sum(1)?.sqrt()?)?;
    sum.broadcast_mul(&ratio.unsqueeze(1)?)? - base
}
