//! How a training run is watched. Everything that happens becomes one line of `train.jsonl`; the same line goes to
//! TensorBoard's event files, to the live view of the terminal and, when the run ends, into `report.html`.
//!
//! Knows what a step reports, and neither how it is made nor what comes of it: a run is the same unwatched.

mod axis;
mod curves;
mod log;
mod meter;
mod numbers;
mod plot;
pub mod report;
mod samples;
mod screen;
mod tensorboard;
mod view;
mod watch;

pub use screen::note;
pub use watch::Watch;

use crate::error::{Result, TrainError};
use crate::loss::Ratio;
use log::Log;
use meter::{Meter, Reading};
use numbers::clock;
use screen::Live;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard::EventFile;
use view::View;

/// Watches a run; the report is written when it is dropped.
pub struct Monitor {
    output: PathBuf,
    log: Log,
    events: EventFile,
    live: Option<Live>,
    meter: Meter,
    total_steps: u64,
    done: u64,
    /// Samples seen in all steps, also before a resumption.
    samples: u64,
    ended: bool,
}

/// How a run shows itself on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Display {
    /// A live view where stderr is a terminal, lines elsewhere.
    #[default]
    Auto,
    /// Lines.
    Plain,
}

/// What is known after a step.
pub struct StepLine<'a> {
    /// The step, counted from 0.
    pub step: u64,
    pub phase: usize,
    pub report: &'a crate::trainer::StepReport,
    /// Tokens of this step.
    pub step_tokens: usize,
    /// Samples of this step.
    pub step_samples: usize,
    /// Tokens of all steps so far.
    pub tokens: u64,
    /// Steps so far that changed nothing because their loss or gradient was not finite.
    pub skipped: u64,
    /// Samples so far that were too long.
    pub dropped: u64,
}

impl Monitor {
    /// Watches a run in `output` that goes from `first_step` to `total_steps`. After a resumption the log goes on: what
    /// it held of later steps is removed, and an event `resume` says so. `measured` where the evaluation after these very steps
    /// holds and is not made again.
    pub fn new(output: &Path, first_step: u64, measured: bool, total_steps: u64, display: Display) -> Result<Self> {
        let (log, earlier) = Log::open(output, first_step, measured)?;
        let events = EventFile::create(&output.join("tensorboard"), first_step, now())?;
        let view = View::new(first_step, total_steps, &earlier.lines);
        let mut monitor = Self {
            output: output.to_owned(),
            log,
            events,
            live: if display == Display::Auto { Live::open(view) } else { None },
            meter: Meter::new(first_step, total_steps),
            total_steps,
            done: first_step,
            samples: earlier.lines.iter().rev().find_map(|line| line["total_samples"].as_u64()).unwrap_or(0),
            ended: false,
        };
        if first_step > 0 || earlier.removed > 0 {
            monitor.resumed(earlier.removed)?;
        }
        Ok(monitor)
    }

    fn resumed(&mut self, removed: usize) -> Result<()> {
        let fields = json!({"step": self.done, "removed_lines": removed});
        let rest = if removed == 0 { String::new() } else { format!("; removed {removed} later lines of the log") };
        self.event("resume", fields, &format!("continuing after step {}{rest}", self.done))
    }

    /// Counts a step; `log` also writes a line.
    pub fn step(&mut self, line: &StepLine<'_>, log: bool) -> Result<()> {
        let tally = (!line.report.skipped).then_some(&line.report.tally);
        self.meter.count(line.step_tokens, line.step_samples, tally);
        self.samples += line.step_samples as u64;
        self.done = line.step + 1;
        if log {
            return self.report_interval(line);
        }
        if let Some(live) = &self.live {
            live.update(|view| view.advance(line.step + 1));
        }
        Ok(())
    }

    fn report_interval(&mut self, line: &StepLine<'_>) -> Result<()> {
        let reading = self.meter.read(self.done);
        self.write("step", fields(line, &reading))?;
        if self.live.is_none() {
            let left = clock(reading.eta_seconds);
            let numbers = sentence(&reading, line.report.lr);
            note(&format!("step {}/{}  {numbers}  {left} left", self.done, self.total_steps));
        }
        Ok(())
    }

    /// Writes an event with its fields to the log and a sentence to the screen. `finished` and `stopped` end the run.
    pub fn event(&mut self, event: &str, fields: Value, sentence: &str) -> Result<()> {
        self.ended |= matches!(event, report::FINISHED | report::STOPPED);
        self.write(event, fields)?;
        note(sentence);
        Ok(())
    }

    /// The run ends with an error.
    pub fn fail(&mut self, error: &TrainError) {
        self.ended = true;
        // What ended the run may be that nothing can be written any more: the error says more than this one would.
        let _ = self.write(report::FAILED, json!({"step": self.done, "error": error.to_string()}));
    }

    /// Runs `work` without counting its time in the rates.
    pub fn paused<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.meter.paused(work)
    }

    /// Every event passes here: one line, to all who show it.
    fn write(&mut self, event: &str, fields: Value) -> Result<()> {
        let time = now();
        let mut line = Map::from_iter([("event".to_owned(), json!(event))]);
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        line.insert("total_samples".to_owned(), json!(self.samples));
        line.insert("time".to_owned(), json!(time));
        let line = Value::Object(line);
        self.log.write(&line)?;
        self.events.write(&line, time)?;
        if let Some(live) = &self.live {
            live.update(|view| view.add(&line));
        }
        Ok(())
    }

    /// The end of a run as the log tells it: a run that ended without a word has failed.
    fn close(&mut self) -> Result<()> {
        if !self.ended {
            self.write(report::FAILED, json!({"step": self.done}))?;
        }
        let path = report::write(&self.output)?;
        note(&format!("report: {}", path.display()));
        Ok(())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The weights are safe by now; a report that cannot be written is no reason to lose the run's outcome.
        if let Err(error) = self.close() {
            note(&format!("no report: {error}"));
        }
    }
}

/// Seconds since 1970, to the millisecond.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs_f64() * 1e3).round() / 1e3
}

fn fields(line: &StepLine<'_>, reading: &Reading) -> Value {
    let tally = &reading.tally;
    let share = |ratio: Ratio| ratio.share().map(round);
    let memory = meter::memory();
    json!({
        "step": line.step, "phase": line.phase,
        "loss": round(tally.mean()), "answer_loss": round(tally.answer_loss / tally.answers.total.max(1) as f64),
        "name_accuracy": share(tally.names), "value_accuracy": share(tally.values),
        "found_accuracy": share(tally.found), "token_accuracy": share(tally.answers),
        "lr": line.report.lr, "gradient_norm": round(line.report.gradient_norm), "gradient_noise": line.report.gradient_noise,
        "tokens": line.tokens, "tokens_per_second": reading.tokens_per_second.round(),
        "samples_per_second": round(reading.samples_per_second),
        "skipped": line.skipped, "dropped": line.dropped,
        "resident_MB": memory.map(|memory| round(memory.resident)), "peak_resident_MB": memory.map(|memory| round(memory.peak)),
        "elapsed_seconds": reading.elapsed_seconds.round(), "eta_seconds": reading.eta_seconds.round(),
    })
}

fn sentence(reading: &Reading, lr: f64) -> String {
    let percent = |ratio: Ratio| ratio.share().map_or("-".into(), |share| format!("{:.1}%", share * 100.0));
    let Reading { tally, tokens_per_second, .. } = reading;
    format!(
        "loss {:.4}  name {}  value {}  found {}  lr {lr:.2e}  {tokens_per_second:.0} tok/s",
        tally.mean(),
        percent(tally.names),
        percent(tally.values),
        percent(tally.found),
    )
}

fn round(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests;
