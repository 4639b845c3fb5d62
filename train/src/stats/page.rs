//! The counts on one page that needs nothing else.

use super::{Answer, Stats, Uses, bars};
use crate::error::{Result, TrainError};
use crate::page;
use serde::Serialize;
use std::path::{Path, PathBuf};

const TEMPLATE: &str = include_str!("page.html");
/// Bars of a histogram, and of the functions by rank.
const BARS: u64 = 60;
const RANKS: usize = 200;
/// Functions and classes that a table lists; the figures as JSON have them all.
const LISTED: usize = 100;

/// What the template shows.
#[derive(Serialize)]
struct Page {
    title: String,
    facts: Vec<(&'static str, u64)>,
    distributions: Vec<(&'static str, [u64; 5], String)>,
    plots: Vec<Plot>,
    shares: Vec<Shares>,
    called: Vec<(String, u64, u64)>,
    idle: Vec<(String, u64, u64)>,
    foreign: Vec<String>,
    listed: usize,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Plot {
    title: String,
    note: String,
    svg: String,
}

/// Counts that make up a whole.
#[derive(Serialize)]
struct Shares {
    title: &'static str,
    /// Name, count, percent.
    rows: Vec<(String, u64, f64)>,
}

/// Writes the page of what `files` hold.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, files: &[PathBuf], stats: &Stats) -> Result<()> {
    let title: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let page = Page::of(title.join(", "), stats).map_err(|error| TrainError::output(path, error.to_string()))?;
    page::write(path, TEMPLATE, &page)
}

impl Page {
    fn of(title: String, stats: &Stats) -> Result<Self, bars::BarsError> {
        let mean = |total: u64, count: u64| format!("{:.1}", total as f64 / count.max(1) as f64);
        let distributions =
            stats.distributions().map(|(name, found)| (name, found.quantiles(), mean(found.total(), found.count())));
        let types: Vec<_> = stats.value_types.iter().map(|(&name, &count)| (name, count)).collect();
        let kinds = Answer::ALL.map(|kind| (kind.name(), stats.kinds.get(&kind).copied().unwrap_or(0)));
        let mut parts = vec![shares("Answers", &kinds), shares("Values of arguments", &types)];
        parts
            .extend(Some(shares("Classes of dialogues", &stats.by_class())).filter(|classes| !classes.rows.is_empty()));
        Ok(Self {
            title,
            facts: facts(stats),
            distributions: distributions.into(),
            plots: plots(stats)?,
            shares: parts,
            called: listed(&stats.by_use()),
            idle: listed(&stats.never_called()),
            foreign: stats.never_offered().take(LISTED).map(str::to_owned).collect(),
            listed: LISTED,
            reasons: stats.reasons.clone(),
        })
    }
}

fn facts(stats: &Stats) -> Vec<(&'static str, u64)> {
    let mut facts = vec![
        ("Dialogues", stats.dialogues()),
        ("Tokens", stats.whole.total()),
        ("Trained tokens", stats.response.total()),
        ("Calls", stats.calls.total()),
        ("Functions", stats.functions.len() as u64),
        ("Called functions", stats.by_use().len() as u64),
        ("Lines that cannot be used", stats.unusable),
    ];
    if stats.untrained > 0 {
        facts.push(("Answers not trained on", stats.untrained));
        facts.push(("Calls not trained on", stats.untrained_calls));
    }
    facts
}

fn plots(stats: &Stats) -> Result<Vec<Plot>, bars::BarsError> {
    let mut plots = Vec::new();
    for (name, histogram) in stats.distributions() {
        // A few very long ones would press all others to the edge.
        let (largest, most) = (histogram.largest(), histogram.quantile(0.99));
        let end = if largest > 2 * most { most } else { largest };
        let note = if end < largest { format!("the last bar goes on to {largest}") } else { String::new() };
        let svg = bars::svg(&histogram.bins(end, BARS), end + 1)?;
        plots.push(Plot { title: format!("Dialogues by {name}"), note, svg });
    }
    let called: Vec<_> = (0..).zip(stats.by_use()).map(|(rank, (_, uses))| (rank, uses.called)).take(RANKS).collect();
    let note = format!("the {} most used", called.len());
    plots.push(Plot { title: "Calls of each function".into(), note, svg: bars::svg(&called, called.len() as u64)? });
    Ok(plots)
}

fn shares(title: &'static str, counts: &[(&str, u64)]) -> Shares {
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let row = |&(name, count): &(&str, u64)| (name.to_owned(), count, 100.0 * count as f64 / all.max(1) as f64);
    Shares { title, rows: counts.iter().take(LISTED).map(row).collect() }
}

fn listed(functions: &[(&str, Uses)]) -> Vec<(String, u64, u64)> {
    let row = |(name, uses): &(&str, Uses)| ((*name).to_owned(), uses.called, uses.offered);
    functions.iter().take(LISTED).map(row).collect()
}
