//! Small models with random weights, their adapters, and what they answer.

use callsmith::adapter::peft::{self, PeftConfig};
use callsmith::model::{
    AdapterBatch, AdapterWeights, Attention, Decoder, Family, ForwardPass, LoraPair, ModelConfig, RopeScaling, Site,
    TargetModule, decoder, weights,
};
use callsmith_train::model_dir;
use callsmith_train::tensors::{self, Layout, Plan, Weights};
use candle_core::{DType, Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A Llama with four query heads for each two of keys.
pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        vocab_size: 96,
        hidden_size: 32,
        intermediate_size: 48,
        num_layers: 2,
        num_heads: 8,
        num_kv_heads: 4,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 4096,
        sliding_window: None,
        tie_word_embeddings: false,
        eos_token_ids: Vec::new(),
    }
}

/// Reproducible values between -1 and 1.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Writes a model directory; `extra` tensors are none that a decoder knows.
pub(crate) fn write(dir: &Path, config: &ModelConfig, dtype: Dtype, extra: &[(&str, Tensor)]) {
    fs::create_dir_all(dir).unwrap();
    let shapes = decoder::parameter_shapes(config).into_iter().enumerate();
    let own = shapes.map(|(index, (name, shape))| {
        let values = random(&shape, index as u64);
        // Norms about one, so that nothing vanishes on the way through the layers.
        let values = if shape.len() == 1 { (values * 0.1).unwrap() + 1.0 } else { values * 0.3 };
        (name, values.unwrap().to_dtype(dtype.try_into().unwrap()).unwrap())
    });
    let tensors: BTreeMap<String, Tensor> =
        own.chain(extra.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone()))).collect();
    let layout = |tensor: &Tensor| Layout { dtype: tensor.dtype().into(), shape: tensor.dims().to_vec() };
    let plans: Vec<Plan> = tensors.iter().map(|(name, tensor)| Plan::new(name, layout(tensor))).collect();
    model_dir::write_config(dir, &config.to_json(), dtype).unwrap();
    tensors::write::sharded(dir, &plans, u64::MAX, &mut |plan| Ok(tensors::Raw::of(&tensors[&plan.name])?.bytes))
        .unwrap();
}

/// All tensors of a model directory.
pub(crate) fn read(dir: &Path) -> BTreeMap<String, tensors::Raw> {
    let weights = Weights::open(dir).unwrap();
    weights.names().map(|name| (name.to_owned(), weights.read(name).unwrap())).collect()
}

/// An adapter of rank 2 on some modules of every layer, written to `dir`.
pub(crate) fn adapter(dir: &Path, config: &ModelConfig, modules: &[TargetModule], seed: u64) -> AdapterWeights {
    let (rank, alpha) = (2, 3.0);
    let mut weights = AdapterWeights::empty(config.num_layers);
    for layer in 0..config.num_layers {
        for &module in modules {
            let (out, input) = decoder::module_shape(config, module);
            let seed = seed + 100 * (layer * 7 + module as usize) as u64;
            let (a, b) = (random(&[rank, input], seed), random(&[out, rank], seed + 1));
            weights.insert(Site { layer, module }, LoraPair { a, b, scale: alpha / rank as f64, magnitude: None });
        }
    }
    let target_modules = modules.to_vec();
    let peft =
        PeftConfig { rank, alpha, use_rslora: false, use_dora: false, dropout: 0.0, target_modules, base_model: None };
    peft::save(dir, &peft, &weights).unwrap();
    weights
}

/// Logits of a prompt, `[tokens, vocab]`.
pub(crate) fn logits(decoder: &Decoder, adapter: Option<AdapterWeights>) -> Vec<f32> {
    let tokens = [3, 14, 15, 92, 65, 35];
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let adapters =
        adapter.map_or_else(AdapterBatch::none, |weights| AdapterBatch::uniform(tokens.len(), weights.into()));
    let attention = Attention::Causal(&[tokens.len()]);
    let pass = ForwardPass { tokens: &tokens, positions: &positions, attention, adapters: &adapters };
    let hidden = decoder.hidden_states(pass).unwrap();
    decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The same of a model directory or GGUF file.
pub(crate) fn logits_of(path: &Path) -> Vec<f32> {
    logits(&weights::load_decoder(path, DType::F32, &Device::Cpu).unwrap(), None)
}

/// Fails unless all values agree as far as f32 sums in another order do.
pub(crate) fn assert_close(found: &[f32], expected: &[f32]) {
    let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    let furthest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(scale > 0.1 && found.len() == expected.len() && furthest < 1e-4 * scale, "{furthest} of {scale}");
}

/// The names in a directory.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}
