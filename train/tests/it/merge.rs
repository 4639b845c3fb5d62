//! Merging: the merged model is the base with its adapters, and nothing is written when it cannot be.

use crate::models::{adapter, assert_close, config, files, logits, logits_of, random, read, write};
use callsmith::adapter::peft::{self, PeftConfig};
use callsmith::model::{AdapterWeights, LoraPair, Magnitude, ModelConfig, TargetModule, weights};
use callsmith_train::merge::{self, Share, Storage};
use callsmith_train::model_dir::Precision;
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use std::fs;
use std::path::Path;

const AS_BASE: Storage = Storage { precision: None, shard_bytes: u64::MAX };
const ATTENTION: [TargetModule; 4] = [TargetModule::Q, TargetModule::K, TargetModule::V, TargetModule::O];

fn share(adapter: &Path, weight: f64) -> Share {
    Share { adapter: adapter.to_owned(), weight }
}

fn run(root: &Path, shares: &[(&str, f64)], out: &str, storage: Storage) -> callsmith_train::Result<()> {
    let shares: Vec<Share> = shares.iter().map(|(name, weight)| share(&root.join(name), *weight)).collect();
    merge::run(&root.join("base"), &shares, &root.join(out), storage)
}

/// What two adapters add together, as one adapter.
fn sum(parts: &[(&AdapterWeights, f64)], layers: usize) -> AdapterWeights {
    let mut all = AdapterWeights::empty(layers);
    let mut add = |site, factor: f64, pair: &LoraPair| {
        let b = (&pair.b * (factor * pair.scale)).unwrap();
        let joined = match all.get(site) {
            Some(before) => LoraPair {
                a: Tensor::cat(&[&before.a, &pair.a], 0).unwrap(),
                b: Tensor::cat(&[&before.b, &b], 1).unwrap(),
                scale: 1.0,
                magnitude: None,
            },
            None => LoraPair { a: pair.a.clone(), b, scale: 1.0, magnitude: None },
        };
        all.insert(site, joined);
    };
    for (weights, factor) in parts {
        weights.iter().for_each(|(site, pair)| add(site, *factor, pair));
    }
    all
}

fn base(root: &Path, dtype: Dtype) -> ModelConfig {
    let config = config();
    write(&root.join("base"), &config, dtype, &[("vision.patch", random(&[3, 2], 77))]);
    config
}

#[test]
fn a_merged_model_answers_as_the_base_with_its_adapter() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    let weights = adapter(&root.path().join("a"), &config, &TargetModule::ALL, 1);
    run(root.path(), &[("a", 1.0)], "out", AS_BASE).unwrap();
    let decoder = weights::load_decoder(&root.path().join("base"), DType::F32, &Device::Cpu).unwrap();
    let merged = logits_of(&root.path().join("out"));
    assert_close(&merged, &logits(&decoder, Some(weights)));
    let unchanged = logits(&decoder, None);
    assert!(merged.iter().zip(&unchanged).any(|(a, b)| (a - b).abs() > 0.1), "the adapter does nothing");
}

#[test]
fn a_dora_adapter_is_merged_with_the_lengths_of_its_rows() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    let plain = adapter(&root.path().join("plain"), &config, &ATTENTION, 1);
    let decoder = weights::load_decoder(&root.path().join("base"), DType::F32, &Device::Cpu).unwrap();
    let mut dora = AdapterWeights::empty(config.num_layers);
    for (site, pair) in plain.iter() {
        let magnitude = (decoder.row_norms(site).unwrap() * 1.3).unwrap();
        dora.insert(site, LoraPair { magnitude: Some(Magnitude::Wanted(magnitude)), ..pair.clone() });
    }
    let settings = peft::load(&root.path().join("plain"), &config, DType::F32, &Device::Cpu).unwrap().config.unwrap();
    peft::save(&root.path().join("a"), &PeftConfig { use_dora: true, ..settings }, &dora).unwrap();
    run(root.path(), &[("a", 1.0)], "out", AS_BASE).unwrap();
    assert_close(&logits_of(&root.path().join("out")), &logits(&decoder, Some(dora)));
}

#[test]
fn several_adapters_add_up_by_their_weights() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    let first = adapter(&root.path().join("a"), &config, &TargetModule::ALL, 1);
    let second = adapter(&root.path().join("b"), &config, &ATTENTION, 2);
    run(root.path(), &[("a", 0.5), ("b", -0.25)], "out", AS_BASE).unwrap();
    let decoder = weights::load_decoder(&root.path().join("base"), DType::F32, &Device::Cpu).unwrap();
    let expected = logits(&decoder, Some(sum(&[(&first, 0.5), (&second, -0.25)], config.num_layers)));
    assert_close(&logits_of(&root.path().join("out")), &expected);
}

#[test]
fn what_no_adapter_touches_is_copied_byte_for_byte() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::BF16);
    fs::write(root.path().join("base/tokenizer.json"), "{}").unwrap();
    adapter(&root.path().join("a"), &config, &ATTENTION, 1);
    run(root.path(), &[("a", 1.0)], "out", AS_BASE).unwrap();
    let (before, after) = (read(&root.path().join("base")), read(&root.path().join("out")));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, raw) in &before {
        assert_eq!(raw.layout, after[name].layout, "{name}");
        assert_eq!(raw.bytes == after[name].bytes, !name.contains("self_attn"), "{name}");
    }
    let text = fs::read_to_string(root.path().join("out/config.json")).unwrap();
    assert_eq!(text, fs::read_to_string(root.path().join("base/config.json")).unwrap());
    assert!(root.path().join("out/tokenizer.json").exists());
}

#[test]
fn another_type_is_said_in_the_configuration_and_leaves_foreign_tensors_alone() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    adapter(&root.path().join("a"), &config, &ATTENTION, 1);
    let half = Storage { precision: Some(Precision::Bf16), ..AS_BASE };
    run(root.path(), &[("a", 1.0)], "out", half).unwrap();
    let tensors = read(&root.path().join("out"));
    assert_eq!(tensors["vision.patch"], read(&root.path().join("base"))["vision.patch"]);
    assert!(tensors.iter().all(|(name, raw)| name == "vision.patch" || raw.layout.dtype == Dtype::BF16));
    let text = fs::read_to_string(root.path().join("out/config.json")).unwrap();
    assert!(text.contains("\"torch_dtype\": \"bfloat16\""), "{text}");
}

#[test]
fn a_model_in_several_files_is_the_same_model() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    adapter(&root.path().join("a"), &config, &TargetModule::ALL, 1);
    run(root.path(), &[("a", 1.0)], "whole", AS_BASE).unwrap();
    run(root.path(), &[("a", 1.0)], "parts", Storage { shard_bytes: 20_000, ..AS_BASE }).unwrap();
    let names = files(&root.path().join("parts"));
    assert!(names.contains(&"model.safetensors.index.json".to_owned()), "{names:?}");
    assert!(names.iter().filter(|name| name.starts_with("model-0000")).count() > 2, "{names:?}");
    assert_eq!(logits_of(&root.path().join("parts")), logits_of(&root.path().join("whole")));
    // A base in several files can be merged into as well.
    let again = [share(&root.path().join("a"), -1.0)];
    merge::run(&root.path().join("parts"), &again, &root.path().join("back"), AS_BASE).unwrap();
    assert_close(&logits_of(&root.path().join("back")), &logits_of(&root.path().join("base")));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    let wider = ModelConfig { hidden_size: 64, num_heads: 16, ..config.clone() };
    adapter(&root.path().join("wide"), &wider, &ATTENTION, 1);
    adapter(&root.path().join("a"), &config, &ATTENTION, 1);
    fs::create_dir(root.path().join("taken")).unwrap();
    fs::write(root.path().join("taken/notes"), "mine").unwrap();
    let before = files(root.path());
    let half = Storage { precision: Some(Precision::F16), ..AS_BASE };
    let cases = [
        (run(root.path(), &[("a", 1.0), ("wide", 1.0)], "out", AS_BASE), "wide: "),
        (run(root.path(), &[("absent", 1.0)], "out", AS_BASE), "absent"),
        (run(root.path(), &[("a", 1.0)], "taken", AS_BASE), "not an empty directory"),
        // Found only while the tensors are written.
        (run(root.path(), &[("a", 1e6)], "out", half), "self_attn"),
    ];
    for (result, expected) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(files(root.path()), before);
    assert_eq!(files(&root.path().join("taken")), ["notes"]);
}

#[test]
fn a_base_whose_tensors_are_not_its_configurations_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    adapter(&root.path().join("a"), &config, &ATTENTION, 1);
    let wrong = ModelConfig { intermediate_size: 64, ..config.clone() };
    let save = |config: &ModelConfig| fs::write(root.path().join("base/config.json"), config.to_json().to_string());
    save(&wrong).unwrap();
    let error = run(root.path(), &[("a", 1.0)], "out", AS_BASE).unwrap_err().to_string();
    assert!(error.contains("gate_proj") && error.contains("[48, 32]"), "{error}");
    save(&ModelConfig { num_layers: 3, ..config }).unwrap();
    let error = run(root.path(), &[("a", 1.0)], "out", AS_BASE).unwrap_err().to_string();
    assert!(error.contains("missing tensor `model.layers.2."), "{error}");
    assert!(!root.path().join("out").exists());
}

#[test]
fn an_adapter_is_named_with_or_without_its_weight() {
    let parse = |text: &str| text.parse::<Share>();
    assert_eq!(parse("dir:0.5"), Ok(share(Path::new("dir"), 0.5)));
    assert_eq!(parse("a:b/c"), Ok(share(Path::new("a:b/c"), 1.0)));
    assert_eq!(parse("a:b:-2"), Ok(share(Path::new("a:b"), -2.0)));
    for wrong in ["", ":1", "dir:inf", "dir:nan"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_soft_prompt_is_not_merged() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    peft::save_prompt(
        &root.path().join("a"),
        &Tensor::ones((2, config.hidden_size), DType::F32, &Device::Cpu).unwrap(),
        None,
        None,
    )
    .unwrap();
    let message = run(root.path(), &[("a", 1.0)], "out", AS_BASE).unwrap_err().to_string();
    assert!(message.contains("soft prompt") && message.contains("serve it"), "{message}");
    assert!(!root.path().join("out").exists());
}

#[test]
fn a_merged_model_speaks_as_the_adapters_with_a_template_did() {
    let root = tempfile::tempdir().unwrap();
    let config = base(root.path(), Dtype::F32);
    fs::write(root.path().join("base/chat_template.jinja"), "the base's").unwrap();
    let place = |name: &str| root.path().join(name).join("chat_template.jinja");
    for (name, template) in [("plain", None), ("a", Some("one")), ("b", Some("one")), ("c", Some("two"))] {
        adapter(&root.path().join(name), &config, &ATTENTION, 1);
        template.into_iter().for_each(|text| fs::write(place(name), text).unwrap());
    }
    let merged = |adapters: &[(&str, f64)], out: &str| {
        run(root.path(), adapters, out, AS_BASE).map(|_| fs::read_to_string(place(out)).unwrap())
    };
    assert_eq!(merged(&[("plain", 1.0)], "none").unwrap(), "the base's");
    assert_eq!(merged(&[("a", 0.5), ("plain", 1.0), ("b", 1.0)], "one").unwrap(), "one");
    let refused = merged(&[("a", 1.0), ("c", 1.0)], "two").unwrap_err().to_string();
    assert!(refused.contains("c: has another chat_template.jinja than") && refused.contains("/a"), "{refused}");
    assert!(!root.path().join("two").exists());
}
