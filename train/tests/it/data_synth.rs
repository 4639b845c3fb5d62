//! `data synth` as a command: what its presets write, and what it refuses.

use callsmith_train::data::native;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

fn synth(dir: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    command.args(["data", "synth", "--out", "out.jsonl"]).args(options).current_dir(dir);
    command.output().unwrap()
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("out.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn dialogues_are_written_in_the_native_format_with_class_and_weights() {
    let dir = tempfile::tempdir().unwrap();
    let output = synth(dir.path(), &["--preset", "dialogues", "--count", "300"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(dir.path());
    assert_eq!(lines.len(), 300);
    let classes: BTreeSet<&str> = lines.iter().map(|line| line["metadata"]["class"].as_str().unwrap()).collect();
    assert!(classes.len() >= 18, "{classes:?}");
    let mut untrained = 0;
    for line in &lines {
        let dialogue = native::dialogue_from_line(&line.to_string(), "out").unwrap();
        let mut again = native::dialogue_to_json(&dialogue);
        again["metadata"] = line["metadata"].clone();
        assert_eq!(again, *line);
        untrained += dialogue.untrained.len();
    }
    assert!(untrained > 5);
}

#[test]
fn pairs_are_written_in_the_shape_of_instruction_tune() {
    let dir = tempfile::tempdir().unwrap();
    assert!(synth(dir.path(), &["--preset", "pairs", "--count", "50"]).status.success());
    for line in lines(dir.path()) {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["instruction", "input", "output"]);
        assert_eq!(line["input"]["function_call_example"]["name"], line["output"]["function_call"]["name"]);
    }
}

#[test]
fn settings_come_from_a_file_and_unknown_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "classes = { chat = 1 }\nseed = 9\n").unwrap();
    assert!(synth(dir.path(), &["--preset", "dialogues", "--config", "c.toml", "--count", "5"]).status.success());
    assert!(lines(dir.path()).iter().all(|line| line["metadata"]["class"] == "chat"));
    std::fs::write(dir.path().join("c.toml"), "clases = { chat = 1 }\n").unwrap();
    let refused = synth(dir.path(), &["--preset", "dialogues", "--config", "c.toml"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("clases") && message.contains("c.toml"), "{message}");
    // What was there is as it was.
    assert_eq!(lines(dir.path()).len(), 5);
}

#[test]
fn dialogues_are_made_of_the_functions_of_an_openapi_document() {
    let dir = tempfile::tempdir().unwrap();
    let operation = |name: &str| {
        format!(
            r#""/{name}":{{"get":{{"operationId":"{name}","summary":"Lists {name}","parameters":[{{"name":"city","in":"query","required":true,"schema":{{"type":"string"}}}}]}}}}"#
        )
    };
    let paths: Vec<String> = ["hotels", "trains", "museums", "parks", "shops", "schools"].map(operation).into();
    std::fs::write(dir.path().join("api.json"), format!(r#"{{"openapi":"3.0.0","paths":{{{}}}}}"#, paths.join(",")))
        .unwrap();
    let output = synth(dir.path(), &["--tools-from", "api.json", "--count", "40"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = lines(dir.path()).iter().filter(|line| line["messages"][1]["tool_calls"].is_array()).count();
    assert!(calls > 10 && calls < 40, "{calls}");
    let refused = synth(dir.path(), &["--preset", "pairs", "--tools-from", "api.json"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("leave --preset out"));
}
