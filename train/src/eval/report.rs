//! `report.html`: what models did on a task, on one page that needs nothing else: figures, confused functions, failing cases.

use super::answerer::Case;
use super::table::{self, Row};
use super::{Outcome, Task};
use crate::error::Result;
use crate::page;
use callsmith::chat::Message;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

const TEMPLATE: &str = include_str!("report/page.html");
/// Functions of a matrix; more cannot be read.
const FUNCTIONS: usize = 24;
/// Failing cases that are shown of each model.
const FAILURES: usize = 200;

/// What the template shows.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    names: Vec<&'a str>,
    rows: Vec<Row>,
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    matrix: Matrix<'a>,
    failures: Vec<Failure<'a>>,
    failed: usize,
}

/// Wanted functions by called ones.
#[derive(Serialize)]
struct Matrix<'a> {
    called: Vec<&'a str>,
    /// Wanted function and, for each called one, how often, and how dark that is from 0 to 1.
    lines: Vec<(&'a str, Vec<(usize, f64)>)>,
    /// Turns of functions that do not fit in.
    left_out: usize,
}

#[derive(Serialize)]
struct Failure<'a> {
    id: &'a str,
    request: &'a str,
    wanted: &'a str,
    got: String,
    fault: Option<&'a str>,
}

/// Writes the page.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, task: &dyn Task, outcomes: &[Outcome]) -> Result<()> {
    let shown = Page {
        title: task.title(),
        names: table::names(outcomes),
        rows: table::rows(outcomes),
        models: outcomes.iter().map(|outcome| Model::of(task.cases(), outcome)).collect(),
    };
    page::write(path, TEMPLATE, &shown)
}

/// The last thing that was said before a turn.
pub fn request(case: &Case) -> &str {
    case.conversation.messages.last().map_or("", |message: &Message| message.content.as_str())
}

impl<'a> Model<'a> {
    fn of(cases: &'a [Case], outcome: &'a Outcome) -> Self {
        let judged = cases.iter().zip(&outcome.replies).zip(&outcome.judged.verdicts);
        let failing = judged.filter(|(_, verdict)| !verdict.right).map(|((case, reply), verdict)| Failure {
            id: &case.id,
            request: request(case),
            wanted: &verdict.wanted,
            got: reply.shown(),
            fault: verdict.fault.as_deref(),
        });
        let functions = outcome.judged.verdicts.iter().map(|verdict| &verdict.functions);
        Self {
            name: &outcome.name,
            matrix: Matrix::of(functions.map(|(wanted, called)| (wanted.as_str(), called.as_str()))),
            failures: failing.take(FAILURES).collect(),
            failed: outcome.judged.verdicts.iter().filter(|verdict| !verdict.right).count(),
        }
    }
}

impl<'a> Matrix<'a> {
    /// Of the functions that occur most; those that were confused come first where there are too many.
    fn of(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        pairs.for_each(|pair| *counts.entry(pair).or_default() += 1);
        let kept = most_telling(&counts);
        let wanted: Vec<&str> =
            kept.iter().copied().filter(|name| counts.keys().any(|(wanted, _)| wanted == name)).collect();
        let called: Vec<&str> =
            kept.iter().copied().filter(|name| counts.keys().any(|(_, called)| called == name)).collect();
        let all: usize = counts.values().sum();
        let line = |wanted: &&'a str| {
            let row = called.iter().map(|called| counts.get(&(*wanted, *called)).copied().unwrap_or(0));
            let row: Vec<usize> = row.collect();
            let sum = row.iter().sum::<usize>().max(1) as f64;
            (*wanted, row.into_iter().map(|count| (count, count as f64 / sum)).collect::<Vec<_>>())
        };
        let lines: Vec<_> = wanted.iter().map(line).collect();
        let shown: usize = lines.iter().flat_map(|(_, row)| row).map(|(count, _)| count).sum();
        Self { called, lines, left_out: all - shown }
    }
}

/// The names that a matrix has room for, in the order of the alphabet.
fn most_telling<'a>(counts: &BTreeMap<(&'a str, &'a str), usize>) -> Vec<&'a str> {
    // How often a name was confused, then how often it occurred at all.
    let mut weights: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (&(wanted, called), &count) in counts {
        for name in [wanted, called] {
            let weight = weights.entry(name).or_default();
            weight.0 += if wanted == called { 0 } else { count };
            weight.1 += count;
        }
    }
    let mut names: Vec<_> = weights.into_iter().collect();
    names.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    let mut kept: Vec<&str> = names.into_iter().take(FUNCTIONS).map(|(name, _)| name).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests;
