//! Losses that explode: the run ends with a clear error, and no value that is not finite ever reaches the disk.

use crate::process::{Scratch, assert_finite, checkpoints, finish, trainer};
use candle_core::{Device, Tensor};

#[test]
fn values_that_overflow_are_not_saved_and_end_the_run() {
    let scratch = Scratch::new();
    let output = scratch.path("run");
    let sets = ["optim.lr=1e39", "optim.clip=1e30", "checkpoint.every=1"];
    let (status, words) = finish(&mut trainer(&scratch.full(300), &output, &sets));
    assert_eq!(status.code(), Some(1), "{words}");
    let error = words.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("finite") && error.contains("optim.lr"), "{words}");
    assert_finite(&output);
    assert!(!output.join("model").exists());
}

#[test]
fn losses_that_stay_infinite_are_skipped_and_then_end_the_run() {
    let scratch = Scratch::new();
    let output = scratch.path("run");
    let sets = ["optim.lr=1e12", "optim.clip=1e30", "checkpoint.every=1000"];
    let (status, words) = finish(&mut trainer(&scratch.full(300), &output, &sets));
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("not finite in 10 steps in a row"), "{words}");
    assert_finite(&output);
}

#[test]
fn a_base_with_an_infinite_weight_is_named_and_trains_nothing() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.lora(300), scratch.path("run"));
    let file = scratch.path("base/model/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    let mut values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[7] = f32::INFINITY;
    let tensor = Tensor::from_vec(values, tensors[name].dims(), &Device::Cpu).unwrap();
    tensors.insert(name.to_owned(), tensor);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let (status, words) = finish(&mut trainer(&recipe, &output, &[]));
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("base/model") && words.contains(name), "{words}");
    assert!(checkpoints(&output).is_empty() && !output.join("model").exists());
}
