//! Runs of several ranks, each on a thread of its own. tests/mpi has the same over MPI, with processes that die.

use crate::whole_run::{lora_recipe, recipe, root};
use callsmith_train::Result;
use callsmith_train::ranks::{Place, Ranks};
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train, train_among};
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
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
}

impl Ranks for Threaded {
    fn place(&self) -> Place {
        self.place
    }

    fn sum(&self, values: &mut [f32]) {
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

/// Runs one recipe a rank; `stop` is the rank that is asked to stop at once.
fn run_all(recipes: &[Recipe], resume: bool, stop: Option<usize>) -> Vec<Result<Outcome>> {
    let size = recipes.len();
    let meeting = Arc::new(Meeting { barrier: Barrier::new(size), brought: Mutex::new(vec![Vec::new(); size]) });
    let run = |rank: usize| {
        let place = Place { rank, size };
        let ranks: Rc<dyn Ranks> = Rc::new(Threaded { place, meeting: meeting.clone() });
        let options = RunOptions { resume, allow_changed_recipe: false };
        train_among(&ranks, &recipes[rank], options, &Arc::new(AtomicBool::new(stop == Some(rank))))
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..size).map(|rank| scope.spawn(move || run(rank))).collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn run_two(recipe: &Recipe, resume: bool, stop: Option<usize>) -> Outcome {
    let outcomes: Vec<Outcome> =
        run_all(&[recipe.clone(), recipe.clone()], resume, stop).into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes[0], outcomes[1]);
    outcomes[0]
}

fn run_alone(recipe: &Recipe, resume: bool) {
    let options = RunOptions { resume, allow_changed_recipe: false };
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
    let recipes = [recipe(root.path(), "run", &[]), recipe(root.path(), "run", &["seed=6"])];
    for outcome in run_all(&recipes, false, None) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("different recipes"), "{message}");
    }
}
