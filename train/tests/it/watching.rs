//! What a run leaves for whoever watches it: its log, event files and report.

use crate::fixture;
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn recipe(root: &Path) -> String {
    fs::create_dir(root.join("tokenizer")).unwrap();
    fixture::tokenizer(&root.join("tokenizer"));
    format!(
        r#"
        method = "full"
        output = "{root}/run"
        [model]
        tokenizer = "{root}/tokenizer"
        [model.shape]
        hidden_size = 16
        intermediate_size = 24
        num_hidden_layers = 1
        num_attention_heads = 2
        num_key_value_heads = 1
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
        root = root.display()
    )
}

fn lines(run: &Path) -> Vec<Value> {
    let log = fs::read_to_string(run.join("train.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_resumed_run_leaves_one_log_an_event_file_of_each_process_and_a_report() {
    let root = tempfile::tempdir().unwrap();
    let recipe = Recipe::parse(&recipe(root.path()), "test", &[]).unwrap();
    let go_on = |resume, stop| {
        let options = RunOptions { resume, ..RunOptions::default() };
        train(&recipe, options, &Arc::new(AtomicBool::new(stop))).unwrap()
    };
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
    let file = root.path().join("recipe.toml");
    fs::write(&file, recipe(root.path())).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    let status = command.arg("full").arg(file).stdin(Stdio::null()).stderr(writer).status().unwrap();
    assert!(status.success(), "{status}");
    let run = root.path().join("run");
    assert_eq!(lines(&run).last().unwrap()["event"], "finished");
    assert!(run.join("report.html").exists() && run.join("model").exists());
}
