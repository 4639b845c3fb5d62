//! `kill -9` at random moments: what is there is whole, what is lost is at most one interval, and who goes on ends with the
//! bits of a run that nobody disturbed. `CALLSMITH_KILLS` says how often.

use crate::process::{Running, Scratch, checkpoints, finish, leftovers, logged_steps, outcome, trainer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const STEPS: u64 = 300;
const INTERVAL: u64 = 10;
/// Kills of each kind of run, unless the environment says otherwise.
const KILLS: usize = 12;

fn wanted() -> usize {
    std::env::var("CALLSMITH_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

#[test]
fn a_killed_full_run_goes_on_to_the_same_bits() {
    let scratch = Scratch::new();
    kill_often(&scratch, &scratch.full(STEPS), wanted());
}

#[test]
fn a_killed_lora_run_goes_on_to_the_same_bits() {
    let scratch = Scratch::new();
    kill_often(&scratch, &scratch.lora(STEPS), wanted());
}

/// Kills runs until there were `wanted` kills; a run that gets to its end is compared, and a new one begun. The moments are
/// spread over the time of a whole run, so that they fall into beginnings, steps, saves and exports.
fn kill_often(scratch: &Scratch, recipe: &Path, wanted: usize) {
    let (reference, started) = (scratch.path("reference"), Instant::now());
    let (status, words) = finish(&mut trainer(recipe, &reference, &["checkpoint.keep=1000"]));
    assert!(status.success(), "{words}");
    let (whole, time) = (checkpoints(&reference), started.elapsed());
    assert_eq!(whole.len() as u64, STEPS / INTERVAL);
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let (mut kills, mut runs, mut lost) = (0, 0, 0);
    while kills < wanted {
        let output = scratch.path(&format!("run-{runs}"));
        while kills < wanted && killed(&mut trainer(recipe, &output, &[]), time.mul_f64(random.random())) {
            kills += 1;
            let found = checkpoints(&output);
            let saved = found.keys().last().copied().unwrap_or(0);
            let done = logged_steps(&output);
            assert!(done <= saved + INTERVAL, "kill {kills}: {done} steps made, {saved} saved");
            lost = lost.max(done.saturating_sub(saved));
            for (step, manifest) in &found {
                assert_eq!(manifest, &whole[step], "kill {kills}: checkpoint-{step}");
            }
        }
        let (status, words) = finish(&mut trainer(recipe, &output, &[]));
        assert!(status.success(), "{words}");
        assert_eq!(outcome(&output), outcome(&reference), "run {runs} after {kills} kills");
        assert_eq!(leftovers(&output), [] as [&str; 0]);
        runs += 1;
    }
    println!("{kills} kills in {runs} runs; {lost} steps lost at most; {:.1?} for a whole run", time);
}

/// Whether it was killed after `delay`; it may have ended before.
fn killed(command: &mut Command, delay: Duration) -> bool {
    let mut running = Running::start(command);
    match running.ended_within(delay) {
        Some(status) => {
            assert!(status.success(), "{status}");
            false
        }
        None => {
            running.signal(Signal::KILL);
            running.end();
            true
        }
    }
}
