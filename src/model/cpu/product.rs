//! `y = x Wᵀ` over panels: every kernel of every format, written once for all instruction sets.
//!
//! A row's result depends on that row alone: each output is one sum in a fixed order, however rows and panels are cut into
//! tiles. Knows no threads and no layers.

use super::inputs::{Block, Inputs};
use super::packed::{BLOCK, Matrix, Panels, Q4Block, Q8Block, SUPERBLOCK};
use super::parts::Tile;
use super::simd::{Kernel, LANES, Lanes};
use std::ops::Range;

/// Weights that stay in the cache of a processor while rows pass over them.
pub(super) const CACHED_BYTES: usize = 64 << 10;

/// What happens to the sums.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    /// `y = sum`
    Set,
    /// `y += factor * sum`
    Add(f32),
}

/// The product of some rows with some panels.
pub(super) struct Product<'a, 't> {
    pub(super) matrix: &'a Matrix,
    /// The first panel; its first output goes to the tile's first column.
    pub(super) first_panel: usize,
    pub(super) inputs: &'a Inputs,
    /// Rows of the inputs.
    pub(super) rows: Range<usize>,
    /// The row of the output that belongs to the first of them.
    pub(super) first_row: usize,
    pub(super) out: &'a mut Tile<'t>,
    pub(super) write: Write,
}

impl Kernel for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<L: Lanes>(mut self, lanes: L) {
        let panels = self.out.columns().len().div_ceil(LANES);
        let in_cache = (CACHED_BYTES / self.matrix.panel_bytes()).max(1);
        for first in (0..panels).step_by(in_cache) {
            self.all_rows(lanes, first..panels.min(first + in_cache));
        }
    }
}

impl Product<'_, '_> {
    /// All rows against some panels of the tile.
    #[inline(always)]
    fn all_rows<L: Lanes>(&mut self, lanes: L, panels: Range<usize>) {
        let count = self.rows.len();
        let tiles = count.div_ceil(L::TILE_ROWS);
        for tile in 0..tiles {
            let (start, end) = (tile * count / tiles, (tile + 1) * count / tiles);
            let panels = panels.clone();
            match end - start {
                1 => self.some_rows::<L, 1>(lanes, panels, start),
                2 if L::TILE_ROWS >= 2 => self.some_rows::<L, 2>(lanes, panels, start),
                3 if L::TILE_ROWS >= 3 => self.some_rows::<L, 3>(lanes, panels, start),
                4 if L::TILE_ROWS >= 4 => self.some_rows::<L, 4>(lanes, panels, start),
                5 if L::TILE_ROWS >= 5 => self.some_rows::<L, 5>(lanes, panels, start),
                6 if L::TILE_ROWS >= 6 => self.some_rows::<L, 6>(lanes, panels, start),
                rows => unreachable!("a tile of {rows} rows"),
            }
        }
    }

    #[inline(always)]
    fn some_rows<L: Lanes, const R: usize>(&mut self, lanes: L, panels: Range<usize>, start: usize) {
        let units = self.matrix.panel_units();
        let first = self.rows.start + start;
        for index in panels {
            let at = (self.first_panel + index) * units;
            let range = at..at + units;
            let sums: [L::Floats; R] = match &self.matrix.panels {
                Panels::F32(data) => floats(lanes, &data[range], self.floats(first), |unit| lanes.load(unit)),
                Panels::F16(data) => floats(lanes, &data[range], self.floats(first), |unit| lanes.halves(unit)),
                Panels::BF16(data) => floats(lanes, &data[range], self.floats(first), |unit| lanes.brains(unit)),
                Panels::Q8(data) => q8(lanes, &data[range], self.blocks(first)),
                Panels::Q4(data) => q4(lanes, &data[range], self.blocks(first)),
            };
            self.put(lanes, start, index, sums);
        }
    }

    #[inline(always)]
    fn floats<const R: usize>(&self, first: usize) -> [&[f32]; R] {
        let width = self.inputs.width;
        std::array::from_fn(|r| &self.inputs.floats[(first + r) * width..][..width])
    }

    #[inline(always)]
    fn blocks<const R: usize>(&self, first: usize) -> [&[Block]; R] {
        let per_row = self.inputs.blocks_per_row();
        std::array::from_fn(|r| &self.inputs.blocks[(first + r) * per_row..][..per_row])
    }

    #[inline(always)]
    fn put<L: Lanes, const R: usize>(&mut self, lanes: L, start: usize, panel: usize, sums: [L::Floats; R]) {
        for (r, sums) in sums.into_iter().enumerate() {
            let row = &mut self.out.row(self.first_row + start + r)[panel * LANES..];
            match (row.first_chunk_mut::<LANES>(), self.write) {
                (Some(row), Write::Set) => *row = lanes.store(sums),
                (Some(row), Write::Add(factor)) => {
                    *row = lanes.store(lanes.mul_add(lanes.splat(factor), sums, lanes.load(row)));
                }
                (None, write) => put_few(row, lanes.store(sums), write),
            }
        }
    }
}

/// The last panel may be wider than what is left of a row.
#[inline(always)]
fn put_few(row: &mut [f32], sums: [f32; LANES], write: Write) {
    for (y, sum) in row.iter_mut().zip(sums) {
        *y = match write {
            Write::Set => sum,
            Write::Add(factor) => factor.mul_add(sum, *y),
        };
    }
}

/// Two sums over the even and the odd inputs, so that additions need not wait for each other.
#[inline(always)]
fn floats<L: Lanes, T, const R: usize>(
    lanes: L,
    panel: &[T],
    x: [&[f32]; R],
    load: impl Fn(&T) -> L::Floats,
) -> [L::Floats; R] {
    let x = x.map(|row| &row[..panel.len()]);
    let mut even = [lanes.splat(0.0); R];
    let mut odd = even;
    let (pairs, last) = panel.as_chunks::<2>();
    for (i, [first, second]) in pairs.iter().enumerate() {
        let (first, second) = (load(first), load(second));
        for r in 0..R {
            even[r] = lanes.mul_add(first, lanes.splat(x[r][2 * i]), even[r]);
            odd[r] = lanes.mul_add(second, lanes.splat(x[r][2 * i + 1]), odd[r]);
        }
    }
    for unit in last {
        let unit = load(unit);
        for r in 0..R {
            even[r] = lanes.mul_add(unit, lanes.splat(x[r][panel.len() - 1]), even[r]);
        }
    }
    let one = lanes.splat(1.0);
    std::array::from_fn(|r| lanes.mul_add(odd[r], one, even[r]))
}

#[inline(always)]
fn q8<L: Lanes, const R: usize>(lanes: L, panel: &[Q8Block], x: [&[Block]; R]) -> [L::Floats; R] {
    let x = x.map(|row| &row[..panel.len()]);
    let mut sums = [lanes.splat(0.0); R];
    for (i, block) in panel.iter().enumerate() {
        let x: [&Block; R] = std::array::from_fn(|r| &x[r][i]);
        let mut dots = [lanes.no_ints(); R];
        for pair in 0..BLOCK / 2 {
            let weights = lanes.widen(&block.quants[pair]);
            for r in 0..R {
                dots[r] = lanes.dot(dots[r], weights, x[r].pairs[pair]);
            }
        }
        let scales = lanes.halves(&block.scales);
        for r in 0..R {
            let scale = lanes.mul(scales, lanes.splat(x[r].scale));
            sums[r] = lanes.mul_add(lanes.to_floats(dots[r]), scale, sums[r]);
        }
    }
    sums
}

#[inline(always)]
fn q4<L: Lanes, const R: usize>(lanes: L, panel: &[Q4Block], x: [&[Block]; R]) -> [L::Floats; R] {
    const PARTS: usize = SUPERBLOCK / BLOCK;
    let x = x.map(|row| &row[..panel.len() * PARTS]);
    let mut sums = [lanes.splat(0.0); R];
    for (i, block) in panel.iter().enumerate() {
        let (scale, min) = (lanes.halves(&block.scale), lanes.halves(&block.min));
        for (j, part) in block.parts.iter().enumerate() {
            let x: [&Block; R] = std::array::from_fn(|r| &x[r][i * PARTS + j]);
            let mut dots = [lanes.no_ints(); R];
            for pairs in 0..BLOCK / 4 {
                let [low, high] = lanes.nibbles(&part.quants[pairs]);
                for r in 0..R {
                    dots[r] = lanes.dot(dots[r], low, x[r].pairs[2 * pairs]);
                    dots[r] = lanes.dot(dots[r], high, x[r].pairs[2 * pairs + 1]);
                }
            }
            let (scale, min) = (lanes.mul(scale, lanes.bytes(&part.scales)), lanes.mul(min, lanes.bytes(&part.mins)));
            for r in 0..R {
                let of_row = lanes.mul(scale, lanes.splat(x[r].scale));
                sums[r] = lanes.mul_add(lanes.to_floats(dots[r]), of_row, sums[r]);
                sums[r] = lanes.mul_sub(min, lanes.splat(x[r].sum), sums[r]);
            }
        }
    }
    sums
}
