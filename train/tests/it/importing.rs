//! `data import` and `data check` as processes: kills, memory, exit codes.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Kills, as many as the reliability row on data preparation asks for.
const KILLS: usize = 10;
/// KiB of address space, which bounds the memory: 256 MiB.
const MEMORY: usize = 256 << 10;
const LONG_LINE: u64 = 1 << 30;

fn conversation(number: usize) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"Request {number}."}},{{"role":"assistant","content":"Answer {number}."}}]}}"#
    )
}

fn data(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    command.arg("data").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a file of so many conversations.
fn scratch(conversations: usize) -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (input, out) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let lines: String = (0..conversations).map(|number| conversation(number) + "\n").collect();
    fs::write(&input, lines).unwrap();
    (folder, input, out)
}

#[test]
fn an_import_killed_at_any_moment_leaves_the_whole_output_or_none() {
    let (_folder, input, out) = scratch(20_000);
    let import = || data(&["import", text(&input), "--out", text(&out)]);
    let started = Instant::now();
    assert!(import().status().unwrap().success());
    let (time, whole) = (started.elapsed(), fs::read(&out).unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(8);
    for kill in 0..KILLS {
        fs::remove_file(&out).unwrap();
        let mut child = import().spawn().unwrap();
        std::thread::sleep(time.mul_f64(random.random()).max(Duration::from_millis(1)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!out.exists() || fs::read(&out).unwrap() == whole, "kill {kill}");
        assert!(import().status().unwrap().success());
        assert_eq!(fs::read(&out).unwrap(), whole, "after kill {kill}");
    }
}

#[test]
fn a_line_of_a_gibibyte_is_skipped_in_bounded_memory() {
    let (_folder, input, out) = scratch(100);
    let mut file = File::options().append(true).open(&input).unwrap();
    let end = file.seek(SeekFrom::End(0)).unwrap();
    // A hole: a gibibyte to read, and none on the disk.
    file.set_len(end + LONG_LINE).unwrap();
    let dense = format!("{{\"messages\":[{}0]}}", "0,".repeat((2 << 20) / 2 - 16));
    write!(file, "\n{}\n{dense}\n{}\n", conversation(1), conversation(2)).unwrap();
    for command in ["import", "check"] {
        let limited = format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_callsmith-train"), "data", command, text(&input)]);
        let out = ["--out", text(&out)];
        let fix = ["--fix", "drop-unreadable,drop-duplicates"];
        let output = shell.args(out).args(if command == "check" { fix.as_slice() } else { &[] }).output().unwrap();
        let words = words(&output);
        assert!(output.status.success() && words.contains("in.jsonl:101: ") && words.contains("too long"), "{words}");
        assert!(words.contains("in.jsonl:103: "), "{words}");
    }
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 100, "two lines were there before");
}

#[test]
fn no_output_replaces_an_input_or_another_output() {
    let (folder, input, out) = scratch(2);
    let (whole, linked) = (fs::read(&input).unwrap(), folder.path().join("linked.jsonl"));
    std::os::unix::fs::symlink(&input, &linked).unwrap();
    for arguments in [
        ["import", text(&input), "--out", text(&input), "--show", "1"],
        ["import", text(&input), "--out", text(&linked), "--show", "1"],
        ["import", text(&input), "--out", text(&out), "--report", text(&out)],
        ["check", text(&input), "--report", text(&input), "--show", "1"],
        ["check", text(&input), "--against", text(&linked), "--report", text(&linked)],
    ] {
        let output = data(&arguments).output().unwrap();
        assert!(
            !output.status.success() && words(&output).contains("named twice"),
            "{arguments:?}: {}",
            words(&output)
        );
        assert!(fs::read(&input).unwrap() == whole && !out.exists(), "{arguments:?}");
    }
}

#[test]
fn a_report_is_written_also_where_nothing_else_is() {
    let (folder, input, out) = scratch(0);
    let report = folder.path().join("report.json");
    fs::write(&input, "{\"strange\": 1}\n").unwrap();
    let imported = ["import", text(&input), "--out", text(&out), "--report", text(&report)];
    assert_eq!(data(&imported).status().unwrap().code(), Some(1));
    assert!(fs::read_to_string(&report).unwrap().contains("\"unknown\": 1"));
    let fix = ["check", text(&input), "--fix", "drop-turns", "--out", text(&out), "--report", text(&report)];
    assert_eq!(data(&fix).status().unwrap().code(), Some(1));
    assert!(fs::read_to_string(&report).unwrap().contains("\"unreadable\": 1") && !out.exists());
}

#[test]
fn a_similarity_that_cannot_be_told_is_refused() {
    let (_folder, input, _) = scratch(1);
    for wrong in ["80", "nan", "0", "0.3"] {
        let output = data(&["check", text(&input), "--similarity", wrong]).output().unwrap();
        assert!(output.status.code() == Some(2) && words(&output).contains("between 0.5 and 1"), "{wrong}");
    }
}

#[test]
fn problems_that_are_left_fail_the_check() {
    let (folder, input, out) = scratch(3);
    let report = folder.path().join("report.json");
    assert!(data(&["check", text(&input)]).status().unwrap().success());
    fs::write(&input, [conversation(1), conversation(1)].join("\n")).unwrap();
    let output = data(&["check", text(&input), "--report", text(&report)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("in.jsonl:2: duplicate: says and calls the same"), "{}", words(&output));
    assert!(fs::read_to_string(report).unwrap().contains("\"duplicate\": 1"));
    let fixed = ["check", text(&input), "--fix", "drop-duplicates", "--out", text(&out)];
    assert!(data(&fixed).status().unwrap().success());
    assert_eq!(fs::read_to_string(&out).unwrap(), conversation(1) + "\n");
}
