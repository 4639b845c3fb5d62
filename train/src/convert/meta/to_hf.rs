//! Meta's checkpoint → a Hugging Face directory.

use super::names::{self, EMBEDDING, HEAD, Named};
use super::params::{Measured, Params};
use super::shards::Shards;
use super::{Cut, halved};
use crate::atomic;
use crate::error::{Result, TrainError};
use crate::model_dir::{self, Precision};
use crate::tensors::{self, Layout, Plan};
use callsmith::model::{ModelConfig, ModelError, decoder};
use candle_core::Tensor;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Writes the model in `from` to `out`, which appears whole or not at all; values as they are stored unless `precision` says otherwise.
///
/// # Errors
/// When `from` is no Llama's checkpoint, its shards do not fit together or its tensors not `params.json`, or `out` is there already.
pub fn to_hf(from: &Path, out: &Path, precision: Option<Precision>) -> Result<()> {
    let model = MetaModel::open(from)?;
    let plans = model.plans(precision)?;
    let dtype = plans.first().map_or(Dtype::F32, |plan| plan.layout.dtype);
    atomic::new_directory(out, |dir| {
        model_dir::write_config(dir, &model.config.to_json(), dtype)?;
        model_dir::copy_tokenizer(from, dir)?;
        tensors::write::sharded(dir, &plans, tensors::write::SHARD_BYTES, &mut |plan| {
            let tensor = model.tensor(&plan.name)?;
            tensors::Raw::of(&tensor)?.into_bytes(&plan.name, plan.layout.dtype)
        })
    })
}

struct MetaModel {
    shards: Shards,
    config: ModelConfig,
    /// By Hugging Face's name: Meta's, and how it is cut.
    tensors: BTreeMap<String, (String, Cut)>,
}

impl MetaModel {
    fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("params.json");
        let params: Params = model_dir::read_json(&path)?;
        let shards = Shards::open(dir)?;
        let found = shards.names()?;
        if params.n_layers > found.len() {
            return Err(TrainError::input(
                &path,
                format!("`n_layers` is {}, but the shards hold fewer", params.n_layers),
            ));
        }
        let named = names::all(params.n_layers);
        let cut = shards.embedding_cut(params.dim)?;
        let tied = is_tied(&shards, &named, cut)?;
        let rows = |name: &str, cut| Ok::<_, TrainError>(shards.layout(name, cut)?.shape.first().copied().unwrap_or(0));
        let measured = Measured {
            vocab_size: rows(EMBEDDING.0, cut)?,
            intermediate_size: rows("layers.0.feed_forward.w1.weight", Cut::Rows)?,
            tied,
        };
        let config = params.config(&path, measured)?;
        let known: HashMap<&str, &Named> = named.iter().map(|named| (named.meta.as_str(), named)).collect();
        if let Some(name) = found.iter().find(|name| !known.contains_key(**name)) {
            return Err(TrainError::input(dir, format!("holds `{name}`, which no Llama of this shape has")));
        }
        let kept = named.into_iter().filter(|named| !(tied && named.meta == HEAD.0));
        let tensors = kept.map(|named| (named.hf, (named.meta, named.cut.unwrap_or(cut)))).collect();
        let model = Self { shards, config, tensors };
        model.check()?;
        Ok(model)
    }

    /// An error unless the tensors have the shapes that the configuration says.
    fn check(&self) -> Result<()> {
        for (name, expected) in decoder::parameter_shapes(&self.config) {
            let found = self.layout(&name)?.shape;
            if found != expected {
                return Err(ModelError::Shape { name: self.tensors[&name].0.clone(), expected, found }.into());
            }
        }
        Ok(())
    }

    fn layout(&self, name: &str) -> Result<Layout> {
        let missing = || ModelError::MissingTensor(name.to_owned());
        let (meta, cut) = self.tensors.get(name).ok_or_else(missing)?;
        self.shards.layout(meta, *cut)
    }

    fn plans(&self, precision: Option<Precision>) -> Result<Vec<Plan>> {
        let plan = |(name, _): (String, Vec<usize>)| {
            let stored = self.layout(&name)?;
            let dtype = precision.map_or(stored.dtype, |precision| precision.dtype().into());
            Ok(Plan::new(name, Layout { dtype, ..stored }))
        };
        decoder::parameter_shapes(&self.config).into_iter().map(plan).collect()
    }

    /// A tensor by its Hugging Face name, its rows in Hugging Face's order.
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let (meta, cut) = &self.tensors[name];
        let tensor = self.shards.read(meta, *cut)?;
        Ok(match super::rotated_heads(&self.config, name) {
            Some(heads) => halved(&tensor, heads)?,
            None => tensor,
        })
    }
}

fn is_tied(shards: &Shards, named: &[Named], cut: Cut) -> Result<bool> {
    match named {
        [embedding, .., head] => shards.is_tied(embedding, head, cut),
        _ => Ok(false),
    }
}
