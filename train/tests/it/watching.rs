//! What a run leaves for whoever watches it: its log, event files and report.

use crate::fixture;
use crate::whole_run::run;
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train};
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{self, Winsize};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn recipe(root: &Path) -> String {
    fixture::tokenizer_below(root);
    format!(
        r#"
        method = "full"
        output = "{root}/run"
        [model]
        tokenizer = "{root}/tokenizer"
        [model.shape]
        {shape}
        max_position_embeddings = 2048
        [optim]
        lr = 0.01
        [batch]
        tokens = 1500
        max_len = 1200
        [[phase]]
        steps = 4
        source = [{{ synth = {{ tools = [1, 2] }} }}]
        [eval]
        every = 2
        synth = true
        samples = 3
        [log]
        every = 1
        "#,
        root = root.display(),
        shape = fixture::SHAPE
    )
}

/// The command on a recipe in `root`.
fn command(root: &Path, flags: &[&str]) -> Command {
    let file = root.join("recipe.toml");
    fs::write(&file, recipe(root)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    command.arg("full").arg(file).args(flags).stdin(Stdio::null());
    command
}

fn lines(run: &Path) -> Vec<Value> {
    let log = fs::read_to_string(run.join("train.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_resumed_run_leaves_one_log_an_event_file_of_each_process_and_a_report() {
    let root = tempfile::tempdir().unwrap();
    let recipe = Recipe::parse(&recipe(root.path()), "test", &[]).unwrap();
    let go_on = |resume, stop| run(&recipe, resume, stop).unwrap();
    let report = || fs::read_to_string(recipe.output.join("report.html")).unwrap();
    assert_eq!(go_on(false, true), Outcome::Stopped { step: 1 });
    assert!(report().contains("stopped after step 1"));
    // As a process leaves it that is killed in the midst of a line of its third step.
    let mut log = fs::File::options().append(true).open(recipe.output.join("train.jsonl")).unwrap();
    log.write_all(b"{\"event\":\"step\",\"step\":1,\"loss\":1.0}\n{\"event\":\"step\",\"step\":2,\"lo").unwrap();

    assert_eq!(go_on(true, false), Outcome::Finished);
    let lines = lines(&recipe.output);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let steps: Vec<_> = of("step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2, 3]);
    assert_eq!(of("resume")[0]["removed_lines"], 2);
    let samples: Vec<_> = of("step").iter().map(|line| line["total_samples"].as_u64().unwrap()).collect();
    assert!(samples.is_sorted_by(|a, b| a < b), "{samples:?}");
    assert_eq!(fs::read_dir(recipe.output.join("tensorboard")).unwrap().count(), 2);
    assert!(report().contains("finished after 4 steps") && report().contains("num_hidden_layers = 1"));
}

#[test]
fn a_closed_stderr_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command(root.path(), &[]).stderr(writer).status().unwrap();
    assert!(status.success(), "{status}");
    let run = root.path().join("run");
    assert_eq!(lines(&run).last().unwrap()["event"], "finished");
    assert!(run.join("report.html").exists() && run.join("model").exists());
}

/// What the command writes to a terminal of 80 columns.
fn on_a_terminal(flags: &[&str]) -> String {
    let root = tempfile::tempdir().unwrap();
    let controller = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&controller).unwrap();
    pty::unlockpt(&controller).unwrap();
    let name = pty::ptsname(&controller, Vec::new()).unwrap();
    let terminal = fs::File::options().read(true).write(true).open(Path::new(name.to_str().unwrap())).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    termios::tcsetwinsize(&terminal, size).unwrap();
    let mut command = command(root.path(), flags);
    let mut child = command.env("TERM", "xterm").stderr(terminal).spawn().unwrap();
    drop(command);
    let mut shown = Vec::new();
    // A terminal whose last writer has gone ends with an error.
    let _ = fs::File::from(controller).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn a_terminal_shows_a_live_view_unless_lines_are_asked_for() {
    assert!(on_a_terminal(&[]).contains("\x1b[J"));
    let plain = on_a_terminal(&["--plain"]);
    assert!(!plain.contains("\x1b[J") && plain.contains("step 4/4"), "{plain}");
}

#[test]
fn a_run_that_fails_says_why_in_its_log_and_report() {
    let root = tempfile::tempdir().unwrap();
    let sets = ["optim.lr=1e30", "optim.max_skipped=1", "eval.every=100"].map(str::to_owned);
    let recipe = Recipe::parse(&recipe(root.path()), "test", &sets).unwrap();
    let error = train(&recipe, RunOptions::default(), &Arc::new(AtomicBool::new(false))).unwrap_err().to_string();
    let lines = lines(&recipe.output);
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["error"]), (&json!("failed"), &json!(error)));
    assert!(error.contains("not finite"), "{error}");
    assert!(
        fs::read_to_string(recipe.output.join("report.html"))
            .unwrap()
            .contains("failed after step 1: loss or gradient")
    );
}

#[test]
fn a_report_is_rebuilt_from_the_log_of_a_run() {
    let root = tempfile::tempdir().unwrap();
    assert!(command(root.path(), &[]).stderr(Stdio::null()).status().unwrap().success());
    let report =
        |run: &Path| Command::new(env!("CARGO_BIN_EXE_callsmith-train")).arg("report").arg(run).output().unwrap();
    let page = root.path().join("run/report.html");
    let written = fs::read(&page).unwrap();
    fs::remove_file(&page).unwrap();
    assert!(report(&root.path().join("run")).status.success());
    assert!(fs::read(&page).unwrap() == written);
    let refused = report(root.path());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("train.jsonl"), "{refused:?}");
}
