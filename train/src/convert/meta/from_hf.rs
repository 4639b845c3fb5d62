//! A Hugging Face directory → Meta's checkpoint.

use super::names::{self, EMBEDDING, HEAD, Named, is_derived};
use super::params::Params;
use super::shards::file_name;
use super::{Cut, MAX_SHARDS, TOKENIZER, interleaved, rotated_heads};
use crate::atomic;
use crate::error::{Result, TrainError};
use crate::model_dir;
use crate::pickle;
use crate::tensors::{Layout, Plan, Raw, Weights};
use callsmith::model::ModelConfig;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

/// Writes the model in `from` to `out`, which appears whole or not at all, as `count` shards (1 to [`MAX_SHARDS`]).
///
/// # Errors
/// When `from` is no Llama, its tensors cannot be divided by `count`, or `out` is there already.
pub fn from_hf(from: &Path, out: &Path, count: usize) -> Result<()> {
    let (_, config) = model_dir::read_config(from)?;
    let refused = |message: String| TrainError::input(&from.join("config.json"), message);
    let params = Params::of(&config).map_err(refused)?;
    check_count(&config, count).map_err(refused)?;
    let weights = Weights::open(from)?;
    let model = HfModel { tensors: by_meta_name(&weights, &config)?, weights, config, count };
    let json = serde_json::to_string(&params).map_err(|error| refused(error.to_string()))?;
    atomic::new_directory(out, |dir| {
        atomic::file(&dir.join("params.json"), format!("{json}\n").as_bytes())?;
        let tokenizer = from.join(TOKENIZER);
        if tokenizer.exists() {
            let bytes = fs::read(&tokenizer).map_err(TrainError::io(&tokenizer))?;
            atomic::file(&dir.join(TOKENIZER), &bytes)?;
        }
        (0..count).try_for_each(|number| model.write_shard(&dir.join(file_name(number)), number))
    })
}

fn check_count(config: &ModelConfig, count: usize) -> Result<(), String> {
    if !(1..=MAX_SHARDS).contains(&count) {
        return Err(format!("{count} shards are not possible; choose 1 to {MAX_SHARDS}"));
    }
    let divided = [
        ("num_key_value_heads", config.num_kv_heads),
        ("num_attention_heads", config.num_heads),
        ("intermediate_size", config.intermediate_size),
        ("hidden_size", config.hidden_size),
        ("vocab_size", config.vocab_size),
    ];
    match divided.into_iter().find(|(_, size)| !size.is_multiple_of(count)) {
        Some((name, size)) => {
            Err(format!("`{name}` {size} cannot be divided among {count} shards; choose another --shards"))
        }
        None => Ok(()),
    }
}

/// By Meta's name: Hugging Face's, and how it is cut. What a Llama does not have is refused.
fn by_meta_name(weights: &Weights, config: &ModelConfig) -> Result<BTreeMap<String, (String, Cut)>> {
    model_dir::check_weights(weights, config)?;
    let named = names::all(config.num_layers);
    let known: HashSet<&str> = named.iter().map(|named| named.hf.as_str()).collect();
    if let Some(name) = weights.names().find(|name| !known.contains(name) && !is_derived(name)) {
        return Err(TrainError::Data(format!("tensor `{name}` has no place in Meta's checkpoints")));
    }
    let place = |Named { meta, hf, cut }: Named| {
        // Meta's code always wants a head.
        let hf = if config.tie_word_embeddings && hf == HEAD.1 { EMBEDDING.1.to_owned() } else { hf };
        (meta, (hf, cut.unwrap_or(names::table_cut(config.vocab_size))))
    };
    Ok(named.into_iter().map(place).collect())
}

struct HfModel {
    weights: Weights,
    config: ModelConfig,
    tensors: BTreeMap<String, (String, Cut)>,
    count: usize,
}

impl HfModel {
    fn write_shard(&self, path: &Path, number: usize) -> Result<()> {
        let plans: Vec<Plan> =
            self.tensors.keys().filter_map(|meta| Some(Plan::new(meta, self.layout(meta)?))).collect();
        pickle::write(path, &plans, &mut |plan| self.part(&plan.name, number))
    }

    /// The layout of each part of a tensor.
    fn layout(&self, meta: &str) -> Option<Layout> {
        let (hf, cut) = self.tensors.get(meta)?;
        let mut layout = self.weights.layout(hf)?.clone();
        if let Some(size) = cut.dimension().and_then(|dimension| layout.shape.get_mut(dimension)) {
            *size /= self.count;
        }
        Some(layout)
    }

    /// One part of a tensor, its rows in Meta's order.
    fn part(&self, meta: &str, number: usize) -> Result<Vec<u8>> {
        let (hf, cut) = &self.tensors[meta];
        let raw = self.weights.read(hf)?;
        let Some(dimension) = cut.dimension() else { return Ok(raw.bytes) };
        let mut tensor = raw.tensor()?;
        if let Some(heads) = rotated_heads(&self.config, hf) {
            tensor = interleaved(&tensor, heads)?;
        }
        let size = tensor.dim(dimension)? / self.count;
        Ok(Raw::of(&tensor.narrow(dimension, number * size, size)?.contiguous()?)?.bytes)
    }
}
