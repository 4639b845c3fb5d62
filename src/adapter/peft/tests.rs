//! Directories that load, and the many that must not.

use super::super::testing::{self, Raw, config, file, make_pipe, model, weights, write_files};
use super::*;
use proptest::prelude::*;
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

/// Loads a file beside a good configuration.
fn load_file(weights: &[u8]) -> Result<LoadedAdapter, AdapterError> {
    let dir = tempdir().unwrap();
    write_files(dir.path(), Raw::new(&[Q]).config.to_string().as_bytes(), weights);
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
        assert_eq!(loaded.config, config);
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
    assert!(reason(load(dir.path(), &model(), DType::F16, &Device::Cpu)).contains("too large for F16"));
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
        assert_eq!(&loaded.config.target_modules, modules, "{targets}");
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
fn unsupported_and_absurd_settings_are_refused_by_name() {
    let many: Vec<usize> = vec![0; 2000];
    for (field, value) in [
        ("peft_type", json!("LOHA")),
        ("peft_type", json!(null)),
        ("bias", json!("all")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("fan_in_fan_out", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("r", json!(-1)),
        ("r", json!(2.5)),
        ("r", json!("2")),
        ("r", json!(u64::MAX)),
        ("lora_alpha", json!("6")),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(-6)),
        ("lora_alpha", json!(1e300)),
        ("lora_dropout", json!(1.0)),
        ("use_rslora", json!("yes")),
        ("target_modules", json!(null)),
        ("target_modules", json!([])),
        ("target_modules", json!([7])),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!("(q_proj")),
        ("target_modules", json!("nothing")),
        ("target_modules", json!(many)),
        ("target_modules", json!("((((a{1000}){1000}){1000})")),
        ("layers_to_transform", json!([2])),
        ("layers_to_transform", json!("all")),
        ("rank_pattern", json!({"q_proj": 0})),
        ("rank_pattern", json!(["q_proj"])),
        ("alpha_pattern", json!({"q_proj": "x"})),
        ("alpha_pattern", json!({"(": 1})),
    ] {
        let mut raw = Raw::new(&[Q]);
        raw.set(field, value.clone());
        let reason = reason(load_raw(&raw));
        assert!(reason.contains(&format!("`{field}`")), "{field}: {value}: {reason}");
    }
}

#[test]
fn settings_that_are_off_do_no_harm() {
    let mut raw = Raw::new(&[Q]);
    for (field, value) in [
        ("use_dora", json!(false)),
        ("modules_to_save", json!(null)),
        ("rank_pattern", json!({})),
        ("init_lora_weights", json!(true)),
        ("layers_to_transform", json!(null)),
        ("revision", json!("main")),
    ] {
        raw.set(field, value);
    }
    assert!(load_raw(&raw).is_ok());
}

#[test]
fn a_configuration_that_is_no_json_object_is_refused() {
    let dir = tempdir().unwrap();
    let good = Raw::new(&[Q]);
    let deep = "[".repeat(100_000);
    let nan = r#"{"peft_type":"LORA","lora_alpha":NaN}"#;
    for text in ["", "{", "[]", "null", "7", "\u{feff}{}", nan, deep.as_str()] {
        write_files(dir.path(), text.as_bytes(), &file(&good.header(), &good.data()));
        assert!(reason(load_cpu(dir.path())).starts_with("adapter_config.json"));
    }
    write_files(dir.path(), &vec![b' '; (1 << 20) + 1], &[]);
    assert!(matches!(load_cpu(dir.path()), Err(AdapterError::TooLarge { limit: 1_048_576, .. })));
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    type Damage = fn(&mut Raw);
    let cases: [(&str, Damage); 14] = [
        ("layers.1.self_attn.q_proj.lora_B.weight` is missing", |raw| drop(raw.tensors.remove(3))),
        ("layers.0.self_attn.q_proj.lora_A.weight` is missing", |raw| drop(raw.tensors.remove(0))),
        ("layers.0.self_attn.q_proj.lora_A.weight` is missing", |raw| raw.tensors.clear()),
        ("`lm_head.weight` is not known", |raw| raw.push("lm_head.weight", &[2, 8])),
        ("lora_magnitude_vector` is not known", |raw| {
            raw.push("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", &[12]);
        }),
        ("is not known", |raw| raw.tensors[0].name = raw.tensors[0].name.replace(".0.", ".00.")),
        ("layers.2.self_attn.q_proj.lora_A.weight` is not selected", |raw| raw.push_site(2, Q, 2)),
        ("mlp.up_proj.lora_A.weight` is not selected", |raw| raw.push_site(0, TargetModule::Up, 2)),
        ("mlp.up_proj.lora_A.weight` is missing", |raw| raw.set("target_modules", json!(["q_proj", "up_proj"]))),
        ("occurs twice", |raw| {
            let name = raw.tensors[0].name.replace(".weight", ".default.weight");
            raw.push(&name, &[2, 8]);
        }),
        ("has shape [2, 8], expected [4, 8]", |raw| raw.set("r", json!(4))),
        ("has shape [8, 2], expected [2, 8]", |raw| raw.tensors[0].shape = vec![8, 2]),
        ("has shape [16], expected [2, 8]", |raw| raw.tensors[0].shape = vec![16]),
        ("dtype F64 is not supported", |raw| {
            raw.tensors[0].dtype = "F64";
            raw.tensors[0].bytes = vec![0; 128];
        }),
    ];
    for (expected, damage) in cases {
        let mut raw = Raw::new(&[Q]);
        damage(&mut raw);
        let reason = reason(load_raw(&raw));
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut raw = Raw::new(&[Q]);
        raw.tensors[2].bytes[8..12].copy_from_slice(&value.to_le_bytes());
        let reason = reason(load_raw(&raw));
        assert!(reason.contains("layers.1.self_attn.q_proj.lora_A.weight") && reason.contains("NaN"), "{reason}");
    }
}

#[test]
fn hostile_headers_are_refused() {
    let good = Raw::new(&[Q]);
    let (header, data) = (good.header(), good.data());
    let twice = format!("{{{0},{0}}}", &header[1..header.len() - 1]);
    let hole = header.replace("[0,64]", "[1,65]");
    let overlap = header.replace("[64,160]", "[0,96]");
    let huge_shape = header.replacen("[2,8]", "[4294967296,4294967296]", 1);
    let many: Vec<String> =
        (0..10_001).map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let mut bloated = file("", &data);
    bloated[..8].copy_from_slice(&(100_u64 << 20).to_le_bytes());
    let mut endless = file(&header, &data);
    endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for (label, bytes) in [
        ("empty", vec![]),
        ("short", vec![1, 0, 0]),
        ("length only", vec![0; 8]),
        ("endless", endless),
        ("bloated", bloated),
        ("duplicate name", file(&twice, &data)),
        ("hole", file(&hole, &data)),
        ("overlap", file(&overlap, &data)),
        ("shape overflow", file(&huge_shape, &data)),
        ("shape zero", file(&header.replacen("[2,8]", "[0,8]", 1), &data)),
        ("negative", file(&header.replacen("[2,8]", "[-2,-8]", 1), &data)),
        ("offsets reversed", file(&header.replacen("[0,64]", "[64,0]", 1), &data)),
        ("unknown field", file(&header.replacen("\"dtype\"", "\"x\":1,\"dtype\"", 1), &data)),
        ("too many", file(&format!("{{{}}}", many.join(",")), &[])),
        ("deep", file(&"[".repeat(100_000), &data)),
        ("tail", [file(&header, &data), vec![0]].concat()),
        ("no object", file("7", &data)),
    ] {
        assert!(reason(load_file(&bytes)).starts_with("adapter_model.safetensors: "), "{label}");
    }
    assert!(load_file(&file(&header, &data)).is_ok());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let good = Raw::new(&[Q]);
    let bytes = file(&good.header(), &good.data());
    for length in 0..bytes.len() {
        reason(load_file(&bytes[..length]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_files_load_or_are_refused(at in any::<prop::sample::Index>(), bits in 1_u8.., in_config in any::<bool>()) {
        let good = Raw::new(&[Q]);
        let mut files = [good.config.to_string().into_bytes(), file(&good.header(), &good.data())];
        let damaged = &mut files[usize::from(!in_config)];
        let at = at.index(damaged.len());
        damaged[at] ^= bits;
        let dir = tempdir().unwrap();
        write_files(dir.path(), &files[0], &files[1]);
        let result = load_cpu(dir.path());
        prop_assert!(matches!(result, Ok(_) | Err(AdapterError::Invalid(_))), "{result:?}");
    }
}

#[test]
fn formats_that_can_run_code_are_never_read() {
    let dir = tempdir().unwrap();
    Raw::new(&[Q]).write(dir.path());
    let weights = dir.path().join("adapter_model.safetensors");
    std::fs::rename(&weights, dir.path().join("adapter_model.bin")).unwrap();
    assert!(reason(load_cpu(dir.path())).contains("safe_serialization=True"));
    for magic in [&b"PK\x03\x04 a zip that torch.save wrote"[..], b"\x80\x02}q\x00 a pickle", b"GGUF\x03\0\0\0\0\0\0\0"] {
        std::fs::write(&weights, magic).unwrap();
        assert!(reason(load_cpu(dir.path())).contains("is not a safetensors file"));
    }
}

#[test]
fn missing_parts_are_named() {
    let dir = tempdir().unwrap();
    assert!(matches!(load_cpu(&dir.path().join("none")), Err(AdapterError::FileNotFound { .. })));
    assert!(reason(load_cpu(dir.path())).contains("adapter_config.json"));
    std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    assert!(reason(load_cpu(dir.path())).contains("adapter_model.safetensors"));
    assert!(reason(load_cpu(&dir.path().join("adapter_config.json"))).contains("is not a directory"));
}

#[test]
fn pipes_and_directories_in_place_of_files_are_refused_without_waiting() {
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let dir = tempdir().unwrap();
        Raw::new(&[Q]).write(dir.path());
        std::fs::remove_file(dir.path().join(name)).unwrap();
        make_pipe(&dir.path().join(name));
        assert!(reason(load_cpu(dir.path())).contains("is not a regular file"));
        std::fs::remove_file(dir.path().join(name)).unwrap();
        std::fs::create_dir(dir.path().join(name)).unwrap();
        assert!(reason(load_cpu(dir.path())).contains("is not a regular file"));
    }
    let dir = tempdir().unwrap();
    make_pipe(&dir.path().join("pipe"));
    assert!(reason(load_cpu(&dir.path().join("pipe"))).contains("is not a directory"));
}

#[test]
fn a_file_over_the_size_limit_is_refused_unread() {
    let dir = tempdir().unwrap();
    Raw::new(&[Q]).write(dir.path());
    let sparse = std::fs::File::create(dir.path().join("adapter_model.safetensors")).unwrap();
    sparse.set_len((1 << 30) + 1).unwrap();
    assert!(matches!(load_cpu(dir.path()), Err(AdapterError::TooLarge { bytes: 1_073_741_825, .. })));
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
    refused(&PeftConfig { rank: 4, alpha: 12.0, ..good.clone() }, &weights(&good, 1.0));
    refused(&PeftConfig { alpha: 7.0, ..good.clone() }, &weights(&good, 1.0));
    refused(&config(&[Q, TargetModule::V]), &weights(&good, 1.0));
    refused(&good, &weights(&good, f32::NAN));
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
                    assert_eq!(f64::from(testing::first_value(&loaded.weights)), loaded.config.alpha);
                    whole += 1;
                }
                // The old directory was opened, and removed before its files were.
                Err(error) => assert!(error.to_string().contains("has no file"), "{error}"),
            }
        }
    });
}
