//! The real trainer as a child process, on a tiny model whose whole run takes about a second.

use crate::fixture;
use callsmith_train::recipe::Recipe;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A directory with a tokenizer, recipes, and the runs made from them. In memory where that can be: a killed process leaves
/// the same there, and a flush costs nothing.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        fixture::tokenizer_below(root.path());
        Self(root)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The recipe of a model from random weights, saved each tenth step.
    pub(crate) fn full(&self, steps: u64) -> PathBuf {
        let tokenizer = self.path("tokenizer");
        let text = format!(
            r#"
            method = "full"
            output = "unnamed"
            seed = 5
            [model]
            tokenizer = "{}"
            [model.shape]
            {shape}
            max_position_embeddings = 256
            [optim]
            lr = 0.01
            [batch]
            tokens = 200
            max_len = 100
            [[phase]]
            steps = {steps}
            source = [{{ copy = {{ pool = [8, 20], length = [3, 8] }} }}]
            [log]
            every = 1
            [checkpoint]
            every = 10
            "#,
            tokenizer.display(),
            shape = fixture::SHAPE
        );
        self.write("full.toml", &text)
    }

    /// The recipe of an adapter on such a model.
    pub(crate) fn lora(&self, steps: u64) -> PathBuf {
        let base = self.path("base");
        if !base.exists() {
            assert!(trainer(&self.full(1), &base, &[]).status().unwrap().success());
        }
        let text = fs::read_to_string(self.full(steps)).unwrap();
        let (head, tail) = (text.find("[model]").unwrap(), text.find("[optim]").unwrap());
        let model = format!(
            "[model]\npath = \"{}\"\n[lora]\nrank = 2\nalpha = 4\ndropout = 0.1\n",
            base.join("model").display()
        );
        let text = format!("{}{model}{}", text[..head].replace("full", "lora"), &text[tail..]);
        self.write("lora.toml", &text)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// The command that trains into `output`, or goes on there; it says nothing.
pub(crate) fn trainer(recipe: &Path, output: &Path, sets: &[&str]) -> Command {
    let method = recipe.file_stem().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    command.arg(method).arg(recipe).arg("--resume").arg(format!("--set=output={}", output.display()));
    command.args(sets.iter().map(|set| format!("--set={set}"))).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs a command to its end: its status and what it said.
pub(crate) fn finish(command: &mut Command) -> (ExitStatus, String) {
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// A process that ends with the test, however that ends.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits for the end, as long as `time`.
    pub(crate) fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            match self.ended() {
                None if started.elapsed() < time => std::thread::sleep(Duration::from_millis(1)),
                ended => return ended,
            }
        }
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.ended_within(LIMIT).expect("it does not end")
    }

    /// What is left to be read of its piped stderr, after its end.
    pub(crate) fn words(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `holds`.
pub(crate) fn until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The checkpoints of a run by step. That each is whole is checked against its manifest, by this test's own reading of it.
pub(crate) fn checkpoints(output: &Path) -> BTreeMap<u64, serde_json::Value> {
    let Ok(entries) = fs::read_dir(output) else { return BTreeMap::new() };
    let steps = entries.filter_map(|entry| {
        let path = entry.unwrap().path();
        let step = path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().unwrap();
        Some((step, manifest(&path)))
    });
    steps.collect()
}

fn manifest(checkpoint: &Path) -> serde_json::Value {
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(checkpoint.join("manifest.json")).unwrap()).unwrap();
    let named = manifest["files"].as_object().unwrap().iter();
    let named: BTreeMap<_, _> =
        named.map(|(name, entry)| (name.clone(), entry["sha256"].as_str().unwrap().to_owned())).collect();
    let mut found = sums(checkpoint);
    found.remove("manifest.json");
    assert_eq!(found, named, "{}", checkpoint.display());
    manifest
}

/// SHA-256 of each file of a directory, by name.
pub(crate) fn sums(dir: &Path) -> BTreeMap<String, String> {
    let sum = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    fs::read_dir(dir).unwrap().map(|entry| sum(entry.unwrap().path())).collect()
}

/// What a run leaves in the end: its last checkpoint (weights, moments, state with the data cursor) and its export.
pub(crate) fn outcome(output: &Path) -> (Option<(u64, serde_json::Value)>, BTreeMap<String, String>) {
    (checkpoints(output).pop_last(), sums(&output.join("model")))
}

/// The log's whole lines of a kind.
pub(crate) fn events(output: &Path, event: &str) -> Vec<serde_json::Value> {
    let log = fs::read_to_string(output.join("train.jsonl")).unwrap_or_default();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["event"] == event).collect()
}

/// Steps that the log tells of.
pub(crate) fn logged_steps(output: &Path) -> u64 {
    let steps = events(output, "step");
    steps.iter().filter_map(|line| line["step"].as_u64()).max().map_or(0, |step| step + 1)
}

/// What a run has left beside what it is to leave.
pub(crate) fn leftovers(output: &Path) -> Vec<String> {
    let entries = fs::read_dir(output).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with('.') && name != ".lock").collect()
}

/// All floating-point values of all safetensors files below a run are finite.
pub(crate) fn assert_finite(output: &Path) {
    let dirs = fs::read_dir(output).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    for path in dirs.flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            for (name, tensor) in candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap() {
                let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(values.iter().all(|value| value.is_finite()), "{}: {name}", path.display());
            }
        }
    }
}

/// The recipe as the library reads it.
pub(crate) fn parsed(recipe: &Path, output: &Path) -> Recipe {
    Recipe::load(recipe, &[format!("output={}", output.display())]).unwrap()
}
