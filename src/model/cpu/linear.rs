//! Linear layers: several matrices over the same inputs are one stage of work, adapters included.
//!
//! Knows nothing of what the outputs mean.

use super::adapter::{Group, PackedPair};
use super::inputs::Inputs;
use super::packed::Matrix;
use super::parts::{Area, Chunks, Tile, Tiles};
use super::product::{CACHED_BYTES, Product, Write};
use super::simd::{Isa, LANES};
use super::team::Team;
use crate::model::lora::Site;
use std::ops::Range;
use std::sync::Arc;

/// Tasks for each thread: enough that nobody waits long for the last one.
const TASKS_PER_THREAD: usize = 32;

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
    reduced: Reduced<'a>,
}

/// A layer's columns of the output that one task computes.
#[derive(Clone, Copy)]
struct Piece {
    layer: usize,
    first_panel: usize,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        machine: Machine<'a>,
        layers: &'a [&'a Linear],
        inputs: &'a Inputs,
        adapters: &'a [Group<'a>],
    ) -> Self {
        let reduced = Reduced::new(machine, layers, inputs, adapters);
        Self { machine, layers, inputs, reduced }
    }

    /// Width of all outputs together.
    fn width(&self) -> usize {
        self.layers.iter().map(|layer| layer.matrix.outputs).sum()
    }

    /// Fills `out: [rows, width]`, or adds to it.
    pub(super) fn run(&self, out: &mut [f32], write: Write) {
        let (pieces, tiles) = self.cut(self.layers);
        let width = self.width();
        let work = self.inputs.floats.len() * width;
        self.machine.team.each(work, &Tiles::new(out, width, &tiles), |index, mut tile| {
            self.compute(&pieces[index], &mut tile, write);
        });
    }

    /// Fills `out: [rows, outputs]` with `silu(first layer) * second layer`.
    pub(super) fn run_gated(&self, out: &mut [f32]) {
        let (gate, width) = (&self.layers[..1], self.width() / 2);
        let (pieces, tiles) = self.cut(gate);
        let work = 2 * self.inputs.floats.len() * width;
        self.machine.team.each(work, &Tiles::new(out, width, &tiles), |index, mut tile| {
            self.compute(&pieces[index], &mut tile, Write::Set);
            super::swiglu::with_scratch(tile.rows().len() * tile.columns().len(), |up| {
                let (up_piece, width) = (Piece { layer: 1, ..pieces[index] }, tile.columns().len());
                self.compute(&up_piece, &mut Tile::whole(up, width), Write::Set);
                super::swiglu::gate(&mut tile, up);
            });
        });
    }

    /// The tasks of the first layers, and where each writes.
    fn cut(&self, layers: &[&Linear]) -> (Vec<Piece>, Vec<Area>) {
        let (mut pieces, mut tiles, mut start) = (Vec::new(), Vec::new(), 0);
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
        let layer = self.layers[piece.layer];
        let (first_panel, rows) = (piece.first_panel, 0..self.inputs.rows());
        let (matrix, inputs) = (&*layer.matrix, self.inputs);
        self.machine.isa.run(Product { matrix, first_panel, inputs, rows, first_row: 0, out: tile, write });
        if let Some(bias) = &layer.bias {
            add_bias(&bias[first_panel * LANES..], tile);
        }
        for part in self.reduced.parts.iter().filter(|part| part.layer == piece.layer) {
            let (matrix, inputs) = (&part.pair.b, &part.inputs);
            let (rows, first_row) = (0..inputs.rows(), part.rows.start);
            let write = Write::Add(part.pair.scale);
            self.machine.isa.run(Product { matrix, first_panel, inputs, rows, first_row, out: tile, write });
        }
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

/// The inputs of the second factors of all adapters: what the first factors make of their rows.
struct Reduced<'a> {
    parts: Vec<Part<'a>>,
}

/// `x Aᵀ` of one adapter's rows at one layer.
struct Part<'a> {
    layer: usize,
    rows: Range<usize>,
    pair: &'a PackedPair,
    inputs: Inputs,
}

impl<'a> Reduced<'a> {
    fn new(machine: Machine<'a>, layers: &[&Linear], inputs: &Inputs, adapters: &'a [Group<'a>]) -> Self {
        let mut parts = Vec::new();
        for Group { rows, adapter } in adapters {
            for (layer, site) in layers.iter().enumerate().filter_map(|(index, layer)| Some((index, layer.site?))) {
                if let Some(pair) = adapter.get(site) {
                    parts.push(Part { layer, rows: rows.clone(), pair, inputs: Inputs::default() });
                }
            }
        }
        let work = parts.iter().map(|part| part.rows.len() * part.pair.a.inputs * part.pair.a.outputs).sum();
        machine.team.each(work, &Chunks::new(&mut parts, 1), |_, parts: &mut [Part<'_>]| {
            parts.iter_mut().for_each(|part| part.reduce(machine.isa, inputs));
        });
        Self { parts }
    }
}

impl Part<'_> {
    fn reduce(&mut self, isa: Isa, inputs: &Inputs) {
        let (matrix, rank) = (&self.pair.a, self.pair.a.outputs);
        let mut out = Tile::whole(self.inputs.reset(self.rows.len(), rank), rank);
        let (rows, write) = (self.rows.clone(), Write::Set);
        isa.run(Product { matrix, first_panel: 0, inputs, rows, first_row: 0, out: &mut out, write });
    }
}
