//! Settings, tensors and files that must be refused: with the reason, without a panic, without waiting.

use super::super::super::testing::{Raw, file, make_pipe, write_files};
use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Loads a file beside a good configuration.
fn load_file(weights: &[u8]) -> Result<LoadedAdapter, AdapterError> {
    let dir = tempdir().unwrap();
    write_files(dir.path(), Raw::new(&[Q]).config.to_string().as_bytes(), weights);
    load_cpu(dir.path())
}

#[test]
fn unsupported_and_absurd_settings_are_refused_by_name() {
    let many: Vec<usize> = vec![0; 2000];
    for (field, value) in [
        ("peft_type", json!("LOHA")),
        ("peft_type", json!(null)),
        ("bias", json!("all")),
        ("use_bdlora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("exclude_modules", json!(["q_proj"])),
        ("exclude_modules", json!(".*q_proj")),
        ("layers_pattern", json!("h")),
        ("layer_replication", json!([[0, 1]])),
        ("use_something_new", json!(true)),
        ("something_new_config", json!({"gamma": 2})),
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
fn every_setting_that_peft_writes_by_itself_is_accepted() {
    // As PEFT 0.21 writes them.
    let off = [
        "alora_invocation_tokens",
        "arrow_config",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "kasa_config",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "lora_ga_config",
        "megatron_config",
        "modules_to_save",
        "revision",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "velora_config",
    ];
    let mut raw = Raw::new(&[Q]);
    off.iter().for_each(|name| raw.set(name, json!(null)));
    for name in ["ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora", "use_rslora"] {
        raw.set(name, json!(false));
    }
    for (name, value) in [
        ("alpha_pattern", json!({})),
        ("rank_pattern", json!({})),
        ("loftq_config", json!({})),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("lora_dropout", json!(0.05)),
        ("megatron_core", json!("megatron.core")),
        ("peft_version", json!("0.21.0")),
        ("qalora_group_size", json!(16)),
        ("runtime_config", json!({"ephemeral_gpu_offload": false})),
        ("task_type", json!("CAUSAL_LM")),
    ] {
        raw.set(name, value);
    }
    assert_eq!(load_raw(&raw).unwrap().config.unwrap().dropout, 0.05);
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
    let cases: [(&str, Damage); 15] = [
        ("layers.1.self_attn.q_proj.lora_B.weight` is missing", |raw| drop(raw.tensors.remove(3))),
        ("layers.0.self_attn.q_proj.lora_A.weight` is missing", |raw| drop(raw.tensors.remove(0))),
        ("layers.0.self_attn.q_proj.lora_A.weight` is missing", |raw| raw.tensors.clear()),
        ("`lm_head.weight` is not known", |raw| raw.push("lm_head.weight", &[2, 8])),
        ("lora_magnitude_vector` is missing", |raw| raw.set("use_dora", json!(true))),
        ("lora_magnitude_vector` is not selected", |raw| {
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
    #![proptest_config(ProptestConfig { cases: 1500, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

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
    for magic in [&b"PK\x03\x04 a zip that torch.save wrote"[..], b"\x80\x02}q\x00 a pickle", b"GGUF\x03\0\0\0\0\0\0\0"]
    {
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
