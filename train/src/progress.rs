//! What a run shows: a progress bar (plain lines when stderr is no terminal) and one JSON object per line in a file.

use crate::error::{Result, TrainError};
use crate::loss::Tally;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Reports a run.
pub struct Progress {
    bar: Option<ProgressBar>,
    log: File,
    path: PathBuf,
    started: Instant,
    first_step: u64,
    total_steps: u64,
    interval: Interval,
}

/// What happened since the last log line.
struct Interval {
    since: Instant,
    tally: Tally,
    tokens: u64,
}

/// What is known after a step.
pub struct StepLine<'a> {
    pub step: u64,
    pub phase: usize,
    pub report: &'a crate::trainer::StepReport,
    pub tokens: u64,
    pub skipped: u64,
    pub dropped: u64,
}

impl Progress {
    /// Appends to the log at `path`; the run goes from `first_step` to `total_steps`.
    pub fn new(path: &Path, first_step: u64, total_steps: u64) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::io(path))?;
        let bar = std::io::stderr().is_terminal().then(|| bar(first_step, total_steps));
        let now = Instant::now();
        let interval = Interval { since: now, tally: Tally::default(), tokens: 0 };
        Ok(Self { bar, log, path: path.to_owned(), started: now, first_step, total_steps, interval })
    }

    /// Counts a step of `tokens` tokens; `log` also writes a line.
    pub fn step(&mut self, line: &StepLine<'_>, tokens: usize, log: bool) -> Result<()> {
        self.interval.tokens += tokens as u64;
        if !line.report.skipped {
            self.interval.tally.merge(&line.report.tally);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(line.step + 1);
        }
        if log {
            self.flush(line)?;
        }
        Ok(())
    }

    fn flush(&mut self, line: &StepLine<'_>) -> Result<()> {
        let tally = self.interval.tally;
        let speed = self.interval.tokens as f64 / self.interval.since.elapsed().as_secs_f64().max(1e-9);
        let share = |ratio: crate::loss::Ratio| ratio.share().map_or(Value::Null, |share| json!(round(share)));
        self.write(&json!({
            "event": "step", "step": line.step, "phase": line.phase,
            "loss": round(tally.mean()), "answer_loss": round(tally.answer_loss / tally.answers.total.max(1) as f64),
            "name_accuracy": share(tally.names), "value_accuracy": share(tally.values),
            "found_accuracy": share(tally.found),
            "token_accuracy": share(tally.answers), "lr": line.report.lr, "gradient_norm": round(line.report.gradient_norm),
            "tokens": line.tokens, "tokens_per_second": speed.round(), "skipped": line.skipped, "dropped": line.dropped,
            "elapsed_seconds": self.started.elapsed().as_secs_f64().round(),
        }))?;
        let percent =
            |ratio: crate::loss::Ratio| ratio.share().map_or("-".into(), |share| format!("{:.1}%", share * 100.0));
        let message = format!(
            "loss {:.4}  name {}  value {}  found {}  lr {:.2e}  {speed:.0} tok/s",
            tally.mean(),
            percent(tally.names),
            percent(tally.values),
            percent(tally.found),
            line.report.lr
        );
        self.show(line.step, &message);
        self.interval = Interval { since: Instant::now(), tally: Tally::default(), tokens: 0 };
        Ok(())
    }

    fn show(&self, step: u64, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => note(&format!("step {}/{}  {message}  {} left", step + 1, self.total_steps, self.left(step))),
        }
    }

    fn left(&self, step: u64) -> HumanDuration {
        let done = (step + 1 - self.first_step) as f64;
        let rest = self.total_steps.saturating_sub(step + 1) as f64;
        HumanDuration(Duration::from_secs_f64(self.started.elapsed().as_secs_f64() / done * rest))
    }

    /// Writes an event with its fields to the log and a sentence to the screen. The time it took is not counted as
    /// training time.
    pub fn event(&mut self, event: &str, fields: Value, sentence: &str) -> Result<()> {
        let mut line = Map::from_iter([("event".to_owned(), json!(event))]);
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        self.write(&Value::Object(line))?;
        match &self.bar {
            Some(bar) => bar.suspend(|| note(sentence)),
            None => note(sentence),
        }
        Ok(())
    }

    /// Runs `work` without counting its time in tokens per second.
    pub fn paused<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.interval.since += start.elapsed();
        result
    }

    fn write(&mut self, line: &Value) -> Result<()> {
        writeln!(self.log, "{line}").map_err(TrainError::io(&self.path))
    }
}

fn bar(first_step: u64, total_steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(total_steps);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_position(first_step);
    bar.reset_eta();
    bar
}

/// A sentence on stderr. A closed stderr must not stop a run.
pub fn note(sentence: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{sentence}");
}

fn round(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}
