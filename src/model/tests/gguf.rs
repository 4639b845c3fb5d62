//! GGUF files: the same logits as from safetensors, the expected error of each encoding, and what must be refused.

use super::*;
use crate::gguf::{Header, Metadata, TensorInfo, TensorPlan, write as write_file};
use crate::model::decoder::parameter_shapes;
use crate::model::gguf::{Contents, Encoding, write};
use crate::model::weights::{Checkpoint, load_config, load_decoder};
use crate::model::{AdapterBatch, CpuDecoder, CpuPass, KvType, LogitRow, PagedSequence, Precision};
use candle_core::quantized::{GgmlDType, QTensor};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn save(path: &Path, config: &ModelConfig, encoding: Encoding, tensors: &HashMap<String, Tensor>) {
    let contents = Contents { config, name: "tiny", encoding, tokenizer: &Metadata::default() };
    write(path, &contents, &mut |name| Ok(tensors[name].clone())).unwrap();
}

fn save_dir(dir: &Path, config: &ModelConfig, tensors: &HashMap<String, Tensor>) {
    std::fs::write(dir.join("config.json"), config.to_json().to_string()).unwrap();
    candle_core::safetensors::save(tensors, dir.join("model.safetensors")).unwrap();
}

fn load_error(path: &Path) -> String {
    load_decoder(path, DType::F32, &Device::Cpu).err().unwrap().to_string()
}

/// Rows wide enough for blocks of 256.
fn wide(family: Family) -> ModelConfig {
    let (hidden_size, intermediate_size, head_dim) = (256, 512, 64);
    ModelConfig { hidden_size, intermediate_size, head_dim, ..config(family) }
}

#[test]
fn a_file_in_f32_gives_the_same_logits_as_safetensors_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    for config in configs() {
        let tensors = random_tensors(&config, 7);
        let path = dir.path().join("model.gguf");
        save_dir(dir.path(), &config, &tensors);
        save(&path, &config, Encoding::F32, &tensors);
        assert_eq!(load_config(&path).unwrap(), config);
        let [from_dir, from_file] =
            [dir.path(), &path].map(|path| load_decoder(path, DType::F32, &Device::Cpu).unwrap());
        assert_eq!(whole_prompt(&from_dir, &tokens(30, 1)), whole_prompt(&from_file, &tokens(30, 1)), "{config:?}");
    }
}

#[test]
fn the_rows_of_a_llama_lie_in_the_file_with_rotary_pairs_side_by_side() {
    let config = config(Family::Llama);
    let tensors = random_tensors(&config, 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    save(&path, &config, Encoding::F32, &tensors);
    let file = std::fs::read(&path).unwrap();
    let header = Header::parse(&file).unwrap();
    let bytes = &file[header.tensors()["blk.1.attn_k.weight"].bytes.clone()];
    let stored: Vec<f32> = bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let wanted: Vec<Vec<f32>> = tensors["model.layers.1.self_attn.k_proj.weight"].to_vec2().unwrap();
    // Two heads of eight: 0 4 1 5 2 6 3 7, then the same eight further.
    let order = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15];
    assert_eq!(stored, order.iter().flat_map(|row| wanted[*row].clone()).collect::<Vec<_>>());
}

/// How far from a matrix is what a file in this encoding holds of it.
fn relative_error(encoding: Encoding, config: &ModelConfig, name: &str) -> f64 {
    let tensors = random_tensors(config, 7);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    save(&path, config, encoding, &tensors);
    difference(&Checkpoint::open(&path).unwrap().tensor(name).unwrap(), &tensors[name])
}

/// The largest difference between two tensors, as a part of the second one's largest value.
fn difference(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.dims(), wanted.dims());
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, wanted) = (values(found), values(wanted));
    let error = found.iter().zip(&wanted).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    error / wanted.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max)
}

#[test]
fn each_encoding_keeps_values_within_its_step() {
    let query = "model.layers.1.self_attn.q_proj.weight";
    let config = wide(Family::Llama);
    // Half a step: of 11 and 8 bits of mantissa, of ±127 steps, of 15 steps from the least to the greatest value.
    let cases = [
        (Encoding::F32, 0.0, 0.0),
        (Encoding::F16, 1e-6, 1.0 / 4096.0 * 1.01),
        (Encoding::Bf16, 1e-4, 1.0 / 512.0 * 1.01),
        (Encoding::Q8_0, 1e-3, 1.0 / 254.0 * 1.2),
        (Encoding::Q4K, 1e-2, 1.0 / 15.0 * 1.4),
    ];
    for (encoding, least, most) in cases {
        let error = relative_error(encoding, &config, query);
        assert!((least..=most).contains(&error), "{encoding:?}: {error}, expected {least} to {most}");
        assert_eq!(relative_error(encoding, &config, "model.norm.weight"), 0.0, "{encoding:?}");
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_stored_finer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let config = ModelConfig { intermediate_size: 48, ..config(Family::Qwen3) };
    save(&path, &config, Encoding::Q4K, &random_tensors(&config, 1));
    let file = std::fs::read(&path).unwrap();
    let header = Header::parse(&file).unwrap();
    let encoding = |name: &str| header.tensors()[name].encoding;
    assert_eq!(encoding("blk.0.ffn_up.weight"), GgmlDType::Q8_0);
    assert_eq!(encoding("blk.0.ffn_down.weight"), GgmlDType::F16);
    assert_eq!(encoding("blk.0.attn_q_norm.weight"), GgmlDType::F32);
    load_decoder(&path, DType::F32, &Device::Cpu).unwrap();
}

#[test]
fn every_encoding_that_is_read_gives_its_rows_back() {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let dir = tempfile::tempdir().unwrap();
    let config = wide(Family::Llama);
    let name = "model.layers.1.self_attn.k_proj.weight";
    for encoding in [F32, F16, BF16, Q8_0, Q6K, Q5K, Q5_1, Q5_0, Q4K, Q4_1, Q4_0, Q3K, Q2K] {
        let path = rewritten(dir.path(), &config, |_| encoding, |_| {}, &[]);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let error = difference(&checkpoint.tensor(name).unwrap(), &random_tensors(&config, 3)[name]);
        // Rows in the wrong order differ by up to twice the largest value.
        assert!(error < 0.5, "{encoding:?}: {error}");
    }
}

/// A Llama's file with its matrices in some encoding, other metadata, and more tensors.
fn rewritten(
    dir: &Path,
    config: &ModelConfig,
    encoding: impl Fn(&str) -> GgmlDType,
    alter: impl Fn(&mut Metadata),
    extra: &[(&str, &[f32])],
) -> PathBuf {
    let path = dir.join("model.gguf");
    save(&path, config, Encoding::F32, &random_tensors(config, 3));
    let file = std::fs::read(&path).unwrap();
    let header = Header::parse(&file).unwrap();
    let plan = |name: &str, shape: &[usize]| {
        let encoding = if shape.len() == 2 { encoding(name) } else { GgmlDType::F32 };
        TensorPlan { name: name.to_owned(), encoding, shape: shape.to_vec() }
    };
    let mut plans: Vec<TensorPlan> = header.tensors().iter().map(|(name, info)| plan(name, &info.shape)).collect();
    plans.extend(extra.iter().map(|(name, values)| plan(name, &[values.len()])));
    let values = |name: &str| -> Vec<f32> {
        let bytes = |info: &TensorInfo| &file[info.bytes.clone()];
        let Some(info) = header.tensors().get(name) else {
            return extra.iter().find(|(found, _)| *found == name).unwrap().1.to_vec();
        };
        bytes(info).as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let other = dir.join("rewritten.gguf");
    write_file(&other, &least_metadata(&header, alter), &plans, &mut |plan| {
        let tensor = Tensor::from_vec(values(&plan.name), plan.shape.as_slice(), &Device::Cpu)?;
        Ok::<_, ModelError>(QTensor::quantize(&tensor, plan.encoding)?.data()?.into_owned())
    })
    .unwrap();
    other
}

/// The least that describes a Llama, but for what `alter` says.
fn least_metadata(header: &Header<'_>, alter: impl Fn(&mut Metadata)) -> Metadata {
    let mut all = Metadata::default();
    alter(&mut all);
    let altered = all.to_file();
    let altered = Header::parse(&altered).unwrap();
    if altered.text("general.architecture") == Ok(None) {
        all.text("general.architecture", "llama");
    }
    let sizes = ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"];
    for key in sizes.into_iter().chain(["attention.head_count_kv", "attention.key_length"]) {
        let key = format!("llama.{key}");
        if altered.unsigned(&key) == Ok(None) {
            all.u32(&key, header.unsigned(&key).unwrap().unwrap() as u32);
        }
    }
    all.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    all
}

/// The small Llama's file with other metadata, or more tensors.
fn altered(dir: &Path, alter: impl Fn(&mut Metadata), extra: &[(&str, &[f32])]) -> PathBuf {
    rewritten(dir, &config(Family::Llama), |_| GgmlDType::F32, alter, extra)
}

/// Changed metadata, further tensors, and what the refusal names.
type Refusal = (fn(&mut Metadata), &'static [(&'static str, &'static [f32])], &'static str);

#[test]
fn what_cannot_be_run_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [Refusal; 12] = [
        (|m| m.text("general.architecture", "gemma3"), &[], "architecture `gemma3`"),
        (|m| m.u32("llama.expert_count", 8), &[], "llama.expert_count"),
        (|m| m.u32("split.count", 2), &[], "merge them"),
        (|m| m.u32("llama.rope.dimension_count", 4), &[], "llama.rope.dimension_count"),
        (|m| m.text("llama.rope.scaling.type", "yarn"), &[], "yarn"),
        (|m| m.f32("llama.rope.freq_base", -1.0), &[], "llama.rope.freq_base"),
        (|m| m.text("llama.block_count", "2"), &[], "llama.block_count"),
        (|m| m.u32("llama.block_count", u32::MAX), &[], "only 21 tensors"),
        (|m| m.u32("llama.block_count", 3), &[], "blk.2.attn_norm.weight"),
        (|m| m.u32("llama.feed_forward_length", 47), &[], "[47, 32]"),
        (|_| {}, &[("blk.0.attn_q.bias", &[0.0; 32])], "tensor `blk.0.attn_q.bias`"),
        (|_| {}, &[("rope_freqs.weight", &[1.0, 2.0, 3.0, 3.0])], "rope_freqs.weight"),
    ];
    for (alter, extra, named) in cases {
        let error = load_error(&altered(dir.path(), alter, extra));
        assert!(error.contains(named), "{named}: {error}");
    }
    load_decoder(&altered(dir.path(), |_| {}, &[]), DType::F32, &Device::Cpu).unwrap();
}

#[test]
fn a_window_makes_a_llama_a_mistral() {
    let dir = tempfile::tempdir().unwrap();
    let path = altered(dir.path(), |m| m.u32("llama.attention.sliding_window", 5), &[]);
    let config = load_config(&path).unwrap();
    assert_eq!((config.family, config.sliding_window), (Family::Mistral, Some(5)));
}

#[test]
fn llama_3_divisors_become_its_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let alter = |m: &mut Metadata| m.f32("llama.rope.freq_base", 500_000.0);
    let scaling = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192.0,
    };
    let wanted = ModelConfig { rope_theta: 500_000.0, rope_scaling: scaling.clone(), ..config(Family::Llama) };
    let divisors: Vec<f32> = ops::rope_divisors(&wanted).iter().map(|divisor| *divisor as f32).collect();
    let path = altered(dir.path(), alter, &[("rope_freqs.weight", &divisors)]);
    assert_eq!(load_config(&path).unwrap().rope_scaling, scaling);
}

/// The first bytes hold counts, names and sizes; the rest is values.
const HEADER: usize = 4096;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_damaged_model_is_loaded_or_refused(
        changes in prop::collection::vec((0..HEADER, any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let config = config(Family::Llama);
        save(&path, &config, Encoding::Q8_0, &random_tensors(&config, 3));
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = load_decoder(&path, DType::F32, &Device::Cpu) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// All logits of a prompt by the packed decoder, one pass.
fn packed_prompt(checkpoint: &Checkpoint<'_>, tokens: &[u32]) -> Vec<Vec<f32>> {
    let precision = Precision { kv: Some(KvType::F32), ..Precision::FULL };
    let mut decoder = CpuDecoder::load(checkpoint, precision, 2, &|_| {}).unwrap();
    decoder.reset_store(4);
    let rows: Vec<_> = (0..tokens.len() as u32).map(|row| LogitRow { row, wanted: None }).collect();
    let pass = CpuPass {
        tokens,
        positions: &positions(tokens.len()),
        sequences: &[PagedSequence { blocks: &[2, 0, 3], cached: 0, new: tokens.len() }],
        adapters: &AdapterBatch::none(),
        logit_rows: &rows,
    };
    let mut logits = Vec::new();
    decoder.forward(&pass, &|| {}, &mut logits).unwrap();
    logits.chunks_exact(decoder.config().vocab_size).map(<[f32]>::to_vec).collect()
}

/// The plain decoder on a file's values, some of its matrices rounded to 8 bits.
fn plain_decoder(checkpoint: &Checkpoint<'_>, becomes_8_bits: impl Fn(&str) -> bool) -> Decoder {
    let config = checkpoint.config();
    let tensors = parameter_shapes(config).into_iter().map(|(name, _)| {
        let tensor = checkpoint.tensor(&name).unwrap();
        let tensor = match tensor.rank() == 2 && becomes_8_bits(&name) {
            true => QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap().dequantize(&Device::Cpu).unwrap(),
            false => tensor,
        };
        (name, tensor)
    });
    Decoder::from_tensors(config.clone(), &tensors.collect()).unwrap()
}

#[test]
fn the_packed_decoder_computes_with_every_encoding_and_with_mixtures() {
    let (config, tokens) = (wide(Family::Llama), tokens(30, 1));
    let dir = tempfile::tempdir().unwrap();
    let mixed = |name: &str| match name {
        _ if name.contains("attn_q") || name.contains("ffn_gate") => GgmlDType::F16,
        _ if name.contains("attn_k") || name.contains("token_embd") => GgmlDType::Q4K,
        _ if name.contains("ffn_down") => GgmlDType::Q6K,
        _ => GgmlDType::Q8_0,
    };
    // What has no kernel of its own becomes 8 bits.
    type Choice<'a, T> = &'a dyn Fn(&str) -> T;
    let cases: [(Choice<'_, GgmlDType>, Choice<'_, bool>); 5] = [
        (&|_| GgmlDType::F16, &|_| false),
        (&|_| GgmlDType::Q8_0, &|_| false),
        (&|_| GgmlDType::Q4K, &|_| false),
        (&|_| GgmlDType::Q6K, &|_| true),
        (&mixed, &|name| name.contains("down_proj")),
    ];
    for (index, (encoding, becomes_8_bits)) in cases.into_iter().enumerate() {
        let path = rewritten(dir.path(), &config, encoding, |_| {}, &[]);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let expected = whole_prompt(&plain_decoder(&checkpoint, becomes_8_bits), &tokens);
        let found = packed_prompt(&checkpoint, &tokens);
        let spread = expected.iter().flatten().fold(0f32, |most, x| most.max(x.abs()));
        let pairs = found.iter().flatten().zip(expected.iter().flatten());
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / spread;
        // Values half-way between two steps may be rounded either way.
        let allowed = if index < 3 { 2e-3 } else { 0.03 };
        assert!(difference < allowed, "case {index}: {difference}");
    }
}
