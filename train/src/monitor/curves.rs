//! The log's lines as named curves. A curve has one name everywhere: in TensorBoard, on screen and in the report.
//!
//! Values stand over the number of steps done, so that training and validation share an axis. Knows no files.

use serde_json::Value;
use std::collections::BTreeMap;

/// Fields of a `step` line and the names of their curves.
const STEP: &[(&str, &str)] = &[
    ("loss", "Train/loss"),
    ("answer_loss", "Train/answer_loss"),
    ("token_accuracy", "Train/accuracy"),
    ("name_accuracy", "Train/name_accuracy"),
    ("value_accuracy", "Train/value_accuracy"),
    ("found_accuracy", "Train/found_accuracy"),
    ("lr", "Train/lr"),
    ("gradient_norm", "Train/gradient_norm"),
    ("gradient_noise", "Train/gradient_noise"),
    ("tokens_per_second", "Throughput/tokens_per_second"),
    ("samples_per_second", "Throughput/samples_per_second"),
    ("total_samples", "Throughput/total_samples"),
    ("resident_MB", "Memory/resident_MB"),
    ("peak_resident_MB", "Memory/peak_resident_MB"),
];

/// A place on a curve: steps done, value.
pub(super) type Point = (f64, f64);

/// Steps done when a line was written. A `step` line names its step, counted from 0; all others say how many are done.
pub(super) fn steps_done(line: &Value) -> Option<u64> {
    let step = line["step"].as_u64()?;
    Some(if line["event"] == "step" { step + 1 } else { step })
}

/// The named values of a line; none of lines that hold no measurement.
pub(super) fn scalars(line: &Value) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    match line["event"].as_str() {
        Some("step") => {
            let values = STEP.iter().filter_map(|(field, name)| Some(((*name).to_owned(), line[field].as_f64()?)));
            found.extend(values);
            found.extend(perplexity("Train", &line["loss"]));
        }
        Some("eval") => {
            numbers("Validation", &line["held_out"], &mut found);
            found.extend(perplexity("Validation", &line["held_out"]["loss"]));
        }
        _ => {}
    }
    found
}

fn perplexity(group: &str, loss: &Value) -> Option<(String, f64)> {
    Some((format!("{group}/perplexity"), loss.as_f64()?.exp()))
}

/// All numbers below `value`, named by their path.
fn numbers(path: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| {
            let field = if field == "token_accuracy" { "accuracy" } else { field };
            numbers(&format!("{path}/{field}"), value, found);
        }),
        value => found.extend(value.as_f64().map(|value| (path.to_owned(), value))),
    }
}

/// Curves by name.
#[derive(Debug, Default)]
pub(super) struct Curves(BTreeMap<String, Vec<Point>>);

impl Curves {
    /// The curves of all `lines`.
    pub(super) fn of<'a>(lines: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut curves = Self::default();
        lines.into_iter().for_each(|line| curves.add(line));
        curves
    }

    /// Adds the values of a line. Of two values at one place (a finished run that was resumed) the later one stays.
    pub(super) fn add(&mut self, line: &Value) {
        let Some(done) = steps_done(line) else { return };
        for (name, value) in scalars(line) {
            let curve = self.0.entry(name).or_default();
            curve.pop_if(|last| last.0 == done as f64);
            curve.push((done as f64, value));
        }
    }

    /// The curve of this name; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &[Point] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value of a curve.
    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.get(name).last().map(|&(_, value)| value)
    }

    /// Where a curve is lowest, first of equals.
    pub(super) fn lowest(&self, name: &str) -> Option<Point> {
        self.get(name).iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The names that begin so, in alphabetical order.
    pub(super) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

/// At most about `count` points, each the mean of as many neighbours.
pub(super) fn thin(points: &[Point], count: usize) -> Vec<Point> {
    let mean = |group: &[Point]| {
        let sum = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / group.len() as f64, sum.1 / group.len() as f64)
    };
    points.chunks(points.len().div_ceil(count).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn training_and_validation_stand_over_the_steps_done() {
        let lines = [
            json!({"event": "step", "step": 9, "loss": 2.0, "token_accuracy": 0.5, "name_accuracy": null}),
            json!({"event": "eval", "step": 10, "held_out": {"loss": 1.0, "token_accuracy": 0.7, "exact": {"single call": 0.2}}}),
            json!({"event": "eval", "step": 10, "held_out": {"loss": 0.5}}),
            json!({"event": "checkpoint", "step": 10}),
        ];
        let curves = Curves::of(&lines);
        assert_eq!(curves.get("Train/loss"), [(10.0, 2.0)]);
        assert_eq!(curves.get("Train/perplexity"), [(10.0, 2f64.exp())]);
        assert_eq!(curves.get("Train/accuracy"), [(10.0, 0.5)]);
        assert_eq!(curves.get("Train/name_accuracy"), []);
        assert_eq!(curves.get("Validation/loss"), [(10.0, 0.5)]);
        assert_eq!(curves.get("Validation/exact/single call"), [(10.0, 0.2)]);
    }

    #[test]
    fn a_thinned_curve_keeps_its_mean() {
        let points: Vec<Point> = (0..1000).map(|n| (f64::from(n), f64::from(n % 10))).collect();
        let thinned = thin(&points, 100);
        assert_eq!(thinned.len(), 100);
        assert!(thinned.iter().all(|&(_, value)| value == 4.5), "{thinned:?}");
        assert_eq!(thin(&points[..3], 100), points[..3]);
        assert_eq!(thin(&[], 100), []);
    }
}
