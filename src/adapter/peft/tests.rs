//! What is written, what loads, and that a save never leaves a part.

mod hostile;
mod kinds;

use super::super::testing::{self, Raw, config, model, weights, widths};
use super::*;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

const Q: TargetModule = TargetModule::Q;

fn load_cpu(dir: &Path) -> Result<LoadedAdapter, AdapterError> {
    load(dir, &model(), DType::F32, &Device::Cpu)
}

fn load_raw(raw: &Raw) -> Result<LoadedAdapter, AdapterError> {
    let dir = tempdir().unwrap();
    raw.write(dir.path());
    load_cpu(dir.path())
}

/// The reason of a refusal; anything but a refusal fails the test.
fn reason(result: Result<LoadedAdapter, AdapterError>) -> String {
    match result {
        Err(AdapterError::Invalid(reason)) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn pair(adapter: &LoadedAdapter, layer: usize, module: TargetModule) -> &LoraPair {
    adapter.weights.get(Site { layer, module }).unwrap()
}

fn saved(config: &PeftConfig) -> (TempDir, AdapterWeights) {
    let dir = tempdir().unwrap();
    let weights = weights(config, 1.0);
    save(&dir.path().join("adapter"), config, &weights).unwrap();
    (dir, weights)
}

#[test]
fn what_is_saved_is_loaded_back() {
    for use_rslora in [false, true] {
        let config = PeftConfig { use_rslora, ..config(&TargetModule::ALL) };
        let (dir, weights) = saved(&config);
        let loaded = load_cpu(&dir.path().join("adapter")).unwrap();
        assert_eq!(loaded.config.as_ref(), Some(&config));
        assert_eq!(loaded.weights.iter().count(), 14);
        for (site, before) in weights.iter() {
            let after = loaded.weights.get(site).unwrap();
            assert_eq!((values(&after.a), values(&after.b)), (values(&before.a), values(&before.b)));
            assert_eq!((after.a.dims(), after.scale), (before.a.dims(), before.scale));
        }
    }
}

#[test]
fn saving_twice_gives_the_same_digest_and_other_content_another() {
    let digest = |config: &PeftConfig| load_cpu(&saved(config).0.path().join("adapter")).unwrap().digest;
    let first = config(&[Q]);
    assert_eq!(digest(&first), digest(&first));
    assert_eq!(digest(&first).len(), 64);
    assert_ne!(digest(&first), digest(&PeftConfig { alpha: 7.0, ..first.clone() }));
}

#[test]
fn scale_is_alpha_over_rank_or_over_its_root() {
    let mut raw = Raw::new(&[Q]);
    assert_eq!(pair(&load_raw(&raw).unwrap(), 1, Q).scale, 3.0);
    raw.set("use_rslora", json!(true));
    assert_eq!(pair(&load_raw(&raw).unwrap(), 1, Q).scale, 6.0 / 2.0_f64.sqrt());
    raw.set("lora_alpha", json!(1.5));
    raw.set("use_rslora", json!(false));
    assert_eq!(pair(&load_raw(&raw).unwrap(), 1, Q).scale, 0.75);
}

#[test]
fn the_written_settings_are_those_that_peft_reads() {
    let (dir, _) = saved(&config(&[Q, TargetModule::Down]));
    let text = std::fs::read_to_string(dir.path().join("adapter/adapter_config.json")).unwrap();
    let settings: Value = serde_json::from_str(&text).unwrap();
    for (field, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("base_model_name_or_path", json!("tiny")),
        ("r", json!(2)),
        ("lora_alpha", json!(6.0)),
        ("lora_dropout", json!(0.25)),
        ("target_modules", json!(["q_proj", "down_proj"])),
        ("layers_to_transform", json!(null)),
        ("bias", json!("none")),
        ("inference_mode", json!(true)),
        ("fan_in_fan_out", json!(false)),
        ("use_rslora", json!(false)),
    ] {
        assert_eq!(settings[field], value, "{field}");
    }
}

#[test]
fn the_written_tensors_have_the_names_that_peft_reads() {
    let (dir, _) = saved(&config(&[Q, TargetModule::Gate]));
    let bytes = std::fs::read(dir.path().join("adapter/adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    let prefix = "base_model.model.model.layers";
    assert_eq!(names.len(), 8);
    assert_eq!(names[0], format!("{prefix}.0.mlp.gate_proj.lora_A.weight"));
    assert_eq!(names[3], format!("{prefix}.0.self_attn.q_proj.lora_B.weight"));
    assert_eq!(tensors.tensor(names[3]).unwrap().shape(), [12, 2]);
}

#[test]
fn a_part_of_the_layers_can_be_saved() {
    let config = config(&[Q]);
    let mut weights = AdapterWeights::empty(2);
    let site = Site { layer: 1, module: Q };
    weights.insert(site, testing::weights(&config, 1.0).get(site).unwrap().clone());
    let dir = tempdir().unwrap();
    save(&dir.path().join("a"), &config, &weights).unwrap();
    let loaded = load_cpu(&dir.path().join("a")).unwrap();
    assert_eq!(loaded.weights.iter().map(|(site, _)| site).collect::<Vec<_>>(), [site]);
}

#[test]
fn half_precision_files_load_and_are_cast() {
    let half: [(&'static str, [u8; 2]); 2] =
        [("F16", f16::from_f32(0.5).to_le_bytes()), ("BF16", bf16::from_f32(0.5).to_le_bytes())];
    for (dtype, bytes) in half {
        let mut raw = Raw::new(&[Q]);
        for tensor in &mut raw.tensors {
            tensor.dtype = dtype;
            tensor.bytes = bytes.repeat(tensor.shape.iter().product());
        }
        let dir = tempdir().unwrap();
        raw.write(dir.path());
        for compute in [DType::F32, DType::F16, DType::BF16] {
            let loaded = load(dir.path(), &model(), compute, &Device::Cpu).unwrap();
            assert_eq!(pair(&loaded, 0, Q).a.dtype(), compute);
            assert_eq!(values(&pair(&loaded, 0, Q).b), [0.5; 24]);
        }
    }
}

#[test]
fn a_value_too_large_for_the_compute_type_is_refused() {
    let mut raw = Raw::new(&[Q]);
    raw.tensors[0].bytes[..4].copy_from_slice(&70_000_f32.to_le_bytes());
    let dir = tempdir().unwrap();
    raw.write(dir.path());
    assert!(load_cpu(dir.path()).is_ok());
    assert!(reason(load(dir.path(), &model(), DType::F16, &Device::Cpu)).contains("larger than 65504"));
}

#[test]
fn target_modules_may_be_written_in_every_way_of_peft() {
    let all: Vec<TargetModule> = TargetModule::ALL.to_vec();
    let attention = vec![Q, TargetModule::K];
    for (targets, modules) in [
        (json!("all-linear"), &all),
        (json!(r".*\.self_attn\.(q|k)_proj"), &attention),
        (json!(["self_attn.q_proj", "k_proj", "k_proj"]), &attention),
    ] {
        let mut raw = Raw::new(modules);
        raw.set("target_modules", targets.clone());
        let loaded = load_raw(&raw).unwrap();
        assert_eq!(&loaded.config.unwrap().target_modules, modules, "{targets}");
        assert_eq!(loaded.weights.iter().count(), 2 * modules.len());
    }
}

#[test]
fn single_layers_and_their_own_ranks_and_alphas_are_honoured() {
    let mut raw = Raw::new(&[]);
    raw.push_site(1, Q, 3);
    raw.push_site(1, TargetModule::V, 2);
    raw.set("target_modules", json!(["q_proj", "v_proj"]));
    raw.set("layers_to_transform", json!([1]));
    raw.set("rank_pattern", json!({"q_proj": 3}));
    raw.set("alpha_pattern", json!({"layers.1.self_attn.v_proj": 1}));
    let loaded = load_raw(&raw).unwrap();
    assert_eq!(pair(&loaded, 1, Q).scale, 2.0);
    assert_eq!(pair(&loaded, 1, TargetModule::V).scale, 0.5);
    assert!(loaded.weights.get(Site { layer: 0, module: Q }).is_none());
}

#[test]
fn names_that_kept_the_adapter_name_load() {
    let mut raw = Raw::new(&[Q]);
    for tensor in &mut raw.tensors {
        tensor.name = tensor.name.replace(".weight", ".default.weight");
    }
    assert!(load_raw(&raw).is_ok());
}

#[test]
fn nothing_unreadable_is_written() {
    let good = config(&[Q]);
    let target = tempdir().unwrap();
    let dir = target.path().join("adapter");
    let refused = |config: &PeftConfig, weights: &AdapterWeights| {
        assert!(matches!(save(&dir, config, weights), Err(AdapterError::Invalid(_))));
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
    };
    refused(&good, &AdapterWeights::empty(2));
    refused(&PeftConfig { use_dora: true, ..good.clone() }, &weights(&good, 1.0));
    refused(&config(&[Q, TargetModule::V]), &weights(&good, 1.0));
    refused(&good, &weights(&good, f32::NAN));
    let mut uneven = weights(&good, 1.0);
    let site = Site { layer: 0, module: Q };
    let pair = uneven.get(site).unwrap().clone();
    uneven.insert(site, LoraPair { b: pair.b.narrow(1, 0, 1).unwrap().contiguous().unwrap(), ..pair });
    refused(&good, &uneven);
}

#[test]
fn what_differs_from_site_to_site_is_read_back_as_it_was_written() {
    let vector =
        |count: usize| Tensor::new((0..count).map(|i| i as f32 + 0.5).collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let matrix = |rows: usize, columns: usize| vector(rows * columns).reshape((rows, columns)).unwrap();
    let sites = [(0, Q, 2, 3.0), (1, Q, 3, 0.25), (1, TargetModule::Down, 2, 3.0)];
    for (use_dora, use_rslora) in [(false, false), (true, true)] {
        let config = PeftConfig { use_dora, use_rslora, ..config(&[Q, TargetModule::Down]) };
        let mut written = AdapterWeights::empty(2);
        for (layer, module, rank, scale) in sites {
            let (input, output) = widths(module);
            let magnitude = use_dora.then(|| Magnitude::Wanted(vector(output)));
            let pair = LoraPair { a: matrix(rank, input), b: matrix(output, rank), scale, magnitude };
            written.insert(Site { layer, module }, pair);
        }
        let dir = tempdir().unwrap();
        save(&dir.path().join("a"), &config, &written).unwrap();
        let read = load(&dir.path().join("a"), &model(), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(read.config.as_ref(), Some(&config));
        assert_eq!(read.weights.iter().count(), 3);
        for (layer, module, rank, scale) in sites {
            let pair = read.weights.get(Site { layer, module }).unwrap();
            assert_eq!(pair.a.dims()[0], rank);
            assert!((pair.scale - scale).abs() < 1e-9, "{} is not {scale}", pair.scale);
            let magnitude = pair.magnitude.as_ref().map(|m| m.tensor().to_vec1::<f32>().unwrap());
            assert_eq!(magnitude, use_dora.then(|| vector(widths(module).1).to_vec1().unwrap()));
        }
    }
}

#[test]
fn saving_replaces_an_adapter_and_leaves_nothing_beside_it() {
    let target = tempdir().unwrap();
    let dir = target.path().join("nested/adapter");
    for start in [1.0, 2.0, 3.0] {
        testing::write_adapter(&dir, start);
        assert_eq!(testing::first_value(&load_cpu(&dir).unwrap().weights), start);
    }
    assert_eq!(std::fs::read_dir(target.path().join("nested")).unwrap().count(), 1);
}

#[test]
fn saving_never_destroys_other_files() {
    let target = tempdir().unwrap();
    std::fs::write(target.path().join("thesis.tex"), "years of work").unwrap();
    let config = config(&[Q]);
    let error = save(target.path(), &config, &weights(&config, 1.0)).unwrap_err();
    assert!(error.to_string().contains("thesis.tex"));
    assert_eq!(std::fs::read_to_string(target.path().join("thesis.tex")).unwrap(), "years of work");
}

#[test]
fn a_link_is_saved_through() {
    let target = tempdir().unwrap();
    testing::write_adapter(&target.path().join("run"), 1.0);
    std::os::unix::fs::symlink("run", target.path().join("latest")).unwrap();
    testing::write_adapter(&target.path().join("latest"), 2.0);
    assert_eq!(testing::first_value(&load_cpu(&target.path().join("run")).unwrap().weights), 2.0);
}

#[test]
fn a_reader_during_saves_sees_one_version_whole() {
    let target = tempdir().unwrap();
    let dir = target.path().join("adapter");
    let versions = [1.0_f32, 2.0].map(|value| PeftConfig { alpha: f64::from(value), ..config(&[Q]) });
    let write = |version: &PeftConfig| save(&dir, version, &weights(version, version.alpha as f32)).unwrap();
    write(&versions[0]);
    let mut whole = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..150).for_each(|i| write(&versions[i % 2])));
        while !writer.is_finished() || whole == 0 {
            match load_cpu(&dir) {
                Ok(loaded) => {
                    assert_eq!(f64::from(testing::first_value(&loaded.weights)), loaded.config.unwrap().alpha);
                    whole += 1;
                }
                // The old directory was opened, and removed before its files were.
                Err(error) => assert!(error.to_string().contains("has no file"), "{error}"),
            }
        }
    });
}
