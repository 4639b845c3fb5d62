//! Safetensors on disk: one file, shards with an index, other types, and what must be refused by name.

use super::*;
use crate::model::weights::load_decoder;
use std::path::Path;

fn write_config(dir: &Path, config: &ModelConfig) {
    std::fs::write(dir.join("config.json"), config.to_json().to_string()).unwrap();
}

fn save(path: &Path, tensors: &HashMap<String, Tensor>) {
    candle_core::safetensors::save(tensors, path).unwrap();
}

fn load_error(dir: &Path) -> String {
    load_decoder(dir, DType::F32, &Device::Cpu).err().unwrap().to_string()
}

#[test]
fn one_file_and_shards_give_the_same_model() {
    let config = config(Family::Llama);
    let tensors = random_tensors(&config, 3);
    let (single, sharded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_config(single.path(), &config);
    write_config(sharded.path(), &config);
    save(&single.path().join("model.safetensors"), &tensors);
    let mut parts = [HashMap::new(), HashMap::new()];
    let mut index = serde_json::Map::new();
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        parts[i % 2].insert(name.clone(), tensor.clone());
        index.insert(name.clone(), format!("part-{}.safetensors", i % 2).into());
    }
    parts.iter().enumerate().for_each(|(i, p)| save(&sharded.path().join(format!("part-{i}.safetensors")), p));
    let index = serde_json::json!({"weight_map": index}).to_string();
    std::fs::write(sharded.path().join("model.safetensors.index.json"), index).unwrap();
    let [a, b] = [&single, &sharded].map(|dir| load_decoder(dir.path(), DType::F32, &Device::Cpu).unwrap());
    assert_eq!(whole_prompt(&a, &tokens(9, 1)), whole_prompt(&b, &tokens(9, 1)));
    std::fs::remove_file(sharded.path().join("part-1.safetensors")).unwrap();
    assert!(load_error(sharded.path()).contains("part-1.safetensors"));
}

#[test]
fn half_precision_files_load() {
    let config = config(Family::Llama);
    let tensors = random_tensors(&config, 3);
    for dtype in [DType::F16, DType::BF16] {
        let dir = tempfile::tempdir().unwrap();
        write_config(dir.path(), &config);
        let half: HashMap<_, _> = tensors.iter().map(|(n, t)| (n.clone(), t.to_dtype(dtype).unwrap())).collect();
        save(&dir.path().join("model.safetensors"), &half);
        let rounded = half.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::F32).unwrap())).collect();
        let expected = Decoder::from_tensors(config.clone(), &rounded).unwrap();
        let loaded = load_decoder(dir.path(), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(whole_prompt(&loaded, &tokens(9, 1)), whole_prompt(&expected, &tokens(9, 1)));
    }
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    let config = config(Family::Llama);
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &config);
    assert!(load_error(dir.path()).contains("model.safetensors"));
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut tensors = random_tensors(&config, 3);
    tensors.insert(name.into(), Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap());
    save(&dir.path().join("model.safetensors"), &tensors);
    let error = load_error(dir.path());
    assert!(error.contains(name) && error.contains("[48, 32]") && error.contains("[3, 4]"), "{error}");
    tensors.remove(name);
    save(&dir.path().join("model.safetensors"), &tensors);
    assert_eq!(load_error(dir.path()), format!("missing tensor `{name}`"));
}

#[test]
fn a_truncated_file_is_an_error_that_names_it() {
    let config = config(Family::Llama);
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &config);
    let path = dir.path().join("model.safetensors");
    save(&path, &random_tensors(&config, 3));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(load_error(dir.path()).contains("model.safetensors"));
}
