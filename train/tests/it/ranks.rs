//! Runs of several ranks, each on a thread of its own. tests/mpi has the same over MPI, with processes that die.

use crate::fixture::root;
use crate::training;
use crate::whole_run::{lora_recipe, recipe};
use callsmith_train::Result;
use callsmith_train::ranks::{Place, Ranks};
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train, train_among};
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// What ranks on threads meet at.
struct Meeting {
    barrier: Barrier,
    /// What each rank has brought.
    brought: Mutex<Vec<Vec<f64>>>,
}

/// One of several ranks on threads.
struct Threaded {
    place: Place,
    meeting: Arc<Meeting>,
    /// What asks this one for a stop, while its gradients are summed.
    stop: Option<Arc<AtomicBool>>,
}

impl Ranks for Threaded {
    fn place(&self) -> Place {
        self.place
    }

    fn sum(&self, values: &mut [f32]) {
        if let Some(stop) = &self.stop {
            stop.store(true, Ordering::Relaxed);
        }
        let mut exact: Vec<f64> = values.iter().copied().map(f64::from).collect();
        self.sum_f64(&mut exact);
        values.iter_mut().zip(exact).for_each(|(value, sum)| *value = sum as f32);
    }

    fn sum_f64(&self, values: &mut [f64]) {
        self.meeting.brought.lock().unwrap()[self.place.rank] = values.to_vec();
        self.meeting.barrier.wait();
        let brought = self.meeting.brought.lock().unwrap().clone();
        for (index, value) in values.iter_mut().enumerate() {
            *value = brought.iter().map(|brought| brought[index]).sum();
        }
        self.meeting.barrier.wait();
    }
}

/// What each of two ranks finds.
fn on_two<T: Send>(work: impl Fn(Threaded) -> T + Sync) -> Vec<T> {
    let size = 2;
    let meeting = Arc::new(Meeting { barrier: Barrier::new(size), brought: Mutex::new(vec![Vec::new(); size]) });
    let start = |rank| work(Threaded { place: Place { rank, size }, meeting: meeting.clone(), stop: None });
    let start = &start;
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..size).map(|rank| scope.spawn(move || start(rank))).collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Runs a recipe on each of two ranks; `stop` is the one that is asked to stop in its first step.
fn run_each(recipes: [&Recipe; 2], resume: bool, stop: Option<usize>) -> Vec<Result<Outcome>> {
    on_two(|ranks| {
        let (rank, asked) = (ranks.place().rank, Arc::default());
        let options = RunOptions { resume, ..RunOptions::default() };
        let stop = (stop == Some(rank)).then(|| Arc::clone(&asked));
        train_among(&(Rc::new(Threaded { stop, ..ranks }) as Rc<dyn Ranks>), recipes[rank], options, &asked)
    })
}

fn run_two(recipe: &Recipe, resume: bool, stop: Option<usize>) -> Outcome {
    let outcomes: Vec<Outcome> = run_each([recipe, recipe], resume, stop).into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes[0], outcomes[1]);
    outcomes[0]
}

fn run_alone(recipe: &Recipe, resume: bool) {
    let options = RunOptions { resume, ..RunOptions::default() };
    assert_eq!(train(recipe, options, &Arc::new(AtomicBool::new(false))).unwrap(), Outcome::Finished);
}

fn weights(recipe: &Recipe, file: &str) -> BTreeMap<String, Vec<f32>> {
    let tensors = candle_core::safetensors::load(recipe.output.join("model").join(file), &candle_core::Device::Cpu);
    let flat = |tensor: candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    tensors.unwrap().into_iter().map(|(name, tensor)| (name, flat(tensor))).collect()
}

fn assert_close(left: &BTreeMap<String, Vec<f32>>, right: &BTreeMap<String, Vec<f32>>) {
    assert!(left.keys().eq(right.keys()));
    for (name, left) in left {
        for (left, right) in left.iter().zip(&right[name]) {
            assert!((left - right).abs() <= 1e-5, "{name}: {left} and {right}");
        }
    }
}

fn evaluations(recipe: &Recipe) -> Vec<serde_json::Value> {
    let log = fs::read_to_string(recipe.output.join("train.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["event"] == "eval").map(|line| line["held_out"].clone()).collect()
}

#[test]
fn two_ranks_end_with_the_weights_and_evaluations_of_one_with_the_double_batch() {
    let root = root();
    let two = recipe(root.path(), "two", &["batch.micro_tokens=400", "batch.max_len=400"]);
    let one = recipe(root.path(), "one", &["batch.tokens=3000", "batch.micro_tokens=400", "batch.max_len=400"]);
    assert_eq!(run_two(&two, false, None), Outcome::Finished);
    run_alone(&one, false);
    assert_close(&weights(&two, "model.safetensors"), &weights(&one, "model.safetensors"));
    let (two, one) = (evaluations(&two), evaluations(&one));
    assert_eq!((two.len(), &two[0]["exact"]), (one.len(), &one[0]["exact"]));
    assert!((two[0]["loss"].as_f64().unwrap() - one[0]["loss"].as_f64().unwrap()).abs() < 1e-4);
}

#[test]
fn dropout_falls_on_the_same_samples_whichever_rank_has_them() {
    let root = root();
    let sets = ["lora.dropout=0.3", "batch.micro_tokens=1000", "batch.max_len=1000", "eval.split=0.0"];
    let two = lora_recipe(root.path(), "two", &sets);
    let one = lora_recipe(root.path(), "one", &[&sets[..], &["batch.tokens=6000"]].concat());
    run_two(&two, false, None);
    run_alone(&one, false);
    assert_close(&weights(&two, "adapter_model.safetensors"), &weights(&one, "adapter_model.safetensors"));
}

#[test]
fn a_stop_asked_of_one_rank_stops_all_and_they_continue_bit_for_bit() {
    let root = root();
    let whole = recipe(root.path(), "whole", &[]);
    run_two(&whole, false, None);
    let pieces = recipe(root.path(), "pieces", &[]);
    assert_eq!(run_two(&pieces, false, Some(1)), Outcome::Stopped { step: 1 });
    assert_eq!(run_two(&pieces, true, Some(0)), Outcome::Stopped { step: 2 });
    assert_eq!(run_two(&pieces, true, None), Outcome::Finished);
    assert_eq!(weights(&pieces, "model.safetensors"), weights(&whole, "model.safetensors"));
}

#[test]
fn one_rank_with_the_double_batch_continues_what_two_began() {
    let root = root();
    let two = recipe(root.path(), "run", &["batch.micro_tokens=1500"]);
    assert_eq!(run_two(&two, false, Some(0)), Outcome::Stopped { step: 1 });
    run_alone(&recipe(root.path(), "run", &["batch.tokens=3000", "batch.micro_tokens=1500"]), true);
    assert!(two.output.join("model/model.safetensors").exists());
}

#[test]
fn ranks_with_different_recipes_are_refused() {
    let root = root();
    let (one, other) = (recipe(root.path(), "run", &[]), recipe(root.path(), "run", &["seed=6"]));
    for outcome in run_each([&one, &other], false, None) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("different recipes"), "{message}");
    }
}

#[test]
fn ranks_that_read_different_data_are_refused() {
    let recipe = training::recipe(&["batch.micro_tokens=24"]);
    let found = on_two(|ranks| {
        let mut batch = training::steps(&recipe, 1).remove(0);
        if ranks.place().rank == 1 {
            batch.micros.iter_mut().flat_map(|micro| &mut micro.labels).for_each(|label| label.weight *= 2.0);
        }
        training::trainer(&recipe).among(Rc::new(ranks)).step(&batch).err().map(|error| error.to_string())
    });
    for message in found.into_iter().map(Option::unwrap) {
        assert!(message.contains("different data in step 0"), "{message}");
    }
}

#[test]
fn ranks_that_hold_different_weights_are_refused() {
    let found = on_two(|ranks| {
        let recipe = training::recipe(&[&format!("seed={}", ranks.place().rank)]);
        training::trainer(&recipe).among(Rc::new(ranks)).check_agreement().err().map(|error| error.to_string())
    });
    for message in found.into_iter().map(Option::unwrap) {
        assert!(message.contains("different weights"), "{message}");
    }
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_refuses_to_be_one_of_several_processes() {
    let root = root();
    let (recipe, file) = (recipe(root.path(), "run", &[]), root.path().join("recipe.toml"));
    fs::write(&file, recipe.resolved().unwrap()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    let done = command.arg("full").arg(&file).env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("2 processes") && said.contains("--features mpi"), "{said}");
    assert!(!recipe.output.exists());
}
