//! Backward passes: fused against candle's own autograd of composed ops, and the whole decoder against differences.

use super::*;
use crate::model::ops::{self, composed};
use candle_core::Var;

fn var(shape: &[usize], seed: u64) -> Var {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| rng.random_range(-1f32..1.0)).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// Gradients of `Σ out * weights` with random weights, so that no component hides another.
fn gradients(out: &Tensor, vars: &[&Var]) -> Vec<Vec<f32>> {
    let weights = var(out.dims(), 99);
    let grads = (out * weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    vars.iter().map(|v| grads.get(v).unwrap().flatten_all().unwrap().to_vec1().unwrap()).collect()
}

fn assert_same(fused: &Tensor, composed: &Tensor, vars: &[&Var]) {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let close = |a: &[f32], b: &[f32], what: &str| {
        let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(difference < 2e-5, "{what} differ by {difference}");
    };
    close(&values(fused), &values(composed), "values");
    for (i, (a, b)) in gradients(fused, vars).iter().zip(gradients(composed, vars)).enumerate() {
        close(a, &b, &format!("gradients of input {i}"));
    }
}

#[test]
fn rms_norm_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[70, 24], 1), var(&[24], 2));
    assert_same(&ops::rms_norm(&x, &w, 1e-5).unwrap(), &composed::rms_norm(&x, &w, 1e-5).unwrap(), &[&x, &w]);
}

#[test]
fn swiglu_and_its_gradients_agree_with_composed_ops() {
    let (gate, up) = (var(&[33, 50], 1), var(&[33, 50], 2));
    assert_same(&ops::swiglu(&gate, &up).unwrap(), &composed::swiglu(&gate, &up).unwrap(), &[&gate, &up]);
}

#[test]
fn rope_and_its_gradient_agree_with_composed_ops() {
    let x = var(&[9, 3, 8], 1);
    let rotary = ops::Rotary::new(&config(Family::Llama), &[0, 1, 2, 3, 4, 0, 1, 7, 100]);
    assert_same(&ops::rope(&x, &rotary).unwrap(), &composed::rope(&x, &rotary).unwrap(), &[&x]);
}

#[test]
fn linear_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[9, 24], 1), var(&[10, 24], 2));
    assert_same(&ops::linear(&x, &w, None).unwrap(), &composed::linear(&x, &w).unwrap(), &[&x, &w]);
}

#[test]
fn packed_attention_and_its_gradients_agree_with_composed_ops_segment_by_segment() {
    let lengths = [3, 130, 1, 66];
    for window in [None, Some(5)] {
        let (q, k, v) = (var(&[200, 4, 8], 1), var(&[200, 2, 8], 2), var(&[200, 2, 8], 3));
        let fused = ops::causal_attention(&q, &k, &v, &lengths, window).unwrap();
        let mut start = 0;
        let parts: Vec<Tensor> = lengths
            .iter()
            .map(|len| {
                let part = |t: &Var| t.narrow(0, start, *len).unwrap();
                let out = composed::attention(&part(&q), &part(&k), &part(&v), window).unwrap();
                start += len;
                out
            })
            .collect();
        assert_same(&fused, &Tensor::cat(&parts, 0).unwrap(), &[&q, &k, &v]);
    }
}

#[test]
fn the_head_loss_and_its_gradients_agree_with_composed_ops() {
    let (x, w) = (var(&[700, 12], 1), var(&[61, 12], 2));
    let targets = tokens(700, 5);
    let fused = ops::head_loss(&x, &w, &targets).unwrap();
    let ids = Tensor::new(targets.as_slice(), &Device::Cpu).unwrap();
    let plain = composed::cross_entropies(&composed::linear(&x, &w).unwrap(), &ids).unwrap();
    let total: f32 = fused.losses.iter().sum();
    assert!((total - plain.sum_all().unwrap().to_scalar::<f32>().unwrap()).abs() < 0.05);
    let logits = composed::linear(&x, &w).unwrap();
    assert_eq!(fused.predictions, logits.argmax(1).unwrap().to_vec1::<u32>().unwrap());
    let (fused, plain) = (fused.sum.backward().unwrap(), plain.sum_all().unwrap().backward().unwrap());
    for v in [&x, &w] {
        let (a, b) = (fused.get(v).unwrap(), plain.get(v).unwrap());
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-4);
    }
}

/// Loss of two packed sequences.
fn loss(config: &ModelConfig, tensors: &HashMap<String, Tensor>, adapters: &AdapterBatch) -> Tensor {
    let decoder = Decoder::from_tensors(config.clone(), tensors).unwrap();
    let (tokens, targets) = (tokens(24, 1), tokens(24, 2));
    let at: Vec<u32> = positions(10).into_iter().chain(positions(14)).collect();
    let pass = ForwardPass { tokens: &tokens, positions: &at, attention: Attention::Causal(&[10, 14]), adapters };
    decoder.token_losses(&decoder.hidden_states(pass).unwrap(), &targets).unwrap().sum
}

/// Moves one weight up and down and compares the slope with the gradient.
fn check_slopes(name: &str, var: &Var, grad: &Tensor, loss: impl Fn() -> f64) {
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

#[test]
fn every_parameter_of_every_family_has_the_gradient_that_differences_show() {
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        let config = config(family);
        let vars: HashMap<String, Var> =
            random_tensors(&config, 3).into_iter().map(|(n, t)| (n, Var::from_tensor(&t).unwrap())).collect();
        let tensors: HashMap<String, Tensor> = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
        let run = || loss(&config, &tensors, &AdapterBatch::none());
        let grads = run().backward().unwrap();
        for (name, var) in &vars {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            check_slopes(name, var, grad, || f64::from(run().to_scalar::<f32>().unwrap()));
        }
    }
}

#[test]
fn lora_factors_get_gradients_and_the_frozen_base_gets_none() {
    let config = config(Family::Llama);
    let tensors = random_tensors(&config, 3);
    let mut adapter = AdapterWeights::empty(config.num_layers);
    let mut vars = Vec::new();
    for (site, pair) in random_adapter(&config, 3, 5).iter() {
        let (a, b) = (Var::from_tensor(&pair.a).unwrap(), Var::from_tensor(&pair.b).unwrap());
        adapter.insert(site, LoraPair { a: a.as_tensor().clone(), b: b.as_tensor().clone(), scale: pair.scale });
        vars.extend([(format!("{site:?} A"), a), (format!("{site:?} B"), b)]);
    }
    let batch = AdapterBatch::uniform(24, Arc::new(adapter));
    let run = || loss(&config, &tensors, &batch);
    let grads = run().backward().unwrap();
    for (name, var) in &vars {
        let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
        check_slopes(name, var, grad, || f64::from(run().to_scalar::<f32>().unwrap()));
    }
    assert!(tensors.values().all(|t| grads.get(t).is_none()));
}
