//! Stops in the midst of a measurement and of the preparations: nothing half done stays, and the run goes on to the same.

use crate::fixture::root;
use crate::whole_run::{epochs, final_weights, log, recipe, run};
use callsmith_train::checkpoint;
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What evaluations have found, by step.
fn measured(recipe: &Recipe) -> Vec<(Value, Value)> {
    let evaluations = log(recipe).into_iter().filter(|line| line["event"] == "eval");
    evaluations.map(|line| (line["step"].clone(), line["held_out"].clone())).collect()
}

#[test]
fn an_evaluation_that_a_stop_breaks_off_leaves_no_figure_and_is_made_when_the_run_goes_on() {
    let root = root();
    let sets = ["eval.every=1", "eval.patience=3"];
    let whole = recipe(root.path(), "whole", &sets);
    run(&whole, false, false).unwrap();
    let pieces = recipe(root.path(), "pieces", &sets);
    assert_eq!(run(&pieces, false, true).unwrap(), Outcome::Stopped { step: 1 });
    assert_eq!(measured(&pieces), []);
    let state = fs::read_to_string(pieces.output.join("checkpoint-1/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["selection"]["best"], &state["selection"]["seen"]), (&Value::Null, &Value::Null));
    assert_eq!(run(&pieces, true, true).unwrap(), Outcome::Stopped { step: 2 });
    assert_eq!(measured(&pieces), measured(&whole)[..1]);
    run(&pieces, true, false).unwrap();
    assert_eq!(measured(&pieces), measured(&whole));
    assert_eq!(final_weights(&pieces), final_weights(&whole));
}

#[test]
fn a_stop_while_data_is_prepared_leaves_nothing_and_the_run_begins_when_it_is_started_again() {
    let root = root();
    let asked = Arc::new(AtomicBool::new(true));
    let over_epochs = epochs(root.path(), "epochs", 30, &["eval.split=0.0"]);
    for recipe in [recipe(root.path(), "run", &[]), over_epochs] {
        assert_eq!(train(&recipe, RunOptions::default(), &asked).unwrap(), Outcome::NotBegun);
        assert!(!recipe.output.join("train.jsonl").exists());
        assert_eq!(checkpoint::list(&recipe.output).unwrap(), [] as [PathBuf; 0]);
        assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished);
    }
}
