//! A file system that refuses: full, read-only, files limited. The run ends with an error that says where and what to do; the
//! last checkpoint is as it was, nothing half-written lies about, and the run goes on once there is space.

use crate::process::{Running, Scratch, checkpoints, finish, leftovers, outcome, trainer, until};
use callsmith_train::checkpoint;
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

const STEPS: u64 = 400;

/// `script` in a shell, with the trainer's command as its arguments.
fn through_shell(script: &str, trainer: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(trainer.get_program()).args(trainer.get_args());
    shell
}

/// A run that was stopped half-way, and what an undisturbed one leaves.
fn halfway(scratch: &Scratch, recipe: &Path, output: &Path) {
    let mut running = Running::start(&mut trainer(recipe, output, &[]));
    until(|| checkpoint::list(output).is_ok_and(|found| found.len() == 2));
    running.signal(Signal::TERM);
    assert!(running.ended_within(Duration::from_secs(30)).unwrap().success());
    assert!(trainer(recipe, &scratch.path("whole"), &[]).status().unwrap().success());
}

#[test]
fn a_file_that_may_not_grow_ends_the_run_and_leaves_the_last_checkpoint() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.full(STEPS), scratch.path("run"));
    halfway(&scratch, &recipe, &output);
    let before = checkpoints(&output);
    // 512 bytes each: less than the optimizer's moments.
    let (status, words) =
        finish(&mut through_shell("ulimit -f 150; exec \"$@\"", &trainer(&recipe, &output, &["log.every=1000"])));
    assert_eq!(status.code(), Some(1), "{words}");
    let error = words.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(
        error.contains("/checkpoint-") && error.contains("optimizer.safetensors") && error.contains("ulimit -f"),
        "{words}"
    );
    assert_eq!((checkpoints(&output), leftovers(&output)), (before, Vec::new()));
    assert!(trainer(&recipe, &output, &[]).status().unwrap().success());
    assert_eq!(outcome(&output), outcome(&scratch.path("whole")));
}

/// Runs `script` in a mount name space of its own, so that what it mounts goes with it. `None` where that is not permitted.
fn with_mounts(script: &str, trainer: &Command) -> Option<(ExitStatus, String)> {
    let permitted = Command::new("unshare").args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount file systems");
        return None;
    }
    let inside = through_shell(script, trainer);
    let mut command = Command::new("unshare");
    command.arg("--mount").arg("sh").args(inside.get_args());
    Some(finish(&mut command))
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_the_last_checkpoint() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.full(STEPS), scratch.path("run"));
    halfway(&scratch, &recipe, &output);
    let before = checkpoints(&output);
    // Space for a part of the next checkpoint. What the trainer leaves is copied out.
    let script = format!(
        "cd {0} && mv run kept && mkdir run && mount -t tmpfs -o size=2m tmpfs run && cp -a kept/. run/ && rm -r kept
         free=$(df -k run | awk 'END {{ print $4 }}') && head -c $(( (free - 100) * 1024 )) /dev/zero > run/filler
         \"$@\"; code=$?; rm run/filler; cp -a run left; exit $code",
        scratch.path(".").display()
    );
    let Some((status, words)) = with_mounts(&script, &trainer(&recipe, &output, &[])) else { return };
    assert_eq!(status.code(), Some(1), "{words}");
    let error = words.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(
        error.contains("/run/checkpoint-") && error.contains("No space left") && error.contains("--resume"),
        "{words}"
    );
    let left = scratch.path("left");
    assert_eq!((checkpoints(&left), leftovers(&left)), (before, Vec::new()));
    let (status, words) = finish(&mut trainer(&recipe, &left, &[]));
    assert!(status.success(), "{words}");
    assert_eq!(outcome(&left), outcome(&scratch.path("whole")));
}

#[test]
fn a_read_only_directory_is_refused_by_name() {
    let scratch = Scratch::new();
    let (recipe, output) = (scratch.full(STEPS), scratch.path("run"));
    std::fs::create_dir(&output).unwrap();
    let script = format!("mount -t tmpfs -o ro tmpfs {}; \"$@\"", output.display());
    let Some((status, words)) = with_mounts(&script, &trainer(&recipe, &output, &[])) else { return };
    assert_eq!(status.code(), Some(1), "{words}");
    let error = words.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("/run") && error.contains("Read-only") && error.contains("make it writable"), "{words}");
}
