//! `data stats`, `data split` and URLs for data files: the real command, as a person types it.

use crate::fixture;
use callsmith_train::data::synth::{SynthConfig, write_jsonl};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// 200 generated dialogues in a directory of their own.
fn dialogues() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data.jsonl");
    write_jsonl(&SynthConfig::default(), 200, &path).unwrap();
    (root, path)
}

fn run(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    command.args(args).env("CALLSMITH_DOWNLOAD_DIR", root.join("downloads")).current_dir(root).output().unwrap()
}

fn done(root: &Path, args: &[&str]) -> String {
    let output = run(root, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Serves one file to every request, for as long as the test runs; returns its URL.
fn serve(content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/set/data.jsonl", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let lines = reader.by_ref().lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            assert!(head[0].starts_with("GET /set/data.jsonl "), "{head:?}");
            let length = content.len();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            reader.get_mut().write_all(&[head.as_bytes(), &content].concat()).unwrap();
        }
    });
    url
}

#[test]
fn statistics_come_as_a_table_as_json_and_as_a_page() {
    let (root, _) = dialogues();
    let table = done(root.path(), &["data", "stats", "data.jsonl", "--html", "page.html"]);
    assert!(table.starts_with("200 dialogues, ") && table.contains("response tokens (trained)"), "{table}");
    let page = fs::read_to_string(root.path().join("page.html")).unwrap();
    assert!(page.contains("data.jsonl") && page.contains("<svg"));
    let json: Value = serde_json::from_str(&done(root.path(), &["data", "stats", "data.jsonl", "--json"])).unwrap();
    assert_eq!(json["dialogues"], 200);
    let tokens = &json["tokens"]["whole"];
    assert!(tokens["p50"].as_u64() <= tokens["p99"].as_u64() && tokens["p99"].as_u64() <= tokens["max"].as_u64());
}

#[test]
fn another_tokenizer_gives_other_lengths_and_an_unknown_dialect_is_refused() {
    let (root, _) = dialogues();
    fixture::tokenizer_below(root.path());
    let total = |options: &[&str]| {
        let json = done(root.path(), &[&["data", "stats", "data.jsonl", "--json"], options].concat());
        serde_json::from_str::<Value>(&json).unwrap()["tokens"]["total"].as_u64().unwrap()
    };
    assert!(total(&["--model", "tokenizer"]) > total(&[]));
    let output = run(root.path(), &["data", "stats", "data.jsonl", "--dialect", "nonsense"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("nonsense"));
}

#[test]
fn a_split_tells_what_it_did_and_writes_both_sides() {
    let (root, _) = dialogues();
    let outs = ["--out-train", "train.jsonl", "--out-test", "test.jsonl", "--seed", "3", "--share", "0.2"];
    let output = run(root.path(), &[&["data", "split", "data.jsonl", "--by", "function"], &outs[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("train: ") && told.contains("neither: "), "{told}");
    let lines = |name: &str| fs::read_to_string(root.path().join(name)).unwrap().lines().count();
    assert!(lines("train.jsonl") > lines("test.jsonl") && lines("test.jsonl") > 0);
}

#[test]
fn a_url_stands_wherever_a_data_file_may() {
    let (root, path) = dialogues();
    let url = serve(fs::read(path).unwrap());
    assert!(done(root.path(), &["data", "stats", &url]).starts_with("200 dialogues, "));
    done(root.path(), &["data", "split", &url, "--out-train", "a", "--out-test", "b"]);
    fixture::tokenizer_below(root.path());
    let recipe = format!(
        "method = \"full\"\noutput = \"run\"\n[model]\ntokenizer = \"tokenizer\"\n[model.shape]\n{}\nmax_position_embeddings = 4096\n\
         [optim]\nlr = 0.01\n[batch]\ntokens = 4000\nmax_len = 4000\n[[phase]]\nsteps = 1\nsource = [{{ jsonl = \"{url}\" }}]\n\
         [eval]\ndata = \"{url}\"\nsamples = 2\ngenerate = 0",
        fixture::SHAPE
    );
    fs::write(root.path().join("recipe.toml"), recipe).unwrap();
    done(root.path(), &["full", "recipe.toml"]);
    let resolved = fs::read_to_string(root.path().join("run/recipe.toml")).unwrap();
    assert_eq!(resolved.matches("-data.jsonl").count(), 2, "{resolved}");
    assert!(!resolved.contains("http://"), "what was trained on is named by its content: {resolved}");
    assert_eq!(fs::read_dir(root.path().join("downloads")).unwrap().count(), 2, "one file, one entry");
}

#[test]
fn a_download_above_the_limit_is_refused_and_leaves_nothing() {
    let (root, _) = dialogues();
    let url = serve(vec![b' '; (1 << 20) + 1]);
    let output = run(root.path(), &["data", "stats", &url, "--max-download-mib", "1"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("--max-download-mib"), "{told}");
    assert!(!root.path().join("downloads").exists());
}
