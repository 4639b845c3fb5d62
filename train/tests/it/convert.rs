//! Meta's checkpoints and GGUF: there and back without a changed bit, and refusals by name.

use crate::fixture;
use crate::models::{assert_close, config, files, logits_of, random, read, write};
use callsmith::model::gguf::Encoding;
use callsmith::model::{Checkpoint, Family, ModelConfig, RopeScaling, decoder, weights};
use callsmith_train::convert::{gguf, meta};
use callsmith_train::model_dir::Precision;
use callsmith_train::pickle::{self, Content, TorchFile};
use callsmith_train::tensors::{Layout, Plan, Raw};
use candle_core::{DType, Device};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn shard(dir: &Path, number: usize) -> BTreeMap<String, Raw> {
    let file = TorchFile::open(&dir.join(format!("consolidated.{number:02}.pth")), Content::StateDict).unwrap();
    let tensors = file.tensors(file.root()).unwrap();
    tensors.iter().map(|(name, tensor)| (name.clone(), file.read(tensor).unwrap())).collect()
}

fn save_shard(dir: &Path, number: usize, tensors: &BTreeMap<String, Raw>) {
    let plans: Vec<Plan> = tensors.iter().map(|(name, raw)| Plan::new(name, raw.layout.clone())).collect();
    let path = dir.join(format!("consolidated.{number:02}.pth"));
    pickle::write(&path, &plans, &mut |plan| Ok(tensors[&plan.name].bytes.clone())).unwrap();
}

/// Models that Meta has published in this form: Llama 2, 3, 3.1, 3.2, each with fewer key heads.
fn published() -> [(ModelConfig, Dtype); 4] {
    let llama3 = ModelConfig { rope_theta: 500_000.0, max_position_embeddings: 8192, vocab_size: 66_048, ..config() };
    let scaled = |factor| RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192.0,
    };
    let llama31 = ModelConfig { rope_scaling: scaled(8.0), max_position_embeddings: 131_072, ..config() };
    let llama32 = ModelConfig { rope_scaling: scaled(32.0), tie_word_embeddings: true, ..llama31.clone() };
    [(config(), Dtype::F16), (llama3, Dtype::BF16), (llama31, Dtype::BF16), (llama32, Dtype::F32)]
}

#[test]
fn a_model_comes_back_from_meta_bit_for_bit_from_any_number_of_shards() {
    for (config, dtype) in published() {
        let root = tempfile::tempdir().unwrap();
        let hf = root.path().join("hf");
        write(&hf, &config, dtype, &[]);
        fs::write(hf.join("tokenizer.model"), "pieces").unwrap();
        for count in [1, 2, 4] {
            let (there, back) = (root.path().join(format!("meta{count}")), root.path().join(format!("back{count}")));
            meta::from_hf(&hf, &there, count).unwrap();
            assert_eq!(files(&there).len(), count + 2, "{:?}", files(&there));
            meta::to_hf(&there, &back, None).unwrap();
            assert_eq!(weights::load_config(&back).unwrap(), config);
            assert!(read(&back) == read(&hf), "{count} shards of {dtype}");
            assert_eq!(fs::read(back.join("tokenizer.model")).unwrap(), b"pieces");
        }
    }
}

#[test]
fn a_checkpoint_of_metas_comes_back_from_hugging_face_bit_for_bit() {
    for (config, dtype) in published() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        write(&path("made"), &config, dtype, &[]);
        meta::from_hf(&path("made"), &path("meta"), 2).unwrap();
        meta::to_hf(&path("meta"), &path("hf"), None).unwrap();
        meta::from_hf(&path("hf"), &path("again"), 2).unwrap();
        for number in [0, 1] {
            assert!(shard(&path("again"), number) == shard(&path("meta"), number));
        }
        let params = |name: &str| fs::read_to_string(path(name).join("params.json")).unwrap();
        assert_eq!(params("again"), params("meta"));
    }
}

#[test]
fn matrices_are_cut_as_meta_cuts_them() {
    let [(llama2, _), (llama3, _), ..] = published();
    for (config, table) in [(llama2, [96, 16]), (llama3, [33_024, 32])] {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("hf"), &config, Dtype::F32, &[]);
        meta::from_hf(&root.path().join("hf"), &root.path().join("meta"), 2).unwrap();
        let tensors = shard(&root.path().join("meta"), 1);
        let shape = |name: &str| tensors[name].layout.shape.clone();
        assert_eq!(shape("tok_embeddings.weight"), table);
        assert_eq!(shape("output.weight"), [config.vocab_size / 2, 32]);
        assert_eq!(shape("layers.0.attention.wq.weight"), [16, 32]);
        assert_eq!(shape("layers.0.attention.wk.weight"), [8, 32]);
        assert_eq!(shape("layers.0.attention.wo.weight"), [32, 16]);
        assert_eq!(shape("layers.1.feed_forward.w2.weight"), [32, 24]);
        assert_eq!(shape("layers.1.feed_forward.w3.weight"), [24, 32]);
        assert_eq!(shape("layers.1.ffn_norm.weight"), [32]);
        // The second row of the second shard's first head is the third of that head in Hugging Face's order.
        let query = &read(&root.path().join("hf"))["model.layers.0.self_attn.q_proj.weight"].bytes;
        let row = 4 * 32;
        let (second, third) = (row..2 * row, (16 + 2) * row..(16 + 3) * row);
        assert_eq!(tensors["layers.0.attention.wq.weight"].bytes[second], query[third]);
    }
}

#[test]
fn values_are_stored_in_another_type_when_asked() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    write(&path("hf"), &config(), Dtype::BF16, &[]);
    meta::from_hf(&path("hf"), &path("meta"), 1).unwrap();
    meta::to_hf(&path("meta"), &path("wide"), Some(Precision::F32)).unwrap();
    assert!(read(&path("wide")).values().all(|raw| raw.layout.dtype == Dtype::F32));
    assert_eq!(logits_of(&path("wide")), logits_of(&path("hf")));
}

#[test]
fn shards_that_do_not_fit_together_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    write(&path("hf"), &config(), Dtype::F32, &[]);
    let norm = "layers.1.attention_norm.weight";
    let changed = |change: &dyn Fn(&mut BTreeMap<String, Raw>)| {
        let meta = tempfile::tempdir_in(root.path()).unwrap();
        let dir = meta.path().join("meta");
        meta::from_hf(&path("hf"), &dir, 2).unwrap();
        let mut tensors = shard(&dir, 1);
        change(&mut tensors);
        save_shard(&dir, 1, &tensors);
        let error = meta::to_hf(&dir, &meta.path().join("out"), None).unwrap_err().to_string();
        assert_eq!(files(meta.path()), ["meta"]);
        error
    };
    let other = Raw::of(&random(&[5, 32], 1)).unwrap();
    let error = changed(&|tensors| tensors.get_mut(norm).unwrap().bytes[0] ^= 1);
    assert!(error.contains(norm) && error.contains("not the same in all shards"), "{error}");
    let error = changed(&|tensors| drop(tensors.remove(norm)));
    assert!(error.contains(norm) && error.contains("consolidated.01.pth"), "{error}");
    let error = changed(&|tensors| drop(tensors.insert("layers.0.attention.wq.weight".into(), other.clone())));
    assert!(error.contains("wq.weight") && error.contains("another shape than elsewhere"), "{error}");
    let error = changed(&|tensors| drop(tensors.insert("vision.weight".into(), other.clone())));
    assert!(error.contains("vision.weight"), "{error}");
}

#[test]
fn a_checkpoint_that_is_no_llama_of_its_params_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    write(&path("hf"), &config(), Dtype::F32, &[]);
    meta::from_hf(&path("hf"), &path("meta"), 1).unwrap();
    let params = fs::read_to_string(path("meta").join("params.json")).unwrap();
    let refused = |text: &str| {
        fs::write(path("meta").join("params.json"), text).unwrap();
        meta::to_hf(&path("meta"), &path("out"), None).unwrap_err().to_string()
    };
    let cases = [
        ("\"n_layers\":2", "\"n_layers\":3", "layers.2."),
        ("\"n_layers\":2", "\"n_layers\":1", "layers.1."),
        ("\"n_layers\":2", "\"n_layers\":99999999999", "n_layers"),
        ("\"n_kv_heads\":4", "\"n_kv_heads\":2", "wk.weight"),
        ("\"n_heads\":8", "\"n_heads\":0", "n_heads"),
        ("\"dim\":32", "\"dim\":40", "tok_embeddings.weight"),
        ("\"dim\":32", "\"dim\":32,\"moe\":{}", "moe"),
    ];
    for (from, to, expected) in cases {
        let error = refused(&params.replace(from, to));
        assert!(error.contains(expected), "{to}: {error}");
    }
    fs::remove_file(path("meta").join("consolidated.00.pth")).unwrap();
    assert!(refused(&params).contains("consolidated.00.pth"));
    assert!(!path("out").exists());
}

#[test]
fn what_meta_has_no_form_for_is_refused_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    write(&path("llama"), &config(), Dtype::F32, &[]);
    write(&path("qwen"), &ModelConfig { family: Family::Qwen2, ..config() }, Dtype::F32, &[]);
    write(&path("extra"), &config(), Dtype::F32, &[("vision.patch", random(&[2], 1))]);
    let before = files(root.path());
    let cases = [
        ("llama", 3, "num_key_value_heads"),
        ("llama", 9, "1 to 8"),
        ("qwen", 1, "Qwen2"),
        ("extra", 1, "vision.patch"),
    ];
    for (name, count, expected) in cases {
        let error = meta::from_hf(&path(name), &path("out"), count).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(files(root.path()), before);
}

fn with_tokenizer(dir: &Path) -> ModelConfig {
    let config = ModelConfig { vocab_size: fixture::VOCAB, ..config() };
    write(dir, &config, Dtype::F32, &[]);
    fixture::tokenizer(dir);
    config
}

#[test]
fn a_gguf_file_holds_the_very_values_of_the_model() {
    let root = tempfile::tempdir().unwrap();
    let (hf, out) = (root.path().join("hf"), root.path().join("made/model.gguf"));
    let config = with_tokenizer(&hf);
    let stored = Checkpoint::open(&hf).unwrap();
    for (encoding, dtype) in [(Encoding::F32, DType::F32), (Encoding::F16, DType::F16), (Encoding::Bf16, DType::BF16)] {
        gguf::from_hf(&hf, &out, encoding).unwrap();
        let written = Checkpoint::open(&out).unwrap();
        assert_eq!(written.config().num_kv_heads, config.num_kv_heads);
        for (name, shape) in decoder::parameter_shapes(&config) {
            let rounded = stored.tensor(&name).unwrap();
            // Vectors keep all their bits.
            let dtype = if shape.len() == 1 { DType::F32 } else { dtype };
            let rounded = rounded.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            assert!(
                Raw::of(&written.tensor(&name).unwrap()).unwrap() == Raw::of(&rounded).unwrap(),
                "{name} {dtype:?}"
            );
        }
        let (found, expected) = (logits_of(&out), logits_of(&hf));
        match encoding {
            Encoding::F32 => assert_close(&found, &expected),
            _ => assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.2)),
        }
    }
}

#[test]
fn a_gguf_file_is_smaller_in_blocks_and_brings_its_tokenizer() {
    let root = tempfile::tempdir().unwrap();
    let (hf, out) = (root.path().join("hf"), root.path().join("model.gguf"));
    with_tokenizer(&hf);
    let size = |encoding| {
        gguf::from_hf(&hf, &out, encoding).unwrap();
        weights::load_decoder(&out, DType::F32, &Device::Cpu).unwrap();
        fs::metadata(&out).unwrap().len()
    };
    assert!(size(Encoding::Q8_0) < size(Encoding::F16));
    let tokenizer = callsmith::chat::tokenizer::ChatTokenizer::load(&out, fixture::VOCAB).unwrap();
    let original = callsmith::chat::tokenizer::ChatTokenizer::load(&hf, fixture::VOCAB).unwrap();
    assert_eq!(tokenizer.eos_token_ids(), original.eos_token_ids());
}

#[test]
fn a_gguf_file_without_a_tokenizer_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("hf"), &config(), Dtype::F32, &[]);
    let error = gguf::from_hf(&root.path().join("hf"), &root.path().join("out.gguf"), Encoding::F32).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert_eq!(files(root.path()), ["hf"]);
}

#[test]
fn a_pickle_in_a_checkpoint_of_metas_that_would_run_something_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    write(&path("hf"), &config(), Dtype::F32, &[]);
    meta::from_hf(&path("hf"), &path("meta"), 1).unwrap();
    let target = path("meta").join("consolidated.00.pth");
    let bytes = fs::read(&target).unwrap();
    // The name of the function that rebuilds tensors, replaced by one as long that does harm.
    let (from, to) = (&b"torch._utils\n_rebuild_tensor_v2\n"[..], &b"subprocess__\n______check_output\n"[..]);
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    fs::write(&target, [&bytes[..at], to, &bytes[at + from.len()..]].concat()).unwrap();
    let error = meta::to_hf(&path("meta"), &path("out"), None).unwrap_err().to_string();
    assert!(error.contains("consolidated.00.pth") && error.contains("`subprocess__.______check_output`"), "{error}");
    let plan = Plan::new("x", Layout { dtype: Dtype::F32, shape: vec![1] });
    pickle::write(&target, &[plan], &mut |_| Ok(vec![0; 4])).unwrap();
    assert!(meta::to_hf(&path("meta"), &path("out"), None).is_err());
    assert!(!path("out").exists());
}
