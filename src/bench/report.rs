//! Measurements → tables for people, JSON for programs.

use super::load::Pace;
use super::measured::Measured;
use super::stats::Summary;
use super::table::{aligned, number, percent};
use serde::Serialize;
use std::fmt::Write;

/// All of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// UTC, ISO 8601.
    pub(super) date: String,
    pub(super) callsmith: &'static str,
    pub(super) server: ServerCard,
    pub(super) settings: Settings,
    /// It was stopped before its end.
    pub(super) interrupted: bool,
    pub(super) measurements: Vec<Measured>,
}

/// What the server says about itself.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ServerCard {
    pub(super) url: String,
    pub(super) model: String,
    /// What was loaded, when it runs in this process.
    pub(super) loaded: Option<String>,
    /// The header `server`.
    pub(super) server: Option<String>,
    pub(super) system_fingerprint: Option<String>,
    /// Free text goes on to `max_tokens`.
    pub(super) ignores_eos: bool,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) requests: u64,
    pub(super) warmup: u64,
    pub(super) prompt_tokens: u32,
    pub(super) prompt_words: usize,
    pub(super) max_tokens: u32,
    pub(super) temperature: f32,
    pub(super) seed: u64,
    pub(super) tools: Option<String>,
    pub(super) known_tools: bool,
}

impl Report {
    /// At least one request was answered.
    pub(super) fn any_answered(&self) -> bool {
        self.measurements.iter().any(|measured| measured.ok > 0)
    }

    /// Both tables, and what must be known to read them.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let server = &self.server;
        let _ = writeln!(text, "{} at {}, {}\n", server.model, server.url, self.date);
        text += &self.throughput();
        text += "\n";
        text += &self.latency();
        for note in self.notes() {
            let _ = write!(text, "\n{note}");
        }
        text + "\n"
    }

    fn throughput(&self) -> String {
        let header = [
            "scenario",
            "load",
            "ok",
            "errors",
            "prompt",
            "cached",
            "output",
            "req/s",
            "output tok/s",
            "prefill tok/s",
            "forced",
            "valid",
        ];
        let rows: Vec<Vec<String>> = self.measurements.iter().map(throughput_row).collect();
        aligned(&header, &rows)
    }

    fn latency(&self) -> String {
        let mut rows = Vec::new();
        for measured in &self.measurements {
            for (name, summary) in [
                ("first token", measured.ttft_ms),
                ("between pieces", measured.itl_ms),
                ("per token", measured.tpot_ms),
                ("whole answer", measured.latency_ms),
            ] {
                let start = [measured.scenario.clone(), load(measured.pace), name.to_owned()];
                rows.push(start.into_iter().chain(percentiles(summary)).collect());
            }
        }
        aligned(&["scenario", "load", "ms", "p50", "p90", "p99", "mean"], &rows)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for measured in &self.measurements {
            let at = format!("{} at {}", measured.scenario, load(measured.pace));
            for (kind, error) in &measured.errors {
                notes.push(format!("{at}: {} x {kind}: {}", error.count, error.first));
            }
            if let Some(reason) = measured.validity.as_ref().and_then(|validity| validity.first_invalid.as_ref()) {
                notes.push(format!("{at}: first invalid answer: {reason}"));
            }
            if measured.resent > 0 {
                let resent = measured.resent;
                notes.push(format!(
                    "{at}: {resent} requests met a connection that the server closed, and were sent again"
                ));
            }
            if measured.unfinished > 0 {
                notes.push(format!("{at}: stopped with {} requests unfinished", measured.unfinished));
            }
        }
        if !self.server.ignores_eos {
            notes.push("The server takes no `ignore_eos`: free text ends where the model ends it.".to_owned());
        }
        if self.measurements.iter().any(|measured| measured.ok > 0 && !measured.tokens.counted) {
            notes.push("The server counts no tokens: pieces of the answers stand for them.".to_owned());
        }
        notes
    }
}

fn throughput_row(measured: &Measured) -> Vec<String> {
    let tokens = &measured.tokens;
    let mean = |count: u64| {
        super::stats::ratio(count as f64, measured.ok as f64).map_or("-".to_owned(), |mean| format!("{mean:.0}"))
    };
    vec![
        measured.scenario.clone(),
        load(measured.pace),
        measured.ok.to_string(),
        measured.errors.values().map(|error| error.count).sum::<u64>().to_string(),
        mean(tokens.prompt),
        mean(tokens.cached),
        mean(tokens.output),
        number(measured.requests_per_second),
        number(measured.output_tokens_per_second),
        number(measured.prefill_tokens_per_second),
        percent(measured.forced_share),
        validity(measured),
    ]
}

/// `valid/finished`, and how many were cut off.
fn validity(measured: &Measured) -> String {
    let Some(found) = &measured.validity else { return "-".to_owned() };
    let cut = if found.truncated > 0 { format!(" +{} cut", found.truncated) } else { String::new() };
    format!("{}/{}{cut}", found.valid, found.valid + found.invalid)
}

fn percentiles(summary: Option<Summary>) -> [String; 4] {
    [summary.map(|s| s.p50), summary.map(|s| s.p90), summary.map(|s| s.p99), summary.map(|s| s.mean)].map(number)
}

fn load(pace: Pace) -> String {
    match pace {
        Pace::Concurrency(places) => places.to_string(),
        Pace::Rate(rate) => format!("{rate}/s"),
    }
}
