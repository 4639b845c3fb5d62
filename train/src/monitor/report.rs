//! `report.html`: a run on one page that needs nothing else, made from its log (and the recipe beside it) alone.

use super::axis::Scale;
use super::curves::{Curves, steps_done, thin};
use super::log;
use super::numbers::{clock, memory, percent, short};
use super::plot::{self, Curve};
use super::samples::{self, Sample, text};
use crate::error::{Result, TrainError};
use crate::page;
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Events that end a run: all steps made, stopped on request, given up.
pub(super) const FINISHED: &str = "finished";
pub(super) const STOPPED: &str = "stopped";
pub(super) const FAILED: &str = "failed";

const FILE: &str = "report.html";
const TEMPLATE: &str = include_str!("report/page.html");
/// Points of a curve; more cannot be told apart.
const POINTS: usize = 600;

const COLOURS: [(u8, u8, u8); 4] = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)];

/// A plot's title, its axis, and its curves with what the legend calls them.
type Outline = (&'static str, Scale, &'static [(&'static str, &'static str)]);

/// The plots. Curves that a run does not have are left out.
const PLOTS: &[Outline] = &[
    ("Loss", Scale::ByRange, &[("training", "Train/loss"), ("validation", "Validation/loss")]),
    (
        "Accuracy of answer tokens",
        Scale::Linear,
        &[("training", "Train/accuracy"), ("validation", "Validation/accuracy")],
    ),
    (
        "Accuracy of names and values",
        Scale::Linear,
        &[
            ("names", "Train/name_accuracy"),
            ("names, validation", "Validation/name_accuracy"),
            ("values", "Train/value_accuracy"),
            ("values, validation", "Validation/value_accuracy"),
        ],
    ),
    (
        "Sample generations",
        Scale::Linear,
        &[("calls right", "Validation/call_accuracy"), ("functions right", "Validation/call_name_accuracy")],
    ),
    ("Learning rate", Scale::Linear, &[("learning rate", "Train/lr")]),
    ("Gradient norm", Scale::ByRange, &[("norm before clipping", "Train/gradient_norm")]),
    ("Gradient noise scale", Scale::ByRange, &[("noise scale", "Train/gradient_noise")]),
    ("Throughput", Scale::Linear, &[("tokens per second", "Throughput/tokens_per_second")]),
    ("Memory, MB", Scale::Linear, &[("resident", "Memory/resident_MB"), ("peak", "Memory/peak_resident_MB")]),
];

/// What the template shows.
#[derive(Serialize)]
struct Page {
    title: String,
    ending: String,
    facts: Vec<(&'static str, String)>,
    plots: Vec<Plot>,
    measures: Vec<String>,
    evaluations: Vec<Evaluation>,
    samples: Vec<SampleSet>,
    /// Evaluations whose samples are not among them.
    unshown: usize,
    history: Vec<Moment>,
    recipe: String,
}

#[derive(Serialize)]
struct Plot {
    title: &'static str,
    /// Colour (as CSS writes it) and name of each curve.
    legend: Vec<(String, &'static str)>,
    svg: String,
}

#[derive(Serialize)]
struct Evaluation {
    step: f64,
    best: bool,
    values: Vec<String>,
}

/// Generations that one event carries.
#[derive(Serialize)]
struct SampleSet {
    step: u64,
    best: bool,
    samples: Vec<Sample>,
}

/// An event that is no measurement.
#[derive(Serialize)]
struct Moment {
    event: String,
    step: Option<u64>,
    time: String,
    /// Why the run failed there.
    error: Option<String>,
}

/// Writes the report of the run in `output` from its log, whether it has ended or not. Returns where it is.
pub fn write(output: &Path) -> Result<PathBuf> {
    let lines = log::read(output)?;
    let recipe = fs::read_to_string(output.join("recipe.toml")).unwrap_or_default();
    let path = output.join(FILE);
    let page = Page::of(output, &lines, recipe).map_err(|error| TrainError::output(&path, error.to_string()))?;
    page::write(&path, TEMPLATE, &page)?;
    Ok(path)
}

impl Page {
    fn of(output: &Path, lines: &[Value], recipe: String) -> Result<Self, plot::PlotError> {
        let curves = Curves::of(lines);
        let (measures, evaluations) = evaluations(&curves, best_step(lines));
        let (samples, unshown) = samples(lines);
        Ok(Self {
            title: fs::canonicalize(output).unwrap_or_else(|_| output.to_owned()).display().to_string(),
            ending: ending(lines),
            facts: facts(lines, &curves),
            plots: plots(&curves)?,
            measures,
            evaluations,
            samples,
            unshown,
            history: history(lines),
            recipe,
        })
    }
}

fn done(lines: &[Value]) -> u64 {
    lines.iter().filter_map(steps_done).max().unwrap_or(0)
}

/// How the run ended; what ended before a later resumption does not count.
fn ending(lines: &[Value]) -> String {
    let last = lines.iter().rev();
    let step = done(lines);
    let ends = |line: &&Value| [FINISHED, STOPPED, FAILED].iter().any(|&end| line["event"] == end);
    let end = last.take_while(|line| line["event"] != "start").find(ends);
    match end.map(|line| (line["event"].as_str().unwrap_or_default(), line["error"].as_str())) {
        Some((FINISHED, _)) => format!("finished after {step} steps"),
        Some((STOPPED, _)) => format!("stopped after step {step}; --resume continues"),
        Some((_, Some(error))) => format!("failed after step {step}: {error}"),
        Some((_, None)) => format!("failed after step {step}"),
        None => format!("at step {step}: it is still running, or was killed"),
    }
}

fn facts(lines: &[Value], curves: &Curves) -> Vec<(&'static str, String)> {
    let latest = |field: &str| lines.iter().rev().find_map(|line| line[field].as_u64());
    let count = |field: &str| latest(field).map(|count| count.to_string());
    let best = curves.lowest("Validation/loss").map(|(step, loss)| format!("{} at step {step}", short(loss)));
    let speeds = curves.get("Throughput/tokens_per_second");
    let speed = speeds.iter().map(|&(_, speed)| speed).sum::<f64>() / speeds.len() as f64;
    // Each process has a peak of its own.
    let peak = curves.get("Memory/peak_resident_MB").iter().map(|&(_, peak)| peak).reduce(f64::max).map(memory);
    let total = count("total_steps").unwrap_or_else(|| "?".to_owned());
    let facts = [
        ("Begun", lines.first().and_then(time).map(date)),
        ("Time", Some(clock(seconds(lines)))),
        ("Steps", Some(format!("{} of {total}", done(lines)))),
        ("Trained values", count("trainable")),
        ("Tokens", count("tokens")),
        ("Samples", count("total_samples")),
        ("Best validation loss", best),
        ("Calls right at the end", curves.last("Validation/call_accuracy").map(percent)),
        ("Tokens per second", (!speeds.is_empty()).then(|| short(speed))),
        ("Peak memory", peak),
        ("Skipped steps", count("skipped")),
        ("Dropped samples", count("dropped")),
    ];
    facts.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
}

fn time(line: &Value) -> Option<f64> {
    line["time"].as_f64()
}

/// Time that processes spent on the run, without the time between them.
fn seconds(lines: &[Value]) -> f64 {
    let within = lines.windows(2).filter(|pair| pair[1]["event"] != "resume");
    within.filter_map(|pair| Some(time(&pair[1])? - time(&pair[0])?)).sum()
}

fn date(time: f64) -> String {
    let time = Duration::try_from_secs_f64(time).ok().and_then(|since| UNIX_EPOCH.checked_add(since));
    time.map(httpdate::fmt_http_date).unwrap_or_default()
}

fn plots(curves: &Curves) -> Result<Vec<Plot>, plot::PlotError> {
    let mut plots = Vec::new();
    for &(title, scale, parts) in PLOTS {
        let parts = parts.iter().zip(COLOURS).map(|(&(label, name), colour)| (label, curves.get(name), colour));
        let parts: Vec<_> = parts.filter(|(_, points, _)| !points.is_empty()).collect();
        if parts.is_empty() {
            continue;
        }
        let drawn: Vec<_> =
            parts.iter().map(|&(_, points, colour)| Curve { points: thin(points, POINTS), colour }).collect();
        let legend = parts.iter().map(|&(label, _, (r, g, b))| (format!("rgb({r} {g} {b})"), label)).collect();
        plots.push(Plot { title, legend, svg: plot::svg(&drawn, scale)? });
    }
    Ok(plots)
}

/// The step that did best: each evaluation says whether it was better than all before it.
fn best_step(lines: &[Value]) -> Option<f64> {
    let best = lines.iter().rev().find(|line| line["event"] == "eval" && line["best"] == true)?;
    Some(steps_done(best)? as f64)
}

/// The names of what was measured, and each evaluation's values in that order.
fn evaluations(curves: &Curves, best: Option<f64>) -> (Vec<String>, Vec<Evaluation>) {
    const GROUP: &str = "Validation/";
    let mut names: Vec<&str> = curves.names(GROUP).collect();
    // What decides comes first.
    names.sort_by_key(|name| *name != "Validation/loss");
    let value = |name: &&str, step: f64| {
        let found = curves.get(name).iter().find(|point| point.0 == step);
        found.map_or_else(|| "–".to_owned(), |point| format!("{:.4}", point.1))
    };
    let evaluation = |&(step, _): &(f64, f64)| {
        let values = names.iter().map(|name| value(name, step)).collect();
        Evaluation { step, best: best == Some(step), values }
    };
    let evaluations = curves.get("Validation/loss").iter().map(evaluation).collect();
    (names.iter().map(|name| name[GROUP.len()..].replace(['/', '_'], " ")).collect(), evaluations)
}

/// The generations of the first evaluation, the best and the last, and how many evaluations have others: a long run has more of
/// them than a page can hold.
fn samples(lines: &[Value]) -> (Vec<SampleSet>, usize) {
    let best = best_step(lines);
    let set = |line: &Value| {
        let (step, samples) = (steps_done(line).unwrap_or(0), samples::of(line));
        (!samples.is_empty()).then(|| SampleSet { step, best: best == Some(step as f64), samples })
    };
    let sets: Vec<SampleSet> = lines.iter().filter_map(set).collect();
    let all = sets.len();
    let outstanding = |(place, set): &(usize, SampleSet)| *place == 0 || place + 1 == all || set.best;
    let shown: Vec<SampleSet> = sets.into_iter().enumerate().filter(outstanding).map(|(_, set)| set).collect();
    let unshown = all - shown.len();
    (shown, unshown)
}

fn history(lines: &[Value]) -> Vec<Moment> {
    let events = lines.iter().filter(|line| line["event"] != "step" && line["event"] != "eval");
    let moment = |line: &Value| Moment {
        event: text(&line["event"]),
        step: steps_done(line),
        time: time(line).map(date).unwrap_or_default(),
        error: line["error"].as_str().map(str::to_owned),
    };
    events.map(moment).collect()
}

#[cfg(test)]
mod tests;
