//! The formulas for devices without fused kernels. A type that has no kernels on the CPU either runs them there: f64, in which
//! they must agree with finite differences to many digits, op by op and over whole decoders.

use super::gradients::{Task, over, trained_adapter, variables};
use super::*;
use crate::model::attention::{LayerContext, Lookback};
use crate::model::ops::{self, Rotary, composed};
use crate::model::weight::Weight;
use candle_core::{TensorId, Var};

const FAMILIES: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product::<usize>()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn var(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&random(shape, seed)).unwrap()
}

/// `Σ a · b`.
fn inner(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

/// The derivative of `f` as a variable moves along a direction: central differences of fourth order.
fn slope(var: &Var, direction: &Tensor, f: impl Fn() -> f64) -> f64 {
    const STEP: f64 = 1e-3;
    let start = var.as_tensor().copy().unwrap();
    let at = |steps: f64| {
        var.set(&(&start + (direction * (steps * STEP)).unwrap()).unwrap()).unwrap();
        f()
    };
    let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP);
    var.set(&start).unwrap();
    slope
}

/// Compares a whole gradient with the differences along a random direction of length 1.
fn assert_slopes(name: &str, var: &Var, gradient: &Tensor, f: impl Fn() -> f64) {
    assert_eq!((gradient.dims(), gradient.dtype()), (var.dims(), DType::F64), "{name}");
    let direction = random(var.dims(), 100);
    let direction = (&direction / inner(&direction, &direction).sqrt()).unwrap();
    let (found, expected) = (inner(gradient, &direction), slope(var, &direction, f));
    assert!((found - expected).abs() < 1e-7 * (1.0 + expected.abs()), "{name}: slope {expected}, gradient {found}");
}

/// An op's gradients of some inputs, from a random gradient of its output.
fn check<const N: usize>(inputs: [&Var; N], op: impl Fn() -> Tensor, backward: impl Fn(&Tensor) -> [Tensor; N]) {
    let grad = random(op().dims(), 99);
    for (i, (input, gradient)) in inputs.into_iter().zip(backward(&grad)).enumerate() {
        assert_slopes(&format!("input {i}"), input, &gradient, || inner(&op(), &grad));
    }
}

#[test]
fn rms_norm_has_the_gradients_that_differences_show() {
    let (x, w) = (var(&[7, 24], 1), var(&[24], 2));
    let backward = |grad: &Tensor| ops::rms_norm_backward(&x, &w, 1e-5, grad).map(|(dx, dw)| [dx, dw.unwrap()]);
    check([&x, &w], || ops::rms_norm(&x, &w, 1e-5).unwrap(), |grad| backward(grad).unwrap());
}

#[test]
fn swiglu_has_the_gradients_that_differences_show() {
    let (gate, up) = (var(&[7, 50], 1), var(&[7, 50], 2));
    let backward = |grad: &Tensor| ops::swiglu_backward(&gate, &up, grad).unwrap();
    check([&gate, &up], || ops::swiglu(&gate, &up).unwrap(), backward);
}

#[test]
fn rope_has_the_gradient_that_differences_show() {
    let x = var(&[9, 3, 8], 1);
    let rotary = Rotary::new(&config(Family::Llama), &[0, 1, 2, 3, 4, 0, 1, 7, 100]);
    let backward = |grad: &Tensor| [ops::rope(grad, &rotary.reversed()).unwrap()];
    check([&x], || ops::rope(&x, &rotary).unwrap(), backward);
}

#[test]
fn a_linear_layer_has_the_gradients_that_differences_show() {
    let (x, w) = (var(&[9, 24], 1), var(&[10, 24], 2));
    let weight = Weight::Dense(w.as_tensor().clone());
    let backward = |grad: &Tensor| ops::product_backward(&x.detach(), &weight, grad).map(|(dx, dw)| [dx, dw.unwrap()]);
    check([&x, &w], || ops::product(&x, &weight).unwrap(), |grad| backward(grad).unwrap());
}

#[test]
fn packed_attention_has_the_gradients_that_differences_show() {
    let lengths = [3, 11, 1, 6];
    for window in [None, Some(4)] {
        let (q, k, v) = (var(&[21, 4, 8], 1), var(&[21, 2, 8], 2), var(&[21, 2, 8], 3));
        let op = || ops::causal_attention(&q, &k, &v, &lengths, window).unwrap();
        let backward = |grad: &Tensor| {
            let saved = ops::SavedTensors { q: &q, k: &k, v: &v, out: &op() };
            ops::causal_attention_backward(&saved, grad, &lengths, window).unwrap()
        };
        check([&q, &k, &v], op, backward);
    }
}

#[test]
fn an_adapted_layer_has_the_gradients_that_differences_show() {
    let (x, a, b) = (var(&[9, 24], 1), var(&[3, 24], 3), var(&[10, 3], 4));
    let weight = Weight::Dense(random(&[10, 24], 2));
    for dropout in [None, Some(Dropout { share: 0.4, seed: 9 })] {
        let factors = ops::Factors { a: &a, b: &b, scale: 1.7, dropout };
        let backward = |grad: &Tensor| {
            let found = ops::adapted_backward(&x, &weight, &factors, grad).unwrap();
            [found.x, found.a, found.b]
        };
        check([&x, &a, &b], || ops::adapted(&x, &weight, &factors).unwrap(), backward);
    }
}

/// More rows than have their logits at the same time; a head that is trained whole, and ones with trained rows.
#[test]
fn the_head_loss_has_the_gradients_that_differences_show() {
    let (n, x) = (2100, var(&[2100, 6], 1));
    let targets = tokens(n, 5);
    let ids = Tensor::new(targets.as_slice(), &Device::Cpu).unwrap();
    let factors: Vec<f32> = (0..n).map(|i| (i % 3) as f32 * 0.5).collect();
    let weights = Tensor::new(factors.as_slice(), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let (whole, rows) = (var(&[61, 6], 2), var(&[4, 6], 3));
    let extended = |first| Weight::Dense(random(&[61, 6], 2)).extended(first, rows.as_tensor().clone()).unwrap();
    let heads = [(Weight::Dense(whole.as_tensor().clone()), &whole), (extended(20), &rows), (extended(59), &rows)];
    for (head, trained) in heads {
        let found = ops::head_loss(&x, &head, &targets, Some(&factors)).unwrap();
        let losses = || composed::cross_entropies(&ops::linear(&x, &head).unwrap(), &ids).unwrap();
        let rounded = losses().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found.losses, rounded);
        let gradients = found.gradients.unwrap();
        assert_slopes("hidden states", &x, &gradients.hidden, || inner(&losses(), &weights));
        assert_slopes("head", trained, &gradients.head.unwrap(), || inner(&losses(), &weights));
    }
}

/// The loss in the decoder's own type.
fn loss(decoder: &Decoder, task: &Task, adapters: &AdapterBatch) -> f64 {
    let predict = task.predict(adapters);
    let (rotary, lookback) = (Rotary::new(&decoder.config, predict.positions), Lookback::Segments(predict.lengths));
    let context = LayerContext { config: &decoder.config, rotary, lookback, adapters, trains: true };
    let mut x = prompt::embed(&decoder.embedding, predict.tokens, adapters).unwrap();
    for block in &decoder.blocks {
        x = block.forward(&x, &context).unwrap();
    }
    let list = |ids: &[u32]| Tensor::new(ids, &Device::Cpu).unwrap();
    let rows = x.index_select(&list(predict.rows), 0).unwrap();
    let hidden = ops::rms_norm(&rows, &decoder.norm, decoder.config.rms_norm_eps).unwrap();
    let logits = ops::linear(&hidden, &decoder.head).unwrap();
    let losses = composed::cross_entropies(&logits, &list(predict.targets)).unwrap().to_vec1::<f64>().unwrap();
    losses.iter().zip(&task.factors).map(|(loss, factor)| loss * f64::from(*factor)).sum()
}

#[test]
fn every_parameter_of_every_family_has_the_gradient_that_differences_show() {
    for family in FAMILIES {
        let config = config(family);
        let (vars, task, none) = (variables(&config, DType::F64), Task::new(), AdapterBatch::none());
        let decoder = over(&config, &vars);
        let grads = task.gradients(&decoder, &none, Recompute::Off);
        for (name, var) in &vars {
            assert_slopes(name, var, &grads[&var.id()], || loss(&decoder, &task, &none));
        }
    }
}

/// The lengths that DoRA divides by stand still while a factor moves.
#[test]
fn every_factor_beside_every_family_has_the_gradient_that_differences_show() {
    for family in FAMILIES {
        let config = config(family);
        let (decoder, task) = (decoder_in(&config, 3, DType::F64), Task::new());
        for (dora, dropout) in [(false, Some(Dropout { share: 0.3, seed: 1 })), (true, None)] {
            let (adapter, vars) = trained_adapter(&config, dora, DType::F64);
            let batch = |adapter| AdapterBatch::uniform(24, Arc::new(adapter)).with_dropout(dropout);
            let still = batch(decoder.serving(&adapter).unwrap());
            let moving = batch(adapter);
            let grads = task.gradients(&decoder, &moving, Recompute::All);
            assert_eq!(grads.len(), vars.len(), "the base is frozen");
            for (name, var) in &vars {
                let batch = if name.ends_with("magnitude") { &moving } else { &still };
                assert_slopes(name, var, &grads[&var.id()], || loss(&decoder, &task, batch));
            }
        }
    }
}

#[test]
fn new_rows_and_soft_prompts_have_the_gradients_that_differences_show() {
    let config = config(Family::Llama);
    let (embedding, head, soft) = (var(&[2, 32], 5), var(&[2, 32], 6), var(&[3, 32], 7));
    let decoder = decoder_in(&config, 3, DType::F64);
    let decoder = decoder.with_token_rows(60, embedding.as_tensor().clone(), Some(head.as_tensor().clone())).unwrap();
    let mut task = Task::new();
    // Both new tokens, one of them twice, and the prompt's tokens before each sequence.
    for (place, token) in [(5, 60), (9, 61), (20, 61), (0, 62), (1, 63), (2, 64), (10, 62), (11, 63), (12, 64)] {
        task.tokens[place] = token;
    }
    task.targets[3] = 61;
    let adapter = AdapterWeights::empty(config.num_layers).with_prompt(soft.as_tensor().clone());
    let batch = AdapterBatch::uniform(24, Arc::new(adapter));
    let grads = task.gradients(&decoder, &batch, Recompute::Off);
    assert_eq!(grads.len(), 3, "the base is frozen");
    for (name, var) in [("embedding", &embedding), ("head", &head), ("prompt", &soft)] {
        assert_slopes(name, var, &grads[&var.id()], || loss(&decoder, &task, &batch));
    }
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Within what f32 rounds.
fn assert_agree(grads: [&HashMap<TensorId, Tensor>; 2], (name, vars): (&str, [&Var; 2])) {
    let [found, expected] = [0, 1].map(|i| flat(&grads[i][&vars[i].id()]));
    let largest = expected.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 2e-5 * largest;
    assert!(largest > 0.0 && found.iter().zip(&expected).all(close), "{name}");
}

#[test]
fn the_fused_kernels_find_every_gradient_that_the_formulas_find() {
    for family in FAMILIES {
        let (config, task, types) = (config(family), Task::new(), [DType::F32, DType::F64]);
        let vars = types.map(|dtype| variables(&config, dtype));
        let grads =
            vars.each_ref().map(|vars| task.gradients(&over(&config, vars), &AdapterBatch::none(), Recompute::Off));
        for (name, var) in &vars[0] {
            assert_agree(grads.each_ref(), (name, [var, &vars[1][name]]));
        }
        let adapters = types.map(|dtype| trained_adapter(&config, true, dtype));
        let grads = [0, 1].map(|i| {
            let batch = AdapterBatch::uniform(24, Arc::new(adapters[i].0.clone()));
            let batch = batch.with_dropout(Some(Dropout { share: 0.3, seed: 1 }));
            task.gradients(&decoder_in(&config, 3, types[i]), &batch, Recompute::Selective)
        });
        for ((name, fused), (_, wide)) in adapters[0].1.iter().zip(&adapters[1].1) {
            assert_agree(grads.each_ref(), (name, [fused, wide]));
        }
    }
}
