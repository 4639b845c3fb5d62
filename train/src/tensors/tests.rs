//! What is written is read back, whole, in one file or several.

use super::*;
use callsmith::model::ModelError;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn tensor(dtype: Dtype, shape: &[usize], first: u8) -> Raw {
    let layout = Layout { dtype, shape: shape.to_vec() };
    let bytes = (0..layout.bytes().unwrap()).map(|i| first.wrapping_add(i as u8)).collect();
    Raw { layout, bytes }
}

fn model() -> BTreeMap<String, Raw> {
    let tensors = [
        ("a", tensor(Dtype::BF16, &[3, 5], 1)),
        ("b", tensor(Dtype::F32, &[4], 2)),
        ("c", tensor(Dtype::BOOL, &[3], 0)),
        ("d", tensor(Dtype::I64, &[2, 1], 4)),
        ("scalar", tensor(Dtype::F32, &[], 5)),
    ];
    tensors.map(|(name, raw)| (name.to_owned(), raw)).into()
}

fn save(dir: &Path, limit: u64) -> Result<()> {
    let model = model();
    let plans: Vec<Plan> = model.iter().map(|(name, raw)| Plan::new(name, raw.layout.clone())).collect();
    write::sharded(dir, &plans, limit, &mut |plan| Ok(model[&plan.name].bytes.clone()))
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn tensors_of_every_type_survive_in_one_file_or_in_several() {
    for (limit, expected) in [(1000, 1), (36, 3), (1, 5)] {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), limit).unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        let read: BTreeMap<_, _> = weights.names().map(|name| (name.to_owned(), weights.read(name).unwrap())).collect();
        assert_eq!(read, model());
        let names = files(dir.path());
        let shards = names.iter().filter(|name| name.ends_with(".safetensors")).count();
        assert_eq!((shards, names.len()), (expected, expected + usize::from(expected > 1)), "{names:?}");
    }
}

#[test]
fn the_index_says_the_size_and_the_file_of_each_tensor() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), 36).unwrap();
    let text = fs::read_to_string(dir.path().join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["metadata"]["total_size"], 30 + 16 + 3 + 16 + 4);
    assert_eq!(index["weight_map"]["a"], "model-00001-of-00003.safetensors");
    assert_eq!(index["weight_map"]["scalar"], "model-00003-of-00003.safetensors");
}

#[test]
fn the_library_that_others_read_with_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), 1000).unwrap();
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("a").unwrap().data(), model()["a"].bytes);
    for (_, view) in read.iter() {
        let at = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert!(at.is_multiple_of(view.dtype().bitsize() / 8), "{at} of {}", view.dtype());
    }
}

#[test]
fn a_truncated_or_padded_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), 1000).unwrap();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let longer = [whole.as_slice(), &[0]].concat();
    let huge = [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat();
    for damaged in [&whole[..whole.len() - 1], &whole[..5], &longer, &huge] {
        fs::write(&path, damaged).unwrap();
        let error = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: is not a whole safetensors file"), "{error}");
    }
}

#[test]
fn a_tensor_that_two_files_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), 36).unwrap();
    let shard = |number| dir.path().join(format!("model-{number:05}-of-00003.safetensors"));
    fs::copy(shard(1), shard(2)).unwrap();
    assert!(Weights::open(dir.path()).unwrap_err().to_string().contains("in another file"));
}

#[test]
fn an_absent_tensor_is_named() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), 1000).unwrap();
    let error = Weights::open(dir.path()).unwrap().read("other").unwrap_err();
    assert!(matches!(&error, TrainError::Model(ModelError::MissingTensor(name)) if name == "other"), "{error}");
}

#[test]
fn values_that_do_not_fit_the_wanted_type_are_refused_by_name() {
    let raw = |value: f32| Raw::of(&Tensor::new(&[value, 1.0], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(raw(0.5).into_bytes("w", Dtype::F16).unwrap(), [0x00, 0x38, 0x00, 0x3c]);
    for value in [1e6, f32::INFINITY, f32::NAN] {
        let error = raw(value).into_bytes("w", Dtype::F16).unwrap_err().to_string();
        assert!(error.contains("`w`") && error.contains("F16"), "{error}");
    }
    assert_eq!(raw(1e6).into_bytes("w", Dtype::F32).unwrap(), raw(1e6).bytes);
}

#[test]
fn nothing_is_left_of_a_file_whose_values_fail() {
    let dir = tempfile::tempdir().unwrap();
    let plans = [Plan::new("a", Layout { dtype: Dtype::F32, shape: vec![2] })];
    let path = dir.path().join("made/x.safetensors");
    let error = write::file(&path, &plans, &mut |_| Ok(vec![0; 3])).unwrap_err().to_string();
    assert!(error.contains("`a` has 3 bytes, expected 8"), "{error}");
    assert_eq!(files(&dir.path().join("made")), Vec::<String>::new());
}
