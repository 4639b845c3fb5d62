//! Linear layers: several matrices over the same inputs are one stage of work, adapters included.
//!
//! Knows nothing of what the outputs mean.

use super::adapter::{Group, PackedPair};
use super::inputs::Inputs;
use super::packed::Matrix;
use super::parts::{Area, Tile, Tiles};
use super::product::{CACHED_BYTES, Product, Write};
use super::simd::{Isa, LANES};
use super::team::Team;
use crate::model::lora::Site;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Tasks for each thread: enough that nobody waits long for the last one.
const TASKS_PER_THREAD: usize = 32;

/// Most rows of a part of an adapter's work: a long prompt is shared among all threads.
const PART_ROWS: usize = 24;

/// `y = x Wᵀ + b`, and where adapters attach.
pub(super) struct Linear {
    pub(super) matrix: Arc<Matrix>,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) site: Option<Site>,
}

/// Who computes, and on what.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) isa: Isa,
    pub(super) team: &'a Team,
}

/// Linear layers over the same inputs; their outputs lie side by side.
pub(super) struct Stage<'a> {
    machine: Machine<'a>,
    layers: &'a [&'a Linear],
    inputs: &'a Inputs,
    parts: Vec<Part<'a>>,
}

/// A layer's columns of the output that one task computes.
#[derive(Clone, Copy)]
struct Piece {
    layer: usize,
    first_panel: usize,
}

/// What a task writes where it writes nothing.
const NOTHING: Area = (0..0, 0..0);

impl<'a> Stage<'a> {
    pub(super) fn new(
        machine: Machine<'a>,
        layers: &'a [&'a Linear],
        inputs: &'a Inputs,
        adapters: &'a [Group<'a>],
    ) -> Self {
        Self { machine, layers, inputs, parts: Part::all(layers, adapters) }
    }

    /// Width of all outputs together.
    fn width(&self) -> usize {
        self.layers.iter().map(|layer| layer.matrix.outputs).sum()
    }

    /// Fills `out: [rows, width]`, or adds to it.
    pub(super) fn run(&self, out: &mut [f32], write: Write) {
        self.tasks(self.layers, self.width(), out, |piece, mut tile| self.compute(&piece, &mut tile, write));
    }

    /// Fills `out: [rows, outputs]` with `silu(first layer) * second layer`.
    pub(super) fn run_gated(&self, out: &mut [f32]) {
        self.tasks(&self.layers[..1], self.width() / 2, out, |piece, mut tile| {
            self.compute(&piece, &mut tile, Write::Set);
            super::swiglu::with_scratch(tile.rows().len() * tile.columns().len(), |up| {
                let width = tile.columns().len();
                self.compute(&Piece { layer: 1, ..piece }, &mut Tile::whole(up, width), Write::Set);
                super::swiglu::gate(&mut tile, up);
            });
        });
    }

    /// Shares the pieces of some layers among the threads. What adapters need comes first, so that nobody waits for it later.
    fn tasks(&self, layers: &[&Linear], width: usize, out: &mut [f32], task: impl Fn(Piece, Tile<'_>) + Sync) {
        let (pieces, tiles) = self.cut(layers);
        let work = self.inputs.floats.len() * self.width();
        let first = self.parts.len();
        self.machine.team.each(work, Tiles::new(out, width, &tiles), |index, tile| match index.checked_sub(first) {
            Some(index) => task(pieces[index], tile),
            None => _ = self.parts[index].reduced(self.machine.isa, self.inputs),
        });
    }

    /// The pieces of some layers; and where each writes, after a place for each part.
    fn cut(&self, layers: &[&Linear]) -> (Vec<Piece>, Vec<Area>) {
        let (mut pieces, mut tiles, mut start) = (Vec::new(), vec![NOTHING; self.parts.len()], 0);
        let rows = self.inputs.rows();
        for (index, Linear { matrix, .. }) in layers.iter().enumerate() {
            let panels = panels_per_task(matrix, rows, self.machine.team.threads());
            for first_panel in (0..matrix.panel_count()).step_by(panels) {
                let end = matrix.outputs.min((first_panel + panels) * LANES);
                pieces.push(Piece { layer: index, first_panel });
                tiles.push((0..rows, start + first_panel * LANES..start + end));
            }
            start += matrix.outputs;
        }
        (pieces, tiles)
    }

    fn compute(&self, piece: &Piece, tile: &mut Tile<'_>, write: Write) {
        let stretched = self.parts.iter().any(|part| part.layer == piece.layer && part.pair.ratio.is_some());
        match (stretched, write) {
            (true, Write::Add(factor)) => self.compute_apart(piece, tile, factor),
            _ => self.compute_here(piece, tile, write),
        }
    }

    /// Where outputs are added to what is there, a ratio is on the outputs alone: they are computed by themselves first.
    fn compute_apart(&self, piece: &Piece, tile: &mut Tile<'_>, factor: f32) {
        super::swiglu::with_scratch(tile.rows().len() * tile.columns().len(), |outputs| {
            let width = tile.columns().len();
            self.compute_here(piece, &mut Tile::whole(outputs, width), Write::Set);
            for (row, outputs) in tile.rows().zip(outputs.chunks_exact(width)) {
                tile.row(row).iter_mut().zip(outputs).for_each(|(y, output)| *y += factor * output);
            }
        });
    }

    fn compute_here(&self, piece: &Piece, tile: &mut Tile<'_>, write: Write) {
        let layer = self.layers[piece.layer];
        let (first_panel, rows) = (piece.first_panel, 0..self.inputs.rows());
        let (matrix, inputs) = (&*layer.matrix, self.inputs);
        self.machine.isa.run(Product { matrix, first_panel, inputs, rows, first_row: 0, out: tile, write });
        for part in self.parts.iter().filter(|part| part.layer == piece.layer) {
            let (matrix, inputs) = (&part.pair.b, part.reduced(self.machine.isa, self.inputs));
            let (rows, first_row) = (0..inputs.rows(), part.rows.start);
            let write = Write::Add(part.pair.scale);
            self.machine.isa.run(Product { matrix, first_panel, inputs, rows, first_row, out: tile, write });
            if let Some(ratio) = &part.pair.ratio {
                stretch(&ratio[first_panel * LANES..], tile, &part.rows);
            }
        }
        if let Some(bias) = &layer.bias {
            add_bias(&bias[first_panel * LANES..], tile);
        }
    }
}

/// Multiplies some rows by a factor for each column.
fn stretch(ratio: &[f32], tile: &mut Tile<'_>, rows: &Range<usize>) {
    for row in rows.clone() {
        tile.row(row).iter_mut().zip(ratio).for_each(|(y, ratio)| *y *= ratio);
    }
}

fn add_bias(bias: &[f32], tile: &mut Tile<'_>) {
    for row in tile.rows() {
        tile.row(row).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// How many panels of a matrix one task takes.
pub(super) fn panels_per_task(matrix: &Matrix, rows: usize, threads: usize) -> usize {
    let total = matrix.panel_count();
    let in_cache = CACHED_BYTES / matrix.panel_bytes().max(1);
    // Few rows are over before a task is worth its start; many matter by the cache alone.
    let few = if rows > 64 { 1 } else { total / (threads * TASKS_PER_THREAD) };
    in_cache.max(few).clamp(1, total.div_ceil(threads).max(1))
}

/// One adapter's work on some rows at one layer: `y += scale * (x Aᵀ) Bᵀ`.
struct Part<'a> {
    layer: usize,
    rows: Range<usize>,
    pair: &'a PackedPair,
    /// `x Aᵀ`, computed by whoever comes first.
    reduced: OnceLock<Inputs>,
}

impl<'a> Part<'a> {
    fn all(layers: &[&Linear], adapters: &'a [Group<'a>]) -> Vec<Self> {
        let mut parts = Vec::new();
        for Group { rows, adapter } in adapters {
            for (layer, site) in layers.iter().enumerate().filter_map(|(index, layer)| Some((index, layer.site?))) {
                let Some(pair) = adapter.get(site) else { continue };
                for start in rows.clone().step_by(PART_ROWS) {
                    let rows = start..rows.end.min(start + PART_ROWS);
                    parts.push(Self { layer, rows, pair, reduced: OnceLock::new() });
                }
            }
        }
        parts
    }

    fn reduced(&self, isa: Isa, inputs: &Inputs) -> &Inputs {
        self.reduced.get_or_init(|| {
            let (matrix, rank, mut reduced) = (&self.pair.a, self.pair.a.outputs, Inputs::default());
            let mut out = Tile::whole(reduced.reset(self.rows.len(), rank), rank);
            let (rows, write) = (self.rows.clone(), Write::Set);
            isa.run(Product { matrix, first_panel: 0, inputs, rows, first_row: 0, out: &mut out, write });
            reduced
        })
    }
}
