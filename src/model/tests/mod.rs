//! The decoder against a plain f64 reference, its gradients against finite differences, batches against solo runs.

mod formulas;
mod gguf;
mod gradients;
mod loading;
mod prompts;
mod reference;
mod sums;
mod token_rows;

use super::*;
use candle_core::{DType, Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reference::Weights;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn config(family: Family) -> ModelConfig {
    ModelConfig {
        family,
        vocab_size: 61,
        hidden_size: 32,
        intermediate_size: 48,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: if family == Family::Qwen3 { 12 } else { 8 },
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 256,
        sliding_window: (family == Family::Mistral).then_some(7),
        tie_word_embeddings: family == Family::Qwen2,
        eos_token_ids: vec![],
    }
}

/// Every family, and Llama with each rope scaling and with full multi-head attention.
pub(super) fn configs() -> Vec<ModelConfig> {
    let mut all = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3].map(config).to_vec();
    all.push(ModelConfig { num_kv_heads: 4, tie_word_embeddings: true, ..config(Family::Llama) });
    all.push(ModelConfig { rope_scaling: RopeScaling::Linear { factor: 4.0 }, ..config(Family::Llama) });
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 64.0 };
    all.push(ModelConfig { rope_scaling: llama3, rope_theta: 500_000.0, ..config(Family::Llama) });
    all
}

/// Random weights, the same in f32 and f64.
pub(super) fn random_tensors(config: &ModelConfig, seed: u64) -> HashMap<String, Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..shape.iter().product::<usize>()).map(|_| centre + rng.random_range(-0.5f32..0.5)).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    decoder::parameter_shapes(config).into_iter().map(tensor).collect()
}

fn in_f64(tensors: &HashMap<String, Tensor>) -> Weights {
    let wide = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
    tensors.iter().map(|(name, t)| (name.clone(), (t.dims().to_vec(), wide(t)))).collect()
}

pub(super) fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(0..61)).collect()
}

pub(super) fn positions(n: usize) -> Vec<u32> {
    (0..n as u32).collect()
}

fn whole_prompt(decoder: &Decoder, tokens: &[u32]) -> Vec<Vec<f32>> {
    let lengths = [tokens.len()];
    let pass = ForwardPass {
        tokens,
        positions: &positions(tokens.len()),
        attention: Attention::Causal(&lengths),
        adapters: &AdapterBatch::none(),
    };
    decoder.logits(&decoder.hidden_states(pass).unwrap()).unwrap().to_vec2().unwrap()
}

/// Feeds the tokens through the cache in chunks of the given sizes; the block table is deliberately out of order.
pub(super) fn in_chunks(decoder: &Decoder, tokens: &[u32], chunks: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = KvCache::new(decoder.config(), 8, decoder.dtype(), &Device::Cpu).unwrap();
    let blocks = [5, 0, 7, 2];
    let (mut logits, mut cached) = (Vec::new(), 0);
    for new in chunks.iter().copied() {
        let sequences = [PagedSequence { blocks: &blocks, cached, new }];
        let pass = ForwardPass {
            tokens: &tokens[cached..cached + new],
            positions: &positions(tokens.len())[cached..cached + new],
            attention: Attention::Paged { cache: &mut cache, sequences: &sequences },
            adapters: &AdapterBatch::none(),
        };
        let hidden = decoder.hidden_states(pass).unwrap();
        logits.extend(decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap());
        cached += new;
    }
    logits
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// A frozen decoder over random weights that computes in this type.
fn decoder_in(config: &ModelConfig, seed: u64, dtype: DType) -> Decoder {
    let tensors = random_tensors(config, seed).into_iter().map(|(name, t)| (name, t.to_dtype(dtype).unwrap()));
    Decoder::from_tensors(config.clone(), &tensors.collect()).unwrap()
}

/// In f32, for which there are fused kernels, and in f64, for which there are none.
#[test]
fn logits_agree_with_the_plain_f64_reference() {
    let tokens = tokens(40, 1);
    let cases = configs().into_iter().flat_map(|config| [DType::F32, DType::F64].map(|dtype| (config.clone(), dtype)));
    for (config, dtype) in cases {
        let expected = reference::logits(&config, &in_f64(&random_tensors(&config, 7)), &tokens);
        let decoder = decoder_in(&config, 7, dtype);
        let runs = [
            ("whole prompt", whole_prompt(&decoder, &tokens)),
            ("cached prefill", in_chunks(&decoder, &tokens, &[40])),
            ("cached decode", in_chunks(&decoder, &tokens, &[1; 40])),
            ("chunked prefill", in_chunks(&decoder, &tokens, &[3, 17, 1, 16, 3])),
        ];
        for (name, logits) in runs {
            let difference = largest_difference(&logits, &expected);
            assert!(difference <= 1e-4, "{name} of {config:?} in {dtype:?}: {difference}");
        }
    }
}

#[test]
fn a_pass_tells_after_each_block() {
    let (tokens, config) = (tokens(5, 1), config(Family::Llama));
    let decoder = Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
    let (at, adapters, told) = (positions(5), AdapterBatch::none(), Cell::new(0));
    let pass = ForwardPass { tokens: &tokens, positions: &at, attention: Attention::Causal(&[5]), adapters: &adapters };
    decoder.hidden_states_observed(pass, &|| told.set(told.get() + 1)).unwrap();
    assert_eq!(told.get(), config.num_layers);
}

#[test]
fn chunking_does_not_change_a_single_bit() {
    let tokens = tokens(40, 2);
    let config = config(Family::Llama);
    let decoder = Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
    assert_eq!(in_chunks(&decoder, &tokens, &[40]), in_chunks(&decoder, &tokens, &[1, 30, 2, 7]));
}

/// Random factors at every site, rank and scale chosen so that `alpha != rank`.
pub(super) fn random_adapter(config: &ModelConfig, rank: usize, seed: u64) -> AdapterWeights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut adapter = AdapterWeights::empty(config.num_layers);
    for layer in 0..config.num_layers {
        for module in TargetModule::ALL {
            let (out, input) = decoder::module_shape(config, module);
            let mut matrix = |rows, columns| {
                let values: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-0.3f32..0.3)).collect();
                Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
            };
            let pair = LoraPair { a: matrix(rank, input), b: matrix(out, rank), scale: 1.7, magnitude: None };
            adapter.insert(Site { layer, module }, pair);
        }
    }
    adapter
}

#[test]
fn an_adapter_equals_its_weights_merged_into_the_base() {
    let config = config(Family::Qwen2);
    let mut tensors = random_tensors(&config, 3);
    let adapter = random_adapter(&config, 3, 9);
    let tokens = tokens(20, 4);
    let base = Decoder::from_tensors(config.clone(), &tensors).unwrap();
    let pass = ForwardPass {
        tokens: &tokens,
        positions: &positions(20),
        attention: Attention::Causal(&[20]),
        adapters: &AdapterBatch::uniform(20, Arc::new(adapter.clone())),
    };
    let adapted: Vec<Vec<f32>> = base.logits(&base.hidden_states(pass).unwrap()).unwrap().to_vec2().unwrap();
    for (site, pair) in adapter.iter() {
        let name = format!("model.layers.{}.{}.weight", site.layer, site.module.path());
        let delta = (pair.b.matmul(&pair.a).unwrap() * pair.scale).unwrap();
        tensors.insert(name.clone(), (&tensors[&name] + delta).unwrap());
    }
    let expected = reference::logits(&config, &in_f64(&tensors), &tokens);
    assert!(largest_difference(&adapted, &expected) < 1e-4);
}

#[test]
fn a_mixed_batch_gives_every_row_exactly_its_solo_result() {
    let config = config(Family::Llama);
    let decoder = Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
    let adapters =
        [None, Some(2), Some(5), Some(3)].map(|rank| rank.map(|r| Arc::new(random_adapter(&config, r, r as u64))));
    let prompts = [tokens(5, 1), tokens(9, 2), tokens(1, 3), tokens(17, 4)];
    let run = |members: &[usize]| {
        let mut cache = KvCache::new(&config, 8, DType::F32, &Device::Cpu).unwrap();
        let blocks: Vec<[u32; 2]> = (0..4).map(|i| [2 * i, 2 * i + 1]).collect();
        let (mut all, mut at, mut batch, mut sequences) = (Vec::new(), Vec::new(), AdapterBatch::none(), Vec::new());
        for i in members {
            if let Some(weights) = &adapters[*i] {
                batch.push(all.len()..all.len() + prompts[*i].len(), weights.clone());
            }
            all.extend(&prompts[*i]);
            at.extend(positions(prompts[*i].len()));
            sequences.push(PagedSequence { blocks: &blocks[*i], cached: 0, new: prompts[*i].len() });
        }
        let attention = Attention::Paged { cache: &mut cache, sequences: &sequences };
        let pass = ForwardPass { tokens: &all, positions: &at, attention, adapters: &batch };
        decoder.logits(&decoder.hidden_states(pass).unwrap()).unwrap().to_vec2::<f32>().unwrap()
    };
    let together = run(&[0, 1, 2, 3]);
    let alone: Vec<Vec<f32>> = (0..4).flat_map(|i| run(&[i])).collect();
    assert_eq!(together, alone);
}
