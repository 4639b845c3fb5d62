//! Logits: the product with the table of all tokens, or with the parts of it that may come next.
//!
//! In a grammar most tokens are forbidden at most places, and the table is the largest matrix of a small model. Knows no
//! grammar: a set of tokens is bits.

use super::inputs::Inputs;
use super::linear::{Machine, panels_per_task};
use super::packed::Matrix;
use super::parts::{Area, Tiles};
use super::product::{Product, Write};
use super::simd::LANES;
use std::ops::Range;

/// A row whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitRow<'a> {
    /// Its number in the pass.
    pub row: u32,
    /// A bit for each token, from the lowest bit of the first word on. The logit of any other token may be `-inf` instead.
    pub wanted: Option<&'a [u32]>,
}

/// Panels of one row alone are computed while they are fewer than this part of the table: all rows share the reading of a
/// whole one.
const SPARSE: usize = 8;

/// Fills `out: [rows, tokens]`; the inputs are those of `rows` alone, in the same order.
pub(super) fn logits(
    machine: Machine<'_>,
    matrix: &Matrix,
    rows: &[LogitRow<'_>],
    inputs: &Inputs,
    out: &mut Vec<f32>,
) {
    let (tokens, panels) = (matrix.outputs, matrix.panel_count());
    out.resize(rows.len() * tokens, 0.0);
    let runs: Vec<_> = rows.iter().map(|row| few_runs(row.wanted?, panels)).collect();
    let whole = whole_rows(&runs);
    let mut areas = Vec::new();
    for (row, runs) in runs.into_iter().enumerate() {
        if row == whole.start && !whole.is_empty() {
            areas.extend(tasks(machine, matrix, whole.clone(), 0..panels));
        }
        if !whole.contains(&row) {
            out[row * tokens..(row + 1) * tokens].fill(f32::NEG_INFINITY);
            areas.extend(runs.into_iter().flatten().flat_map(|run| tasks(machine, matrix, row..row + 1, run)));
        }
    }
    let work = areas.iter().map(|(rows, columns)| rows.len() * columns.len() * matrix.inputs).sum();
    machine.team.each(work, Tiles::new(out, tokens, &areas), |_, mut tile| {
        let (rows, first_panel, write) = (tile.rows(), tile.columns().start / LANES, Write::Set);
        machine.isa.run(Product { matrix, first_panel, inputs, first_row: rows.start, rows, out: &mut tile, write });
    });
}

/// The runs of panels that a row wants; nothing if they are so many that the whole table is as cheap.
fn few_runs(wanted: &[u32], panels: usize) -> Option<Vec<Range<usize>>> {
    let (mut runs, mut count) = (Vec::<Range<usize>>::new(), 0);
    let halves = wanted.iter().flat_map(|word| [word & 0xFFFF, word >> LANES]);
    for (panel, _) in halves.take(panels).enumerate().filter(|(_, bits)| *bits != 0) {
        count += 1;
        if count * SPARSE > panels {
            return None;
        }
        match runs.last_mut() {
            Some(run) if run.end == panel => run.end += 1,
            _ => runs.push(panel..panel + 1),
        }
    }
    Some(runs)
}

/// The rows for which the table is read as a whole: a row between two that need it costs little more.
fn whole_rows(runs: &[Option<Vec<Range<usize>>>]) -> Range<usize> {
    let first = runs.iter().position(Option::is_none).unwrap_or_default();
    first..runs.iter().rposition(Option::is_none).map_or(first, |last| last + 1)
}

/// Some rows and panels, cut into tasks.
fn tasks(
    machine: Machine<'_>,
    matrix: &Matrix,
    rows: Range<usize>,
    panels: Range<usize>,
) -> impl Iterator<Item = Area> {
    let size = panels_per_task(matrix, rows.len(), machine.team.threads());
    let outputs = matrix.outputs;
    panels.clone().step_by(size).map(move |start| {
        let end = panels.end.min(start + size);
        (rows.clone(), start * LANES..outputs.min(end * LANES))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_wanted_tokens_are_runs_of_panels_and_many_are_none() {
        let mut wanted = vec![0u32; 100];
        assert_eq!(few_runs(&wanted, 200), Some(vec![]));
        (wanted[0], wanted[1], wanted[50]) = (1 << 31, 1, 1 << 3);
        assert_eq!(few_runs(&wanted, 200), Some(vec![1..3, 100..101]));
        let within = few_runs(&wanted, 100).unwrap();
        assert!(matches!(within[..], [Range { start: 1, end: 3 }]), "there are no tokens beyond the table");
        assert_eq!(few_runs(&[u32::MAX; 100], 200), None);
    }

    #[test]
    fn the_whole_table_is_read_once() {
        let few = || Some(Vec::new());
        assert_eq!(whole_rows(&[few(), None, few(), None, few()]), 1..4);
        assert!(whole_rows(&[few(), few()]).is_empty());
    }
}
