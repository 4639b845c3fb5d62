//! SIGINT and SIGTERM: the first ends a run after its step with everything saved, the second ends it at once.

use crate::process::{Running, Scratch, checkpoints, events, leftovers, logged_steps, trainer, until};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

const REPEATS: usize = 20;
/// What an orchestrator gives a process to end.
const GRACE: Duration = Duration::from_secs(30);
/// Moments of signals, of a process that has begun within a tenth of it: beginnings, steps, saves and evaluations lie in it.
const MOMENTS: Duration = Duration::from_millis(600);

/// Dialogues that are held out are longer than what is trained on.
const WITH_EVALUATION: [&str; 6] = [
    "model.shape.max_position_embeddings=2048",
    "batch.tokens=1200",
    "batch.max_len=1200",
    "eval.synth=true",
    "eval.every=5",
    "eval.samples=5",
];

/// The same on a machine that has other work.
fn moments(recipe: &Path, output: &Path) -> Duration {
    let started = Instant::now();
    let mut running = Running::start(&mut trainer(recipe, output, &WITH_EVALUATION));
    until(|| output.join("train.jsonl").exists());
    let begun = started.elapsed();
    running.signal(Signal::KILL);
    running.ended_within(GRACE).expect("it does not end");
    MOMENTS.max(begun * 10)
}

#[test]
fn a_first_signal_at_any_moment_ends_the_run_with_all_its_steps_saved() {
    let scratch = Scratch::new();
    let recipe = scratch.full(1_000_000);
    let moments = moments(&recipe, &scratch.path("begun"));
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut early, mut evaluations, mut longest) = (0, 0, Duration::ZERO);
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        for repeat in 0..REPEATS {
            // A run goes on from where the last was stopped.
            let output = scratch.path(&format!("{name}-{}", repeat % 4));
            let mut running = Running::start(&mut trainer(&recipe, &output, &WITH_EVALUATION));
            assert!(running.ended_within(moments.mul_f64(random.random())).is_none());
            let sent = Instant::now();
            running.signal(signal);
            let status = running.ended_within(GRACE).expect("it does not end");
            longest = longest.max(sent.elapsed());
            // Before it has begun, nobody is there yet to take the signal, and nothing to save.
            if status.signal() == Some(signal.as_raw()) {
                early += 1;
                continue;
            }
            assert_eq!(status.code(), Some(0), "{name} {repeat}");
            let saved = checkpoints(&output).keys().last().copied();
            assert_eq!(saved.unwrap_or(0), logged_steps(&output), "{name} {repeat}");
            assert_eq!(leftovers(&output), [] as [&str; 0]);
            evaluations += events(&output, "eval").len();
        }
    }
    println!(
        "{} of {} stopped with all saved, {early} had not begun; {longest:.1?} at most",
        2 * REPEATS - early,
        2 * REPEATS
    );
    assert!(early < REPEATS && evaluations > 0);
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let scratch = Scratch::new();
    let recipe = scratch.full(10);
    let output = scratch.path("run");
    // A step takes many seconds.
    let slow = ["batch.tokens=2000000", "batch.max_len=100", "batch.workers=2"];
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start(&mut trainer(&recipe, &output, &slow));
        until(|| output.join("train.jsonl").exists());
        running.signal(signal);
        assert!(running.ended_within(Duration::from_millis(300)).is_none(), "it stops after the step");
        running.signal(signal);
        let status = running.ended_within(Duration::from_secs(2)).expect("it does not end at once");
        assert_eq!(status.code(), Some(130));
        std::fs::remove_dir_all(&output).unwrap();
    }
}
