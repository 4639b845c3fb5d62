//! Backward passes: fused against candle's own autograd of composed ops, and the whole decoder against differences.

use super::*;
use crate::model::gguf::Encoding;
use crate::model::ops::{self, composed};
use crate::model::weight::Weight;
use candle_core::quantized::QTensor;
use candle_core::{TensorId, Var};

fn var(shape: &[usize], seed: u64) -> Var {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| rng.random_range(-1f32..1.0)).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// What candle finds for `f` of these inputs: its output, and their gradients for some gradient of the output.
fn reference<const N: usize>(
    inputs: [&Var; N],
    f: impl Fn([&Tensor; N]) -> candle_core::Result<Tensor>,
) -> (Tensor, Tensor, [Tensor; N]) {
    let inputs = inputs.map(Var::as_tensor);
    let output = f(inputs).unwrap().detach();
    let grad = var(output.dims(), 99).as_tensor().detach();
    let gradients = composed::gradients(inputs, &grad, f).unwrap();
    (output, grad, gradients)
}

fn assert_close<const N: usize>(found: [&Tensor; N], expected: [&Tensor; N]) {
    for (i, (a, b)) in found.into_iter().zip(expected).enumerate() {
        assert_eq!(a.dims(), b.dims(), "shape of {i}");
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let difference = values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(difference < 2e-5, "{i} differs by {difference}");
    }
}

#[test]
fn rms_norm_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[70, 24], 1), var(&[24], 2));
    let (y, grad, [dx, dw]) = reference([&x, &w], |[x, w]| composed::rms_norm(x, w, 1e-5));
    let found = ops::rms_norm_backward(&x, &w, 1e-5, &grad).unwrap();
    assert_close([&ops::rms_norm(&x, &w, 1e-5).unwrap(), &found.0, &found.1.unwrap()], [&y, &dx, &dw]);
}

#[test]
fn swiglu_and_its_gradients_agree_with_composed_ops() {
    let (gate, up) = (var(&[33, 50], 1), var(&[33, 50], 2));
    let (y, grad, [d_gate, d_up]) = reference([&gate, &up], |[gate, up]| composed::swiglu(gate, up));
    let found = ops::swiglu_backward(&gate, &up, &grad).unwrap();
    assert_close([&ops::swiglu(&gate, &up).unwrap(), &found[0], &found[1]], [&y, &d_gate, &d_up]);
}

#[test]
fn rope_and_its_gradient_agree_with_composed_ops() {
    let x = var(&[9, 3, 8], 1);
    let rotary = ops::Rotary::new(&config(Family::Llama), &[0, 1, 2, 3, 4, 0, 1, 7, 100]);
    let (y, grad, [dx]) = reference([&x], |[x]| composed::rope(x, &rotary));
    let found = ops::rope(&grad, &rotary.reversed()).unwrap();
    assert_close([&ops::rope(&x, &rotary).unwrap(), &found], [&y, &dx]);
}

#[test]
fn linear_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[9, 24], 1), var(&[10, 24], 2));
    let weight = Weight::Dense(w.as_tensor().clone());
    let (y, grad, [dx, dw]) = reference([&x, &w], |[x, w]| composed::linear(x, w));
    let found = ops::product_backward(&x.detach(), &weight, &grad).unwrap();
    assert_close([&ops::linear(&x, &weight).unwrap(), &found.0, &found.1.unwrap()], [&y, &dx, &dw]);
    assert_close([&ops::product(&x.detach(), &weight).unwrap()], [&y]);
}

#[test]
fn packed_attention_and_its_gradients_agree_with_composed_ops_segment_by_segment() {
    let lengths = [3, 130, 1, 66];
    for window in [None, Some(5)] {
        let (q, k, v) = (var(&[200, 4, 8], 1), var(&[200, 2, 8], 2), var(&[200, 2, 8], 3));
        let segments = |[q, k, v]: [&Tensor; 3]| {
            let mut start = 0;
            let parts = lengths.iter().map(|len| {
                let part = |t: &Tensor| t.narrow(0, start, *len);
                let out = composed::attention(&part(q)?, &part(k)?, &part(v)?, window);
                start += len;
                out
            });
            Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)
        };
        let (y, grad, [dq, dk, dv]) = reference([&q, &k, &v], segments);
        let out = ops::causal_attention(&q, &k, &v, &lengths, window).unwrap();
        let saved = ops::SavedTensors { q: &q, k: &k, v: &v, out: &out };
        let found = ops::causal_attention_backward(&saved, &grad, &lengths, window).unwrap();
        assert_close([&out, &found[0], &found[1], &found[2]], [&y, &dq, &dk, &dv]);
    }
}

#[test]
fn the_head_loss_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[700, 12], 1), var(&[61, 12], 2));
    let (targets, factors) = (tokens(700, 5), (0..700).map(|i| (i % 3) as f32 * 0.5).collect::<Vec<_>>());
    let head = Weight::Dense(w.as_tensor().clone());
    let fused = ops::head_loss(&x, &head, &targets, Some(&factors)).unwrap();
    let ids = Tensor::new(targets.as_slice(), &Device::Cpu).unwrap();
    let logits = composed::linear(&x, &w).unwrap();
    let losses = composed::cross_entropies(&logits, &ids).unwrap();
    for (found, expected) in fused.losses.iter().zip(losses.to_vec1::<f32>().unwrap()) {
        assert!((found - expected).abs() < 1e-4);
    }
    assert_eq!(fused.predictions, logits.argmax(1).unwrap().to_vec1::<u32>().unwrap());
    let weighted = (losses * Tensor::new(factors.as_slice(), &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
    let expected = weighted.backward().unwrap();
    let gradients = fused.gradients.unwrap();
    for (found, var) in [(gradients.hidden, &x), (gradients.head.unwrap(), &w)] {
        let difference = (found - expected.get(var).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-4);
    }
}

#[test]
fn without_factors_the_head_gives_no_gradients_and_frozen_it_gives_none_of_its_own() {
    let (x, w) = (var(&[5, 12], 1), var(&[61, 12], 2));
    let frozen = Weight::Dense(w.as_tensor().detach());
    let targets = tokens(5, 5);
    assert!(ops::head_loss(&x, &frozen, &targets, None).unwrap().gradients.is_none());
    assert!(ops::head_loss(&x, &frozen, &targets, Some(&[1.0; 5])).unwrap().gradients.unwrap().head.is_none());
}

#[test]
fn an_adapted_layer_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[9, 24], 1), var(&[10, 24], 2).as_tensor().detach());
    let (a, b) = (var(&[3, 24], 3), var(&[10, 3], 4));
    for dropout in [None, Some(Dropout { share: 0.4, seed: 9 })] {
        let mask = dropout.map(|dropout| dropout.factors(&x).unwrap());
        let (y, grad, [dx, da, db]) = reference([&x, &a, &b], |[x, a, b]| {
            let input = mask.as_ref().map_or(Ok(x.clone()), |mask| x * mask)?;
            composed::linear(x, &w)? + (composed::linear(&composed::linear(&input, a)?, b)? * 1.7)?
        });
        let (weight, factors) = (Weight::Dense(w.clone()), ops::Factors { a: &a, b: &b, scale: 1.7, dropout });
        let found = ops::adapted_backward(&x, &weight, &factors, &grad).unwrap();
        assert_close(
            [&ops::adapted(&x, &weight, &factors).unwrap(), &found.x, &found.a, &found.b],
            [&y, &dx, &da, &db],
        );
    }
}

/// Two packed sequences, every second token of which is predicted.
pub(super) struct Task {
    pub(super) tokens: Vec<u32>,
    positions: Vec<u32>,
    rows: Vec<u32>,
    pub(super) targets: Vec<u32>,
    pub(super) factors: Vec<f32>,
}

impl Task {
    const LENGTHS: [usize; 2] = [10, 14];

    pub(super) fn new() -> Self {
        let rows: Vec<u32> = (0..24).step_by(2).collect();
        Self {
            tokens: tokens(24, 1),
            positions: positions(10).into_iter().chain(positions(14)).collect(),
            targets: tokens(rows.len(), 2),
            factors: (0..rows.len()).map(|i| 0.5 + i as f32 / 8.0).collect(),
            rows,
        }
    }

    pub(super) fn predict<'a>(&'a self, adapters: &'a AdapterBatch) -> Predict<'a> {
        let Self { tokens, positions, rows, targets, .. } = self;
        Predict { tokens, positions, lengths: &Self::LENGTHS, adapters, rows, targets }
    }

    pub(super) fn loss(&self, decoder: &Decoder, adapters: &AdapterBatch) -> f64 {
        let found = decoder.evaluate(&self.predict(adapters)).unwrap();
        found.losses.iter().zip(&self.factors).map(|(loss, factor)| f64::from(loss * factor)).sum()
    }

    pub(super) fn gradients(
        &self,
        decoder: &Decoder,
        adapters: &AdapterBatch,
        recompute: Recompute,
    ) -> HashMap<TensorId, Tensor> {
        let mut sums: HashMap<TensorId, Tensor> = HashMap::new();
        let mut sink = |id, gradient: &Tensor| {
            let sum = sums.remove(&id).map_or(Ok(gradient.clone()), |sum| sum + gradient)?;
            sums.insert(id, sum);
            Ok(())
        };
        decoder.differentiate(&self.predict(adapters), &self.factors, recompute, &mut sink).unwrap();
        sums
    }
}

/// Moves one weight up and down and compares the slope with the gradient.
pub(super) fn check_slopes(name: &str, var: &Var, grad: &Tensor, loss: impl Fn() -> f64) {
    let original = var.as_tensor().copy().unwrap();
    let flat: Vec<f32> = original.flatten_all().unwrap().to_vec1().unwrap();
    let grad: Vec<f32> = grad.flatten_all().unwrap().to_vec1().unwrap();
    for i in [0, flat.len() / 2, flat.len() - 1] {
        let moved = |step: f32| {
            let mut values = flat.clone();
            values[i] += step;
            var.set(&Tensor::from_vec(values, original.dims(), &Device::Cpu).unwrap()).unwrap();
            loss()
        };
        let slope = (moved(4e-3) - moved(-4e-3)) / 8e-3;
        var.set(&original).unwrap();
        let tolerance = 0.02 * slope.abs().max(1.0);
        assert!((slope - f64::from(grad[i])).abs() < tolerance, "{name}[{i}]: slope {slope}, gradient {}", grad[i]);
    }
}

pub(super) fn variables(config: &ModelConfig, dtype: DType) -> HashMap<String, Var> {
    let var = |t: Tensor| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap();
    random_tensors(config, 3).into_iter().map(|(name, tensor)| (name, var(tensor))).collect()
}

pub(super) fn over(config: &ModelConfig, vars: &HashMap<String, Var>) -> Decoder {
    let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
    Decoder::from_tensors(config.clone(), &tensors).unwrap()
}

#[test]
fn every_parameter_of_every_family_has_the_gradient_that_differences_show() {
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        let config = config(family);
        let (vars, task, none) = (variables(&config, DType::F32), Task::new(), AdapterBatch::none());
        let decoder = over(&config, &vars);
        let grads = task.gradients(&decoder, &none, Recompute::Off);
        for (name, var) in &vars {
            let grad = grads.get(&var.id()).unwrap_or_else(|| panic!("{name} has no gradient"));
            check_slopes(name, var, grad, || task.loss(&decoder, &none));
        }
    }
}

fn bits(gradients: &HashMap<TensorId, Tensor>) -> Vec<(String, Vec<u32>)> {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
    let mut all: Vec<_> = gradients.iter().map(|(id, t)| (format!("{id:?}"), flat(t))).collect();
    all.sort();
    all
}

#[test]
fn what_is_computed_again_gives_the_same_bits_as_what_was_kept() {
    let (task, none) = (Task::new(), AdapterBatch::none());
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        let config = config(family);
        let vars = variables(&config, DType::F32);
        let decoder = over(&config, &vars);
        let kept = bits(&task.gradients(&decoder, &none, Recompute::Off));
        assert_eq!(bits(&task.gradients(&decoder, &none, Recompute::Selective)), kept);
        assert_eq!(bits(&task.gradients(&decoder, &none, Recompute::All)), kept);
    }
}

/// A random adapter whose tensors are variables, and they by name.
pub(super) fn trained_adapter(config: &ModelConfig, dora: bool, dtype: DType) -> (AdapterWeights, Vec<(String, Var)>) {
    let mut adapter = AdapterWeights::empty(config.num_layers);
    let mut vars = Vec::new();
    for (site, pair) in random_adapter(config, 3, 5).iter() {
        let mut variable = |name: &str, tensor: &Tensor| {
            let var = Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap();
            vars.push((format!("{site:?} {name}"), var.clone()));
            var.as_tensor().clone()
        };
        let magnitude = Tensor::from_vec(
            (0..pair.b.dim(0).unwrap()).map(|i| 0.8 + i as f32 / 50.0).collect::<Vec<_>>(),
            pair.b.dim(0).unwrap(),
            &Device::Cpu,
        );
        let magnitude = dora.then(|| Magnitude::Wanted(variable("magnitude", &magnitude.unwrap())));
        let (a, b) = (variable("A", &pair.a), variable("B", &pair.b));
        adapter.insert(site, LoraPair { a, b, scale: pair.scale, magnitude });
    }
    (adapter, vars)
}

#[test]
fn lora_factors_get_gradients_and_the_frozen_base_gets_none() {
    let config = config(Family::Qwen2);
    let (tensors, task) = (random_tensors(&config, 3), Task::new());
    let decoder = Decoder::from_tensors(config.clone(), &tensors).unwrap();
    for dropout in [None, Some(Dropout { share: 0.3, seed: 1 })] {
        let (adapter, vars) = trained_adapter(&config, false, DType::F32);
        let batch = AdapterBatch::uniform(24, Arc::new(adapter)).with_dropout(dropout);
        let grads = task.gradients(&decoder, &batch, Recompute::All);
        for (name, var) in &vars {
            let grad = grads.get(&var.id()).unwrap_or_else(|| panic!("{name} has no gradient"));
            check_slopes(name, var, grad, || task.loss(&decoder, &batch));
        }
        assert!(tensors.values().all(|t| !grads.contains_key(&t.id())));
    }
}

/// The lengths that DoRA divides by are constants of a step (section 4.3 of its paper): the slopes of the factors are those of a
/// loss where they stand still.
#[test]
fn dora_magnitudes_and_factors_have_the_gradients_that_differences_show() {
    let config = config(Family::Llama);
    let (tensors, task) = (random_tensors(&config, 3), Task::new());
    let decoder = Decoder::from_tensors(config.clone(), &tensors).unwrap();
    let (adapter, vars) = trained_adapter(&config, true, DType::F32);
    // The same factors, at the ratios of lengths as they are now.
    let still = AdapterBatch::uniform(24, Arc::new(decoder.serving(&adapter).unwrap()));
    let batch = AdapterBatch::uniform(24, Arc::new(adapter));
    let grads = task.gradients(&decoder, &batch, Recompute::Selective);
    for (name, var) in &vars {
        let moving = if name.ends_with("magnitude") { &batch } else { &still };
        check_slopes(name, var, &grads[&var.id()], || task.loss(&decoder, moving));
    }
}

#[test]
fn dora_with_the_lengths_of_the_base_and_no_delta_is_the_base() {
    let config = config(Family::Qwen3);
    let (tensors, task) = (random_tensors(&config, 3), Task::new());
    let decoder = Decoder::from_tensors(config.clone(), &tensors).unwrap();
    let mut adapter = AdapterWeights::empty(config.num_layers);
    for (site, pair) in random_adapter(&config, 3, 5).iter() {
        let (b, magnitude) = (pair.b.zeros_like().unwrap(), Some(Magnitude::Wanted(decoder.row_norms(site).unwrap())));
        adapter.insert(site, LoraPair { a: pair.a.clone(), b, scale: 1.0, magnitude });
    }
    let adapted = task.loss(&decoder, &AdapterBatch::uniform(24, Arc::new(adapter)));
    let base = task.loss(&decoder, &AdapterBatch::none());
    assert!((adapted - base).abs() < 1e-4 * base, "{adapted} is not {base}");
}

#[test]
fn a_packed_base_trains_an_adapter_as_its_expanded_values_do() {
    // Rows of 32 are whole blocks of Q8_0.
    let config = ModelConfig { intermediate_size: 64, ..config(Family::Llama) };
    let checkpoint = Checkpoint::from_tensors(config.clone(), random_tensors(&config, 3));
    let task = Task::new();
    for encoding in [Encoding::Bf16, Encoding::Q8_0] {
        let packed = checkpoint.frozen_decoder(encoding, DType::F32, &Device::Cpu).unwrap();
        let expanded = random_tensors(&config, 3).into_iter().map(|(name, tensor)| {
            let rounded = match tensor.rank() {
                2 => QTensor::quantize(&tensor, encoding.of_rows(tensor.dims()[1]))
                    .unwrap()
                    .dequantize(&Device::Cpu)
                    .unwrap(),
                _ => tensor,
            };
            (name, rounded)
        });
        let plain = Decoder::from_tensors(config.clone(), &expanded.collect()).unwrap();
        let (adapter, _) = trained_adapter(&config, false, DType::F32);
        let batch = AdapterBatch::uniform(24, Arc::new(adapter));
        let [a, b] = [&packed, &plain].map(|decoder| bits(&task.gradients(decoder, &batch, Recompute::Off)));
        assert!(!a.is_empty());
        assert_eq!(a, b, "{encoding:?}");
    }
}
