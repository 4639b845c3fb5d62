//! Several trainers on one directory, and readers beside a trainer that saves.

use crate::process::{Running, Scratch, leftovers, parsed, trainer};
use callsmith::adapter::peft;
use callsmith::model::{ModelConfig, weights};
use callsmith_train::optim::Slot;
use callsmith_train::recipe::Recipe;
use callsmith_train::trainable;
use callsmith_train::{checkpoint, export};
use candle_core::{DType, Device, Tensor};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const RACES: usize = 50;
const SAVES: u64 = 1000;

#[test]
fn of_two_trainers_on_one_directory_one_works_and_the_other_names_it() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.full(1_000_000), scratch.path("run"));
    let start = || Running::start(trainer(&recipe, &output, &[]).stderr(Stdio::piped()));
    for race in 0..RACES {
        let mut rivals = [start(), start()];
        let loser = loop {
            match rivals.iter_mut().position(|rival| rival.ended().is_some()) {
                Some(loser) => break loser,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        rivals.swap(0, loser);
        let [mut loser, mut winner] = rivals;
        assert_eq!(loser.ended().unwrap().code(), Some(1), "race {race}");
        let words = loser.words();
        assert!(
            words.contains(&format!("in use by another process of the trainer (pid {})", winner.id())),
            "race {race}: {words}"
        );
        assert!(winner.ended_within(Duration::from_millis(50)).is_none(), "race {race}: nobody works");
        // The next two find its lock, which nobody holds any more.
        winner.signal(Signal::KILL);
        winner.end();
    }
    let mut last = start();
    assert!(last.ended_within(Duration::from_millis(500)).is_none());
    last.signal(Signal::TERM);
    assert!(last.end().success());
    assert!(!checkpoint::list(&output).unwrap().is_empty());
    assert_eq!(leftovers(&output), [] as [&str; 0]);
}

/// The model of a recipe, and what is trained of it.
fn slots(recipe: &Recipe) -> (ModelConfig, Vec<Slot>) {
    let config = trainable::model_config(recipe).unwrap();
    let slots = trainable::slots(recipe, &config).unwrap();
    (config, slots)
}

#[test]
fn who_reads_checkpoints_while_a_thousand_are_saved_always_finds_a_whole_one() {
    let scratch = Scratch::new();
    let (recipe, output, exported) = (scratch.lora(SAVES), scratch.path("run"), scratch.path("exported"));
    let mut running = Running::start(&mut trainer(&recipe, &output, &["checkpoint.every=1"]));
    let recipe = parsed(&recipe, &output);
    let (config, slots) = slots(&recipe);
    let (mut seen, mut reads) = (0, 0);
    let ended = loop {
        let ended = running.ended();
        let begun = output.join("recipe.toml").exists();
        let newest = || checkpoint::newest(&output, &slots, |warning| panic!("{warning}")).unwrap();
        if let Some(found) = begun.then(newest).flatten() {
            assert!(found.state.step >= seen, "{} after {seen}", found.state.step);
            seen = found.state.step;
            reads += 1;
            export::from_run(&output, &exported, export::Precision::F32).unwrap();
            peft::load(&exported, &config, DType::F32, &Device::Cpu).unwrap();
        }
        if let Some(status) = ended {
            break status;
        }
    };
    assert!(ended.success());
    println!("{reads} reads while {SAVES} checkpoints were saved");
    assert_eq!(seen, SAVES);
    assert!(reads > 20, "{reads}");
}

/// Replaces an export again and again, each time with all values another number, beside a reader that sees all values.
fn replace_beside(recipe: &Recipe, read: impl Fn(&Path, &ModelConfig) -> Vec<f32>) {
    let (config, slots) = slots(recipe);
    let target = recipe.output.join("model");
    let put = |number: u64| {
        let tensor = |slot: &Slot| {
            let tensor = Tensor::full(number as f32, slot.shape.as_slice(), &Device::Cpu).unwrap();
            (slot.name.clone(), tensor)
        };
        let tensors = slots.iter().map(tensor).collect();
        export::write(recipe, &config, &tensors, &target, export::Precision::F32).unwrap();
    };
    put(1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (2..=SAVES).for_each(put));
        let (mut last, mut reads) = (1.0, 0);
        while !writer.is_finished() {
            let values = read(&target, &config);
            assert!(values[0] >= last && values.iter().all(|value| *value == values[0]), "parts of two exports");
            last = values[0];
            reads += 1;
        }
        println!("{reads} reads while an export was replaced {SAVES} times");
        assert!(reads > 20, "{reads}");
    });
    assert_eq!(read(&target, &config)[0], SAVES as f32);
    assert_eq!(leftovers(&recipe.output), [] as [&str; 0]);
}

fn output(scratch: &Scratch) -> PathBuf {
    let output = scratch.path("run");
    std::fs::create_dir(&output).unwrap();
    output
}

#[test]
fn the_server_reads_an_adapter_that_is_replaced_a_thousand_times() {
    let scratch = Scratch::new();
    let recipe = parsed(&scratch.lora(1), &output(&scratch));
    replace_beside(&recipe, |dir, model| {
        let adapter = peft::load(dir, model, DType::F32, &Device::Cpu).unwrap();
        let tensors = adapter.weights.iter().flat_map(|(_, pair)| [&pair.a, &pair.b]);
        tensors.flat_map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    });
}

#[test]
fn the_server_reads_a_model_that_is_replaced_a_thousand_times() {
    let scratch = Scratch::new();
    let recipe = parsed(&scratch.full(1), &output(&scratch));
    replace_beside(&recipe, |dir, _| {
        let stored = weights::Checkpoint::open(dir).unwrap();
        stored.decoder(DType::F32, &Device::Cpu).unwrap();
        let names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"];
        let tensors = names.map(|name| stored.tensor(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
        tensors.concat()
    });
}
