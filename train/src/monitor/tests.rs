use super::*;
use crate::loss::Tally;
use crate::trainer::StepReport;
use std::fs;

/// Ten steps from `first`, a line for every other one.
fn watch(output: &Path, first: u64, ten: bool) -> Monitor {
    let mut monitor = Monitor::new(output, first, false, 100, Display::Plain).unwrap();
    monitor.event("start", json!({"step": first}), "begins").unwrap();
    for step in first..first + if ten { 10 } else { 0 } {
        let tally = Tally { loss: 3.0, weight: 2.0, ..Tally::default() };
        let report = StepReport {
            tally,
            lr: 0.1,
            gradient_norm: 0.5,
            gradient_noise: (step % 4 == 3).then_some(12.5),
            skipped: false,
        };
        let line = StepLine {
            step,
            phase: 0,
            report: &report,
            step_tokens: 100,
            step_samples: 4,
            tokens: 100 * (step + 1),
            skipped: 0,
            dropped: 0,
        };
        monitor.step(&line, step % 2 == 1).unwrap();
    }
    monitor
}

fn steps(output: &Path) -> Vec<u64> {
    let lines = log::read(output).unwrap();
    lines.iter().filter(|line| line["event"] == "step").filter_map(|line| line["step"].as_u64()).collect()
}

fn last(output: &Path, event: &str) -> Value {
    log::read(output).unwrap().into_iter().rev().find(|line| line["event"] == event).unwrap()
}

#[test]
fn a_line_holds_what_was_measured() {
    let root = tempfile::tempdir().unwrap();
    let _running = watch(root.path(), 0, true);
    assert_eq!(steps(root.path()), [1, 3, 5, 7, 9]);
    let line = last(root.path(), "step");
    assert_eq!((&line["loss"], &line["lr"], &line["gradient_noise"]), (&json!(1.5), &json!(0.1), &Value::Null));
    assert_eq!((&line["tokens"], &line["total_samples"]), (&json!(1000), &json!(40)));
    assert!(line["samples_per_second"].as_f64() > Some(0.0) && line["eta_seconds"].is_f64(), "{line}");
    assert!(line["time"].as_f64() > Some(1.7e9), "{line}");
}

#[test]
fn a_resumed_log_has_no_step_twice_and_says_what_was_removed() {
    let root = tempfile::tempdir().unwrap();
    let mut killed = watch(root.path(), 0, true);
    killed.event("checkpoint", json!({"step": 10}), "saved").unwrap();
    std::mem::forget(killed);
    std::mem::forget(watch(root.path(), 10, true));
    let _running = watch(root.path(), 10, true);
    assert_eq!(steps(root.path()), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
    let resume = last(root.path(), "resume");
    assert_eq!((&resume["step"], &resume["removed_lines"]), (&json!(10), &json!(5)));
    assert_eq!(last(root.path(), "step")["total_samples"], 80);
    assert_eq!(fs::read_dir(root.path().join("tensorboard")).unwrap().count(), 3);
}

#[test]
fn every_end_is_told_by_the_log_and_the_report() {
    let root = tempfile::tempdir().unwrap();
    let page = || fs::read_to_string(root.path().join("report.html")).unwrap();
    drop(watch(root.path(), 0, true));
    assert_eq!(last(root.path(), "failed")["step"], 10);
    assert!(page().contains("failed after step 10"), "{}", page());

    let mut monitor = watch(root.path(), 10, false);
    monitor.fail(&TrainError::Diverged(3));
    drop(monitor);
    let failed = last(root.path(), "failed");
    assert!(failed["error"].as_str().unwrap().contains("lower optim.lr"), "{failed}");
    assert!(page().contains("failed after step 10: loss or gradient was not finite"), "{}", page());

    let mut monitor = watch(root.path(), 10, false);
    monitor.event("stopped", json!({"step": 10}), "stopped").unwrap();
    drop(monitor);
    assert!(page().contains("stopped after step 10"), "{}", page());
    let lines = log::read(root.path()).unwrap();
    assert_eq!(lines.last().unwrap()["event"], "stopped");
}
