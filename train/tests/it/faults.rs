//! Faults planted at every point of saving and exporting, each time that a run comes by.

use crate::process::{Scratch, assert_finite, checkpoints, finish, leftovers, logged_steps, outcome, trainer};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

const STEPS: u64 = 30;
const INTERVAL: u64 = 10;
const POINTS: [(&str, usize); 8] = [
    ("file_written", 1),
    ("file_synced", 1),
    ("file_renamed", 1),
    ("directory_synced", 1),
    ("directory_renamed", 1),
    ("directory_removed", 1),
    ("export", 1),
    // There are many tensors.
    ("tensor", 7),
];

/// Plants `fault` at the first, second … time that each point is passed, until a run passes it less often. `check` sees the
/// status, the words, and the run.
fn at_every_point(recipe: &Path, scratch: &Scratch, fault: &str, check: impl Fn(&str, (ExitStatus, String), &Path)) {
    let reference = scratch.path("reference");
    assert!(trainer(recipe, &reference, &["checkpoint.keep=1000"]).status().unwrap().success());
    let whole = checkpoints(&reference);
    let mut planted = 0;
    for (point, stride) in POINTS {
        for pass in (0..).step_by(stride) {
            let output = scratch.path(&format!("{point}-{pass}"));
            let plan = format!("{point}={pass}*off->{fault}");
            let ended = finish(trainer(recipe, &output, &["checkpoint.keep=1"]).env("FAILPOINTS", &plan));
            if ended.0.success() && !ended.1.contains("no report") {
                assert!(pass > 0, "{point} is never passed");
                break;
            }
            check(&plan, ended, &output);
            let found = checkpoints(&output);
            for (step, manifest) in &found {
                assert_eq!(manifest, &whole[step], "{plan}");
            }
            let saved = found.keys().last().copied().unwrap_or(0);
            assert!(logged_steps(&output) <= saved + INTERVAL, "{plan}");
            let (status, words) = finish(&mut trainer(recipe, &output, &["checkpoint.keep=1"]));
            assert!(status.success(), "{plan}: {words}");
            assert_eq!(outcome(&output), outcome(&reference), "{plan}");
            assert_eq!(leftovers(&output), [] as [&str; 0], "{plan}");
            std::fs::remove_dir_all(output).unwrap();
            planted += 1;
        }
    }
    println!("{planted} times {fault}");
}

fn killed_at_every_point(recipe: &Path, scratch: &Scratch) {
    at_every_point(recipe, scratch, "return(kill)", |plan, (status, words), _| {
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{plan}: {words}");
    });
}

fn refused_at_every_point(recipe: &Path, scratch: &Scratch) {
    at_every_point(recipe, scratch, "return", |plan, (status, words), output| {
        // A report that cannot be written is no failure of a run.
        if !status.success() {
            assert_eq!(status.code(), Some(1), "{plan}: {words}");
            let error = words.lines().find(|line| line.starts_with("error: ")).unwrap();
            assert!(error.contains(output.to_str().unwrap()) && error.contains("fault planted"), "{plan}: {words}");
        }
        assert_eq!(leftovers(output), [] as [&str; 0], "{plan}");
    });
}

#[test]
fn a_full_run_killed_at_any_point_goes_on_to_the_same_bits() {
    let scratch = Scratch::new();
    killed_at_every_point(&scratch.full(STEPS), &scratch);
}

#[test]
fn a_lora_run_killed_at_any_point_goes_on_to_the_same_bits() {
    let scratch = Scratch::new();
    killed_at_every_point(&scratch.lora(STEPS), &scratch);
}

#[test]
fn a_full_run_refused_at_any_point_leaves_nothing_half_written() {
    let scratch = Scratch::new();
    refused_at_every_point(&scratch.full(STEPS), &scratch);
}

#[test]
fn a_lora_run_refused_at_any_point_leaves_nothing_half_written() {
    let scratch = Scratch::new();
    refused_at_every_point(&scratch.lora(STEPS), &scratch);
}

#[test]
fn a_few_bad_losses_are_skipped_and_counted() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.full(STEPS), scratch.path("run"));
    let (status, words) = finish(trainer(&recipe, &output, &[]).env("FAILPOINTS", "loss=8*off->9*return->off"));
    assert!(status.success(), "{words}");
    let (step, _) = outcome(&output).0.unwrap();
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(output.join(format!("checkpoint-{step}/state.json"))).unwrap()).unwrap();
    assert_eq!((&state["skipped"], &state["updates"]), (&9.into(), &(STEPS - 9).into()));
    assert_finite(&output);
}

#[test]
fn bad_losses_without_end_stop_the_run_and_it_goes_on_when_they_are_gone() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.full(STEPS), scratch.path("run"));
    let (status, words) = finish(trainer(&recipe, &output, &[]).env("FAILPOINTS", "loss=15*off->return"));
    assert_eq!(status.code(), Some(1));
    assert!(words.contains("not finite in 10 steps in a row"), "{words}");
    assert_finite(&output);
    assert_eq!(checkpoints(&output).into_keys().collect::<Vec<_>>(), [10, 20]);
    assert!(trainer(&recipe, &output, &[]).status().unwrap().success());
}
