//! Tables with rows of their own for some tokens: what they compute, and that these rows alone are trained.

use super::gradients::{Task, check_slopes};
use super::*;
use crate::model::gguf::Encoding;
use crate::model::ops;
use crate::model::weight::Weight;
use candle_core::{CpuStorage, Storage, Var};

/// Random rows, `[n, hidden]`.
fn rows(config: &ModelConfig, n: usize, seed: u64) -> Var {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..n * config.hidden_size).map(|_| rng.random_range(-0.5f32..0.5)).collect();
    Var::from_tensor(&Tensor::from_vec(values, (n, config.hidden_size), &Device::Cpu).unwrap()).unwrap()
}

/// A table with rows that begin at `first`.
fn spliced(table: &Tensor, first: usize, rows: &Tensor) -> Tensor {
    let (end, count) = (first + rows.dims()[0], table.dims()[0]);
    let mut parts = vec![table.narrow(0, 0, first).unwrap(), rows.clone()];
    parts.extend((end < count).then(|| table.narrow(0, end, count - end).unwrap()));
    Tensor::cat(&parts, 0).unwrap()
}

/// Tokens among which those from `first` on occur, read and predicted.
fn task(first: u32, n: u32) -> Task {
    let mut task = Task::new();
    for i in 0..n {
        task.tokens[3 + 7 * i as usize] = first + i;
        task.targets[2 + 3 * i as usize] = first + i;
    }
    task
}

#[test]
fn new_rows_behind_or_among_the_others_are_those_of_a_larger_table() {
    for family in [Family::Llama, Family::Qwen2] {
        for first in [20, 60, 61] {
            let config = config(family);
            let mut tensors = random_tensors(&config, 3);
            let (embedding, head) = (rows(&config, 3, 5), rows(&config, 3, 6));
            let decoder = Decoder::from_tensors(config.clone(), &tensors).unwrap();
            let decoder =
                decoder.with_token_rows(first, embedding.as_tensor().clone(), Some(head.as_tensor().clone())).unwrap();
            for (name, rows) in [("model.embed_tokens.weight", &embedding), ("lm_head.weight", &head)] {
                if let Some(table) = tensors.get_mut(name) {
                    *table = spliced(table, first, rows);
                }
            }
            let larger = ModelConfig { vocab_size: 61.max(first + 3), ..config };
            assert_eq!(decoder.config().vocab_size, larger.vocab_size);
            let whole = Decoder::from_tensors(larger, &tensors).unwrap();
            let (task, none) = (task(first as u32, 3), AdapterBatch::none());
            assert_eq!(task.loss(&decoder, &none), task.loss(&whole, &none), "{family:?} {first}");
        }
    }
}

#[test]
fn new_rows_have_the_gradients_that_differences_show_and_the_frozen_base_gets_none() {
    for (family, first) in [(Family::Llama, 61), (Family::Llama, 30), (Family::Qwen2, 61), (Family::Qwen3, 60)] {
        let config = config(family);
        let tensors = random_tensors(&config, 3);
        let decoder = Decoder::from_tensors(config.clone(), &tensors).unwrap();
        let (embedding, head) = (rows(&config, 2, 5), rows(&config, 2, 6));
        let tied = config.tie_word_embeddings;
        let decoder = decoder
            .with_token_rows(first, embedding.as_tensor().clone(), (!tied).then(|| head.as_tensor().clone()))
            .unwrap();
        let (task, none) = (task(first as u32, 2), AdapterBatch::none());
        let gradients = task.gradients(&decoder, &none, Recompute::Off);
        assert!(tensors.values().all(|t| !gradients.contains_key(&t.id())), "only the rows are trained");
        check_slopes("embedding", &embedding, &gradients[&embedding.id()], || task.loss(&decoder, &none));
        if !tied {
            check_slopes("head", &head, &gradients[&head.id()], || task.loss(&decoder, &none));
        }
    }
}

#[test]
fn new_rows_are_trained_beside_packed_tables() {
    let config = config(Family::Llama);
    let checkpoint = Checkpoint::from_tensors(config.clone(), random_tensors(&config, 3));
    let packed = checkpoint.frozen_decoder(Encoding::Q8_0, DType::F32, &Device::Cpu).unwrap();
    let (embedding, head) = (rows(&config, 2, 5), rows(&config, 2, 6));
    let decoder = packed.with_token_rows(61, embedding.as_tensor().clone(), Some(head.as_tensor().clone())).unwrap();
    let (task, none) = (task(61, 2), AdapterBatch::none());
    let gradients = task.gradients(&decoder, &none, Recompute::All);
    check_slopes("embedding", &embedding, &gradients[&embedding.id()], || task.loss(&decoder, &none));
    check_slopes("head", &head, &gradients[&head.id()], || task.loss(&decoder, &none));
}

#[test]
fn rows_behind_a_gap_or_of_another_width_or_for_one_of_two_tables_are_refused() {
    let config = config(Family::Llama);
    let decoder = || Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
    let good = rows(&config, 2, 5).as_tensor().clone();
    assert!(decoder().with_token_rows(62, good.clone(), Some(good.clone())).is_err());
    assert!(decoder().with_token_rows(61, good.narrow(1, 0, 8).unwrap(), None).is_err());
    assert!(decoder().with_token_rows(61, good.clone(), None).is_err());
    assert!(decoder().with_token_rows(10, good, None).is_ok());
}

/// Where a tensor's values lie, whichever of them are its own.
fn storage(tensor: &Tensor) -> *const f32 {
    match &*tensor.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::F32(values)) => values.as_ptr(),
        _ => panic!("another type"),
    }
}

#[test]
fn a_product_with_an_extended_head_copies_none_of_its_frozen_rows() {
    let config = config(Family::Llama);
    let table = random_tensors(&config, 3).remove("lm_head.weight").unwrap();
    let (hidden, rows) = (rows(&config, 7, 4), rows(&config, 3, 5));
    for (first, count) in [(20, 61), (58, 61), (60, 63), (61, 64)] {
        let head = Weight::Dense(table.clone()).extended(first, rows.as_tensor().clone()).unwrap();
        let parts = head.parts(0..count).unwrap();
        let shared = parts.iter().filter(|part| storage(part) == storage(&table)).map(|part| part.dims()[0]);
        assert_eq!(shared.sum::<usize>(), count - 3);
        let joined = ops::linear(&hidden, &head).unwrap().to_vec2::<f32>().unwrap();
        let whole = Weight::Dense(spliced(&table, first, &rows));
        assert_eq!(joined, ops::linear(&hidden, &whole).unwrap().to_vec2::<f32>().unwrap());
    }
}

#[test]
fn the_composed_head_finds_what_the_fused_one_does() {
    let config = config(Family::Llama);
    let table = random_tensors(&config, 3).remove("lm_head.weight").unwrap();
    let (hidden, rows) = (rows(&config, 7, 4), rows(&config, 3, 5));
    let targets: Vec<u32> = (56..63).collect();
    let factors: Vec<f32> = (0..7).map(|i| 0.5 + i as f32 / 8.0).collect();
    let found = |dtype: DType| {
        let (hidden, table) = (hidden.to_dtype(dtype).unwrap(), table.to_dtype(dtype).unwrap());
        let head = Weight::Dense(table).extended(60, rows.as_tensor().clone()).unwrap();
        let found = ops::head_loss(&hidden, &head, &targets, Some(&factors)).unwrap();
        let gradients = found.gradients.unwrap();
        let head = gradients.head.unwrap();
        assert_eq!(head.dims(), [3, 32]);
        let flat = |t: Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (found.predictions, [found.losses, flat(gradients.hidden), flat(head)].concat())
    };
    let (fused, composed) = (found(DType::F32), found(DType::F64));
    assert_eq!(fused.0, composed.0);
    assert!(fused.1.iter().zip(&composed.1).all(|(a, b)| (a - b).abs() < 1e-4));
}
