//! ZeRO checkpoints of every stage, laid out as DeepSpeed lays them out, give back the weights that were trained.

use crate::models::{config, files, logits_of, random, read, write};
use crate::torch_save::{Object, named, save, text};
use callsmith::model::{ModelConfig, decoder};
use callsmith_train::convert::zero;
use callsmith_train::tensors::Raw;
use candle_core::{DType, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const WORLD: usize = 3;

/// A model with two groups of parameters, none of them a multiple of the alignment.
struct Trained {
    groups: [Vec<(&'static str, Tensor)>; 2],
    frozen: Vec<(&'static str, Tensor)>,
}

fn trained() -> Trained {
    Trained {
        groups: [
            vec![("module.a.weight", random(&[5, 3], 1)), ("module.b.weight", random(&[7], 2))],
            vec![("module.a.bias", random(&[4], 3)), ("module.scale", random(&[], 4))],
        ],
        frozen: vec![("module.table", random(&[2, 5], 5).to_dtype(DType::BF16).unwrap())],
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn tensor(tensor: &Tensor) -> Object {
    let raw = Raw::of(tensor).unwrap();
    Object::Tensor { dtype: raw.layout.dtype, shape: raw.layout.shape, bytes: raw.bytes }
}

fn flat(values: &[f32]) -> Object {
    Object::floats(&[values.len()], values)
}

fn shapes(parameters: &[(&str, Tensor)]) -> Object {
    Object::OrderedDict(
        parameters.iter().map(|(name, tensor)| (text(name), Object::Size(tensor.dims().to_vec()))).collect(),
    )
}

fn padded(mut values: Vec<f32>, length: usize) -> Vec<f32> {
    values.resize(length, 0.0);
    values
}

/// The rank's share of values that are divided evenly, the last ones padding.
fn share(values: &[f32], rank: usize, world: usize) -> Vec<f32> {
    let share = values.len().div_ceil(world);
    padded(values.to_vec(), share * world)[rank * share..][..share].to_vec()
}

/// What one rank's optimizer has of the masters.
fn masters(model: &Trained, stage: i64, rank: usize) -> Object {
    let of_group = |group: &Vec<(&str, Tensor)>| match stage {
        3 => group.iter().flat_map(|(_, tensor)| share(&values(tensor), rank, WORLD)).collect(),
        _ => {
            let all: Vec<f32> = group.iter().flat_map(|(_, tensor)| values(tensor)).collect();
            let length = all.len().next_multiple_of(2 * WORLD);
            share(&padded(all, length), rank, WORLD)
        }
    };
    Object::List(model.groups.iter().map(|group| flat(&of_group(group))).collect())
}

fn optimizer(model: &Trained, stage: i64, rank: usize) -> Object {
    let scaler = named([("cur_scale", Object::Float(1.0)), ("dynamic", Object::Bool(false))]);
    let key = if stage == 3 { "fp32_flat_groups" } else { "single_partition_of_fp32_groups" };
    let counts = Object::List(vec![Object::Int(WORLD as i64); model.groups.len()]);
    let states = named([
        ("loss_scaler", Object::Instance("deepspeed.runtime.fp16.loss_scaler.LossScaler", scaler)),
        ("overflow", Object::Bool(false)),
        (
            "base_optimizer_state",
            Object::Dict(vec![(Object::Int(0), Object::Dict(named([("step", Object::Int(1 << 40))])))]),
        ),
        ("zero_stage", Object::Call("deepspeed.runtime.zero.config.ZeroStageEnum", vec![Object::Int(stage)])),
        ("partition_count", if stage == 3 { Object::Int(WORLD as i64) } else { counts }),
        (key, masters(model, stage, rank)),
    ]);
    Object::Dict(named([("optimizer_state_dict", Object::Dict(states)), ("ds_version", text("0.17.1"))]))
}

fn fragment(tensor_: &Tensor, stage: i64, rank: usize) -> Object {
    match stage {
        3 => tensor(
            &Tensor::from_vec(
                share(&values(tensor_), rank, WORLD),
                tensor_.elem_count().div_ceil(WORLD),
                tensor_.device(),
            )
            .unwrap()
            .to_dtype(tensor_.dtype())
            .unwrap(),
        ),
        _ => tensor(tensor_),
    }
}

fn states(model: &Trained, stage: i64, rank: usize) -> Object {
    let fragments = model.frozen.iter().map(|(name, tensor)| (text(name), fragment(tensor, stage, rank)));
    let positions: Vec<u8> = [0i64, 1].iter().flat_map(|value| value.to_le_bytes()).collect();
    let module = named([
        ("module.running", flat(&[0.5, 0.25])),
        ("module.positions", Object::Tensor { dtype: Dtype::I64, shape: vec![2], bytes: positions }),
        ("module.a.weight", Object::floats(&[0], &[])),
    ]);
    let sets = Object::Call("__builtin__.set", vec![Object::List(Vec::new())]);
    Object::Dict(named([
        ("module", Object::OrderedDict(module)),
        ("buffer_names", Object::List(vec![text("module.running"), text("module.positions")])),
        ("optimizer", Object::None),
        ("param_shapes", Object::List(model.groups.iter().map(|group| shapes(group)).collect())),
        ("frozen_param_shapes", shapes(&model.frozen)),
        ("shared_params", Object::Dict(named([("module.head.weight", text("module.a.weight"))]))),
        ("frozen_param_fragments", Object::Dict(fragments.collect())),
        ("sparse_tensor_module_names", sets),
        ("dp_world_size", Object::Int(WORLD as i64)),
    ]))
}

fn checkpoint(stage: i64) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let step = root.path().join("global_step7");
    fs::create_dir(&step).unwrap();
    fs::write(root.path().join("latest"), "global_step7").unwrap();
    let model = trained();
    for rank in 0..WORLD {
        let of_rank = format!("zero_pp_rank_{rank}_mp_rank_00");
        save(&step.join(format!("bf16_{of_rank}_optim_states.pt")), &optimizer(&model, stage, rank));
        match stage {
            3 => save(&step.join(format!("{of_rank}_model_states.pt")), &states(&model, stage, rank)),
            _ => save(&step.join("mp_rank_00_model_states.pt"), &states(&model, stage, rank)),
        }
    }
    (root, step)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

/// The single file that a checkpoint becomes.
fn consolidated(root: &Path) -> callsmith_train::Result<Vec<u8>> {
    let out = root.join("weights.safetensors");
    zero::to_hf(root, None, &out)?;
    Ok(fs::read(out).unwrap())
}

#[test]
fn every_stage_gives_back_what_was_trained_in_f32() {
    for stage in [1, 2, 3] {
        let (root, _step) = checkpoint(stage);
        let bytes = consolidated(root.path()).unwrap();
        let found = SafeTensors::deserialize(&bytes).unwrap();
        let model = trained();
        for (name, expected) in model.groups.iter().flatten().chain(&model.frozen) {
            let view = found.tensor(name.strip_prefix("module.").unwrap()).unwrap();
            assert_eq!((view.dtype(), view.shape()), (Dtype::F32, expected.dims()), "stage {stage}: {name}");
            assert_eq!(floats(view.data()), values(expected), "stage {stage}: {name}");
        }
        let head = found.tensor("head.weight").unwrap();
        assert_eq!(head.data(), found.tensor("a.weight").unwrap().data());
        assert_eq!(floats(found.tensor("running").unwrap().data()), [0.5, 0.25]);
        assert_eq!(found.tensor("positions").unwrap().dtype(), Dtype::I64);
        assert_eq!(found.len(), 8);
    }
}

/// A checkpoint of stage 2, of two ranks, of a decoder's own weights.
fn decoder_checkpoint(config: &ModelConfig) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let hf = root.path().join("trained");
    write(&hf, config, Dtype::F32, &[]);
    let weights = read(&hf);
    let step = root.path().join("checkpoint/step1");
    fs::create_dir_all(&step).unwrap();
    fs::copy(hf.join("config.json"), root.path().join("checkpoint/config.json")).unwrap();
    let parameters: Vec<(String, Vec<usize>)> = decoder::parameter_shapes(config);
    let all: Vec<f32> = parameters.iter().flat_map(|(name, _)| floats(&weights[name].bytes)).collect();
    for rank in 0..2 {
        let states = named([
            ("zero_stage", Object::Int(2)),
            ("partition_count", Object::Int(2)),
            ("single_partition_of_fp32_groups", Object::List(vec![flat(&share(&all, rank, 2))])),
        ]);
        let file = step.join(format!("zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"));
        save(&file, &Object::Dict(named([("optimizer_state_dict", Object::Dict(states))])));
    }
    let shapes = parameters.into_iter().map(|(name, shape)| (text(&name), Object::Size(shape))).collect();
    let shapes = Object::List(vec![Object::OrderedDict(shapes)]);
    save(&step.join("mp_rank_00_model_states.pt"), &Object::Dict(named([("param_shapes", shapes)])));
    root
}

#[test]
fn a_decoders_checkpoint_becomes_a_model_directory() {
    let root = decoder_checkpoint(&config());
    let (from, out) = (root.path().join("checkpoint"), root.path().join("out"));
    zero::to_hf(&from, Some("step1"), &out).unwrap();
    assert_eq!(logits_of(&out), logits_of(&root.path().join("trained")));
    // Without config.json nobody knows what the tensors are.
    fs::remove_file(from.join("config.json")).unwrap();
    let error = zero::to_hf(&from, Some("step1"), &root.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    assert!(!root.path().join("other").exists());
}

#[test]
fn tensors_that_are_not_the_decoders_are_refused_by_name() {
    let root = decoder_checkpoint(&config());
    let from = root.path().join("checkpoint");
    let more = ModelConfig { num_layers: 3, ..config() };
    fs::write(from.join("config.json"), more.to_json().to_string()).unwrap();
    let error = zero::to_hf(&from, Some("step1"), &root.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("model.layers.2.") && error.contains(".safetensors"), "{error}");
}

#[test]
fn a_checkpoint_that_is_not_whole_is_refused_by_name() {
    let cases = [
        (2, "mp_rank_00_model_states.pt", "mp_rank_00_model_states.pt"),
        (2, "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        (2, "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt", "of 2 ranks, but 3 trained"),
        (3, "zero_pp_rank_1_mp_rank_00_model_states.pt", "zero_pp_rank_1_mp_rank_00_model_states.pt"),
        (3, "zero_pp_rank_2_mp_rank_00_model_states.pt", "2 files *_model_states.pt of 3 ranks"),
    ];
    for (stage, absent, expected) in cases {
        let (root, step) = checkpoint(stage);
        fs::remove_file(step.join(absent)).unwrap();
        let error = consolidated(root.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(files(root.path()), ["global_step7", "latest"]);
    }
}

#[test]
fn a_model_that_was_divided_by_itself_too_is_refused_by_name() {
    let (root, step) = checkpoint(1);
    fs::write(step.join("zero_pp_rank_0_mp_rank_01_optim_states.pt"), "").unwrap();
    let error = consolidated(root.path()).unwrap_err().to_string();
    assert!(error.contains("mp_rank_01") && error.contains("divided among devices"), "{error}");
}

#[test]
fn shapes_that_do_not_account_for_the_values_are_refused() {
    for stage in [2, 3] {
        let (root, step) = checkpoint(stage);
        let mut other = trained();
        other.groups[1].push(("module.more", random(&[20], 9)));
        let name = if stage == 3 { "zero_pp_rank_0_mp_rank_00_model_states.pt" } else { "mp_rank_00_model_states.pt" };
        save(&step.join(name), &states(&other, stage, 0));
        let error = consolidated(root.path()).unwrap_err().to_string();
        assert!(error.contains("values"), "{error}");
    }
}

#[test]
fn an_object_of_the_training_script_is_refused_by_its_name() {
    let (root, step) = checkpoint(2);
    let Object::Dict(mut entries) = states(&trained(), 2, 0) else { panic!("no dict") };
    entries.push((text("args"), Object::Instance("argparse.Namespace", named([("lr", Object::Float(0.1))]))));
    save(&step.join("mp_rank_00_model_states.pt"), &Object::Dict(entries));
    let error = consolidated(root.path()).unwrap_err().to_string();
    assert!(
        error.contains("an object of `argparse.Namespace`") && error.contains("mp_rank_00_model_states.pt"),
        "{error}"
    );
}

#[test]
fn a_folder_that_is_not_there_is_asked_for_by_name() {
    let (root, _step) = checkpoint(2);
    let out = root.path().join("x.safetensors");
    let refused = |tag: Option<&str>| zero::to_hf(root.path(), tag, &out).unwrap_err().to_string();
    assert!(refused(Some("global_step8")).contains("global_step8"));
    assert!(refused(Some("../global_step7")).contains("--tag"));
    fs::remove_file(root.path().join("latest")).unwrap();
    assert!(refused(None).contains("--tag"));
    fs::write(root.path().join("latest"), "").unwrap();
    assert!(refused(None).contains("--tag"));
}
