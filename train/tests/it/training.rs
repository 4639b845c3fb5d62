//! Steps on a tiny random decoder: gradients, accumulation, seeds, resumption, adapters. No files but checkpoints.

use callsmith::model::config::{Family, RopeScaling};
use callsmith::model::{AdapterBatch, Magnitude, ModelConfig};
use callsmith_train::checkpoint::{self, Snapshot, State};
use callsmith_train::collate::pack;
use callsmith_train::dataset::Example;
use callsmith_train::dataset::copy::{Copy, shuffled};
use callsmith_train::dataset::feeder::{Cursor, Feeder, StepBatch};
use callsmith_train::dataset::source::{Mixture, Source};
use callsmith_train::loss;
use callsmith_train::recipe::{CopySection, Recipe};
use callsmith_train::trainable::Trainable;
use callsmith_train::trainer::Trainer;
use candle_core::Device;

fn config(family: Family) -> ModelConfig {
    ModelConfig {
        family,
        vocab_size: 24,
        hidden_size: 16,
        intermediate_size: 24,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 64,
        sliding_window: None,
        tie_word_embeddings: family == Family::Llama,
        eos_token_ids: vec![0],
    }
}

/// Steps of the recipe.
const STEPS: u64 = 80;

pub(crate) fn recipe(sets: &[&str]) -> Recipe {
    let text = r#"
        method = "full"
        output = "unused"
        seed = 5
        [model]
        tokenizer = "unused"
        shape = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, max_position_embeddings = 64 }
        [init]
        embedding_std = 0.5
        std = 0.2
        [optim]
        lr = 0.01
        weight_decay = 0.1
        warmup_steps = 2
        [batch]
        tokens = 96
        max_len = 24
        [[phase]]
        steps = 80
        source = [{ copy = { pool = [8, 20], length = [3, 8] } }]
    "#;
    Recipe::parse(text, "test", &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap()
}

pub(crate) fn trainer(recipe: &Recipe) -> Trainer {
    Trainer::new(recipe, Trainable::build(recipe, config(Family::Llama), &Device::Cpu).unwrap(), STEPS).unwrap()
}

fn feeder(recipe: &Recipe, step: u64, cursor: Cursor) -> Feeder {
    let settings = CopySection { pool: [8, 20], length: [3, 8], grow: 0.8 };
    let copy: Box<dyn Source> =
        Box::new(Copy::new(settings, shuffled((1..24).collect(), recipe.seed), recipe.seed).unwrap());
    let phases = vec![Mixture { steps: STEPS, samples: None, sources: vec![(1.0, copy)] }];
    Feeder::new(recipe, phases, step, cursor).unwrap()
}

pub(crate) fn steps(recipe: &Recipe, count: usize) -> Vec<StepBatch> {
    let mut feeder = feeder(recipe, 0, Cursor::default());
    (0..count).map(|_| feeder.next_step().unwrap().unwrap()).collect()
}

fn losses(recipe: &Recipe, count: usize) -> Vec<f64> {
    let mut trainer = trainer(recipe);
    steps(recipe, count).iter().map(|batch| trainer.step(batch).unwrap().tally.mean()).collect()
}

/// Mixed weights, two samples, unequal lengths.
fn small_batch() -> StepBatch {
    let sample = |tokens: &[u32], weight: f32| {
        let mut example = Example::new(tokens.to_vec());
        example.answer(2..tokens.len());
        example.weights[1] = weight;
        example
    };
    let samples = [sample(&[3, 4, 5, 6, 3, 4], 0.25), sample(&[7, 8, 9, 1], 0.5)];
    StepBatch { step: 0, phase: 0, micros: pack(samples, 96), dropped: 0, cursor: Cursor::default() }
}

fn loss_at(trainable: &Trainable, values: &[f32], batch: &StepBatch) -> f64 {
    trainable.set_values(values).unwrap();
    let sum = |micro: &_| loss::evaluate(&trainable.decoder, &trainable.adapters(10), micro).unwrap().tally.loss;
    batch.micros.iter().map(sum).sum::<f64>() / batch.weight()
}

fn assert_gradients_agree(trainable: Trainable, other: &Trainable, recipe: &Recipe) {
    let batch = small_batch();
    let mut trainer = Trainer::new(recipe, trainable, STEPS).unwrap();
    let mut values = trainer.values.clone();
    trainer.step(&batch).unwrap();
    for slot in &other.slots {
        // The coordinate of each tensor with the largest gradient says most against rounding.
        let gradient = &trainer.gradient()[slot.range.clone()];
        let largest = (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
        let at = slot.range.start + largest;
        let (value, h) = (values[at], 0.01);
        values[at] = value + h;
        let above = loss_at(other, &values, &batch);
        values[at] = value - h;
        let below = loss_at(other, &values, &batch);
        values[at] = value;
        let numeric = (above - below) / (2.0 * f64::from(h));
        let found = f64::from(trainer.gradient()[at]);
        assert!(
            (numeric - found).abs() <= 2e-3 + 0.02 * found.abs(),
            "{}: {found} but differences say {numeric}",
            slot.name
        );
    }
}

#[test]
fn gradients_agree_with_finite_differences_for_every_tensor() {
    for family in [Family::Llama, Family::Qwen3] {
        let recipe = recipe(&[]);
        let build = || Trainable::build(&recipe, config(family), &Device::Cpu).unwrap();
        assert_gradients_agree(build(), &build(), &recipe);
    }
}

fn lora_recipe() -> Recipe {
    let mut recipe = recipe(&[]);
    recipe.lora = Some(toml::from_str("rank = 3\nalpha = 12.0").unwrap());
    recipe
}

fn lora(recipe: &Recipe) -> Trainable {
    let config = config(Family::Llama);
    let base = Trainable::build(recipe, config.clone(), &Device::Cpu).unwrap();
    Trainable::lora_on(recipe, base.decoder, &config, &Device::Cpu).unwrap()
}

#[test]
fn lora_gradients_agree_with_finite_differences_once_b_is_not_zero() {
    let recipe = lora_recipe();
    let (left, right) = (lora(&recipe), lora(&recipe));
    let values: Vec<f32> =
        left.values().unwrap().iter().enumerate().map(|(n, v)| v + 0.05 * (n % 7) as f32 - 0.15).collect();
    left.set_values(&values).unwrap();
    assert_gradients_agree(left, &right, &recipe);
}

#[test]
fn a_fresh_adapter_changes_nothing_and_every_factor_is_reached_by_the_first_step() {
    let recipe = lora_recipe();
    let mut trainer = Trainer::new(&recipe, lora(&recipe), STEPS).unwrap();
    let batch = small_batch();
    let micro = &batch.micros[0];
    let trainable = &trainer.trainable;
    let adapted = loss::evaluate(&trainable.decoder, &trainable.adapters(micro.tokens.len()), micro).unwrap();
    let base = loss::evaluate(&trainable.decoder, &AdapterBatch::none(), micro).unwrap();
    assert_eq!(adapted.tally.loss, base.tally.loss);
    trainer.step(&batch).unwrap();
    let after = loss_at(&trainer.trainable, &trainer.values, &batch);
    assert_ne!(after, base.tally.loss / batch.weight());
}

#[test]
fn what_is_served_while_training_has_the_present_values_and_leaves_no_tape() {
    let mut recipe = lora_recipe();
    recipe.lora.as_mut().unwrap().dora = true;
    let trainable = lora(&recipe);
    let values: Vec<f32> = trainable.values().unwrap().iter().map(|value| value + 0.1).collect();
    trainable.set_values(&values).unwrap();
    let (decoder, adapter) = trainable.serving().unwrap();
    let adapter = adapter.unwrap();
    for (_, pair) in adapter.iter() {
        let magnitude = pair.magnitude.as_ref().unwrap();
        assert!(matches!(magnitude, Magnitude::Ratio(_)));
        assert!([&pair.a, &pair.b, magnitude.tensor()].iter().all(|tensor| !tensor.track_op()));
    }
    let micro = &small_batch().micros[0];
    let rows = micro.tokens.len();
    let trained = loss::evaluate(&trainable.decoder, &trainable.adapters(rows), micro).unwrap().tally.loss;
    let served = loss::evaluate(&decoder, &AdapterBatch::uniform(rows, adapter), micro).unwrap().tally.loss;
    assert!((trained - served).abs() < 1e-4 * trained, "{trained} and {served}");
}

#[test]
fn a_tensor_without_a_gradient_stops_the_run_at_step_0() {
    // Only row 0 is trained; it sees itself alone, so queries and keys cannot matter.
    let mut example = Example::new(vec![3, 4]);
    example.answer(1..2);
    let batch = StepBatch { step: 0, phase: 0, micros: pack([example], 96), dropped: 0, cursor: Cursor::default() };
    let message = trainer(&recipe(&[])).step(&batch).unwrap_err().to_string();
    assert!(message.contains("q_proj"), "{message}");
}

#[test]
fn the_same_seed_gives_the_same_first_losses_and_another_seed_others() {
    let first = losses(&recipe(&[]), 4);
    assert_eq!(first, losses(&recipe(&[]), 4));
    assert_ne!(first, losses(&recipe(&["seed=6"]), 4));
}

#[test]
fn accumulation_over_micro_batches_equals_one_batch() {
    let gradient = |set: &str| {
        let recipe = recipe(&[set]);
        let batch = &steps(&recipe, 1)[0];
        let mut trainer = trainer(&recipe);
        trainer.step(batch).unwrap();
        (batch.micros.len(), trainer.gradient().to_vec())
    };
    let (one, whole) = gradient("batch.micro_tokens=96");
    let (many, parts) = gradient("batch.micro_tokens=24");
    assert!(one == 1 && many >= 4, "{one} and {many} micro-batches");
    let largest = whole.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
    for (whole, parts) in whole.iter().zip(&parts) {
        assert!((whole - parts).abs() <= 1e-5 * largest.max(1.0), "{whole} and {parts}");
    }
}

#[test]
fn the_noise_scale_is_that_of_the_micro_batches_own_gradients() {
    // Of tied tables (Llama's here) the gradient comes in two pieces, so they are not part of the comparison.
    for (family, parallel) in [(Family::Llama, 1), (Family::Qwen3, 1), (Family::Qwen3, 2)] {
        let recipe = recipe(&[&format!("batch.parallel={parallel}")]);
        let build = || Trainable::build(&recipe, config(family), &Device::Cpu).unwrap();
        let sample = |tokens: &[u32]| {
            let mut example = Example::new(tokens.to_vec());
            example.answer(2..tokens.len());
            example
        };
        let micros = pack([sample(&[3, 4, 5, 6, 3, 4, 5]), sample(&[3, 4, 5, 7])], 8);
        let step = |micros: &[_]| {
            let micros = micros.to_vec();
            let batch = StepBatch { step: 0, phase: 0, micros, dropped: 0, cursor: Cursor::default() };
            let mut trainer = Trainer::new(&recipe, build(), STEPS).unwrap();
            let report = trainer.step(&batch).unwrap();
            let slots = trainer.trainable.slots.iter();
            let compared = slots.filter(|slot| family != Family::Llama || slot.name != "model.embed_tokens.weight");
            let values = compared.flat_map(|slot| &trainer.gradient()[slot.range.clone()]);
            let squared: f64 = values.map(|&value| f64::from(value).powi(2)).sum();
            (squared, batch.weight(), report.gradient_noise)
        };
        let (first, second, whole) = (step(&micros[..1]), step(&micros[1..]), step(&micros));
        assert_eq!((first.2, second.2, whole.1), (None, None, first.1 + second.1));
        // The paper's two equations for the batch sizes of the mean micro-batch and of the step.
        let (big, small) = (whole.1, whole.1 / 2.0);
        let micro = (first.1 * first.0 + second.1 * second.0) / big;
        let gradient = (big * whole.0 - small * micro) / (big - small);
        let noise = (micro - whole.0) / (1.0 / small - 1.0 / big);
        let found = whole.2.unwrap();
        assert!((found / (noise / gradient) - 1.0).abs() < 1e-4, "{family:?}: {found}, not {}", noise / gradient);
    }
}

#[test]
fn a_resumed_run_has_bit_for_bit_the_weights_of_an_uninterrupted_one() {
    let recipe = recipe(&[]);
    let mut whole = trainer(&recipe);
    let batches = steps(&recipe, 6);
    for batch in &batches {
        whole.step(batch).unwrap();
    }

    let output = tempfile::tempdir().unwrap();
    let mut first = trainer(&recipe);
    for batch in &batches[..3] {
        first.step(batch).unwrap();
    }
    let state = State {
        step: 3,
        updates: first.moments().updates,
        cursor: batches[2].cursor.clone(),
        tokens: 0,
        skipped: 0,
        dropped: 0,
        selection: Default::default(),
        recipe_digest: recipe.digest().unwrap(),
    };
    let saved = Snapshot { state: &state, values: &first.values, moments: first.moments() };
    checkpoint::save(output.path(), &first.trainable.slots, saved, 1).unwrap();

    let mut second = trainer(&recipe);
    let found = checkpoint::newest(output.path(), &second.trainable.slots, |_| ()).unwrap().unwrap();
    let mut feeder = feeder(&recipe, found.state.step, found.state.cursor.clone());
    second.restore(found.values, found.moments).unwrap();
    for _ in 3..6 {
        second.step(&feeder.next_step().unwrap().unwrap()).unwrap();
    }
    assert_eq!(second.values, whole.values);
    assert_eq!(second.moments(), whole.moments());
    assert_eq!(second.trainable.values().unwrap(), whole.values);
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let recipe = recipe(&[]);
    let mut trainer = trainer(&recipe);
    let mut batch = small_batch();
    batch.step = 1;
    let mut poisoned = trainer.values.clone();
    poisoned[100] = f32::INFINITY;
    let moments = trainer.moments().clone();
    trainer.restore(poisoned.clone(), moments.clone()).unwrap();
    // Token 6 owns the poisoned row of the embedding (16 values each).
    let report = trainer.step(&batch).unwrap();
    assert!(report.skipped);
    assert_eq!(trainer.values, poisoned);
    assert_eq!(trainer.moments(), &moments);
}

#[test]
fn copying_is_learnt() {
    let losses = losses(&recipe(&["optim.lr=0.02"]), 80);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (start, end) = (mean(&losses[..5]), mean(&losses[75..]));
    assert!(end < 0.8 * start, "from {start} to {end}");
}
