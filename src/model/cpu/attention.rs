//! Attention of new rows over the block store, without gathering it.
//!
//! The query heads that share a key head, and a few rows of a sequence, go over the store together. A row's result depends
//! neither on them nor on how its prompt was cut: every sum has a fixed order.

use super::kv_store::{Cells, KvShape, LayerStore};
use super::parts::{Area, Tile, Tiles};
use super::simd::{Isa, Kernel, LANES, Lanes};
use super::team::Team;
use crate::model::kv_cache::BLOCK_SIZE;
use crate::model::ops::kernels::softmax;
use crate::model::{ModelConfig, PagedSequence};
use std::cell::RefCell;
use std::ops::Range;

/// Rows of a sequence that are handled together.
const ROWS: usize = 4;
/// Queries that registers hold together.
const QUERIES: usize = 4;

thread_local!(static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });

/// The sizes of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) query: usize,
    pub(super) kv: usize,
    pub(super) dim: usize,
    pub(super) window: Option<usize>,
}

impl Heads {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let ModelConfig { num_heads, num_kv_heads, head_dim, sliding_window, .. } = *config;
        Self { query: num_heads, kv: num_kv_heads, dim: head_dim, window: sliding_window }
    }

    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.query / self.kv
    }

    /// First position that a row sees.
    fn first(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Some rows of one sequence.
struct Band {
    sequence: usize,
    rows: Range<usize>,
    /// Position of the first.
    position: usize,
}

/// How a pass's attention is cut into tasks; the same for every layer.
pub(super) struct Plan {
    bands: Vec<Band>,
    tiles: Vec<Area>,
    work: usize,
}

impl Plan {
    pub(super) fn new(heads: &Heads, sequences: &[PagedSequence<'_>]) -> Self {
        let mut plan = Self { bands: Vec::new(), tiles: Vec::new(), work: 0 };
        let (mut row, width) = (0, heads.group() * heads.dim);
        for (sequence, s) in sequences.iter().enumerate() {
            for start in (0..s.new).step_by(ROWS) {
                let rows = row + start..row + s.new.min(start + ROWS);
                plan.work += 2 * rows.len() * heads.query * heads.dim * (s.cached + start + 1);
                plan.tiles.extend((0..heads.kv).map(|head| (rows.clone(), head * width..(head + 1) * width)));
                plan.bands.push(Band { sequence, rows, position: s.cached + start });
            }
            row += s.new;
        }
        plan
    }
}

/// What attention reads.
pub(super) struct Attend<'a> {
    pub(super) heads: Heads,
    pub(super) plan: &'a Plan,
    pub(super) sequences: &'a [PagedSequence<'a>],
    pub(super) shape: KvShape,
    pub(super) store: &'a LayerStore,
    /// Row `i` of the queries is `queries[i * stride..][..heads * dim]`.
    pub(super) queries: &'a [f32],
    pub(super) stride: usize,
}

impl Attend<'_> {
    /// Fills `out: [rows, heads * dim]`.
    pub(super) fn run(&self, isa: Isa, team: &Team, out: &mut [f32]) {
        let tiles = Tiles::new(out, self.heads.query * self.heads.dim, &self.plan.tiles);
        team.each(self.plan.work, tiles, |index, tile| {
            let (band, head) = (&self.plan.bands[index / self.heads.kv], index % self.heads.kv);
            SCORES.with_borrow_mut(|scores| isa.run(Task { attend: self, band, head, scores, tile }));
        });
    }
}

/// One key head of one band.
struct Task<'a, 't> {
    attend: &'a Attend<'a>,
    band: &'a Band,
    head: usize,
    scores: &'a mut Vec<f32>,
    tile: Tile<'t>,
}

impl Kernel for Task<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<L: Lanes>(self, lanes: L) {
        match self.attend.store {
            LayerStore::F32(cells) => self.over(lanes, cells, |x| lanes.load(x)),
            LayerStore::F16(cells) => self.over(lanes, cells, |x| lanes.halves(x)),
        }
    }
}

/// A query: the head's number in its group, and the row's in its band.
#[derive(Clone, Copy)]
struct Query {
    member: usize,
    row: usize,
}

impl Task<'_, '_> {
    #[inline(always)]
    fn over<L: Lanes, T>(mut self, lanes: L, cells: &Cells<T>, load: impl Fn(&[T; LANES]) -> L::Floats + Copy) {
        let heads = self.attend.heads;
        let count = heads.group() * self.band.rows.len();
        let query = |index: usize| Query { member: index % heads.group(), row: index / heads.group() };
        for start in (0..count).step_by(QUERIES) {
            match count - start {
                1 => self.some::<L, T, 1>(lanes, [query(start)], cells, load),
                2 => self.some::<L, T, 2>(lanes, [0, 1].map(|i| query(start + i)), cells, load),
                3 => self.some::<L, T, 3>(lanes, [0, 1, 2].map(|i| query(start + i)), cells, load),
                _ => self.some::<L, T, 4>(lanes, [0, 1, 2, 3].map(|i| query(start + i)), cells, load),
            }
        }
    }

    /// Positions that a query sees.
    #[inline(always)]
    fn sees(&self, query: Query) -> Range<usize> {
        let position = self.band.position + query.row;
        self.attend.heads.first(position)..position + 1
    }

    #[inline(always)]
    fn some<L: Lanes, T, const Q: usize>(
        &mut self,
        lanes: L,
        queries: [Query; Q],
        cells: &Cells<T>,
        load: impl Fn(&[T; LANES]) -> L::Floats + Copy,
    ) {
        let seen = queries.map(|query| self.sees(query));
        let end = seen[Q - 1].end;
        let blocks = seen[0].start / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE);
        let width = blocks.end * BLOCK_SIZE;
        let mut scores = std::mem::take(self.scores);
        if scores.len() < Q * width {
            scores.resize(Q * width, 0.0);
        }
        let q = queries.map(|query| self.query(query));
        for index in blocks {
            let sums = scores_of(lanes, q, self.block(&cells.keys, index), load);
            for (r, sums) in sums.into_iter().enumerate() {
                let at = r * width + index * BLOCK_SIZE;
                scores[at..at + LANES].copy_from_slice(&lanes.store(sums));
            }
        }
        for (r, seen) in seen.iter().enumerate() {
            softmax(&mut scores[r * width + seen.start..r * width + seen.end]);
        }
        for lane in 0..self.attend.shape.dim / LANES {
            let weights = Weights { scores: &scores, width, seen: &seen, lane };
            let sums = self.weigh(lanes, weights, &cells.values, load);
            self.put(lanes, queries, lane, sums);
        }
        *self.scores = scores;
    }

    #[inline(always)]
    fn query(&self, query: Query) -> &[f32] {
        let heads = self.attend.heads;
        let row = (self.band.rows.start + query.row) * self.attend.stride;
        &self.attend.queries[row + (self.head * heads.group() + query.member) * heads.dim..][..heads.dim]
    }

    #[inline(always)]
    fn block<'a, T>(&self, cells: &'a [T], index: usize) -> &'a [[T; LANES]] {
        let block = self.attend.sequences[self.band.sequence].blocks[index];
        let shape = self.attend.shape;
        cells[shape.at(self.head, block)..][..shape.block()].as_chunks().0
    }

    /// `Σ weight * value` of sixteen dimensions.
    #[inline(always)]
    fn weigh<L: Lanes, T, const Q: usize>(
        &self,
        lanes: L,
        weights: Weights<'_, Q>,
        values: &[T],
        load: impl Fn(&[T; LANES]) -> L::Floats + Copy,
    ) -> [L::Floats; Q] {
        let per_position = self.attend.shape.dim / LANES;
        let all = weights.all();
        let mut sums = [lanes.splat(0.0); Q];
        for index in weights.any().start / BLOCK_SIZE..weights.any().end.div_ceil(BLOCK_SIZE) {
            let block = self.block(values, index);
            let first = index * BLOCK_SIZE;
            let here = weights.any().start.max(first)..weights.any().end.min(first + BLOCK_SIZE);
            for position in here {
                let value = load(&block[(position - first) * per_position + weights.lane]);
                let everybody = all.contains(&position);
                for (r, sum) in sums.iter_mut().enumerate() {
                    if everybody || weights.seen[r].contains(&position) {
                        let weight = weights.scores[r * weights.width + position];
                        *sum = lanes.mul_add(lanes.splat(weight), value, *sum);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn put<L: Lanes, const Q: usize>(&mut self, lanes: L, queries: [Query; Q], lane: usize, sums: [L::Floats; Q]) {
        let dim = self.attend.heads.dim;
        for (query, sums) in queries.into_iter().zip(sums) {
            let row = self.tile.row(self.band.rows.start + query.row);
            let out = &mut row[query.member * dim..(query.member + 1) * dim][lane * LANES..];
            let count = out.len().min(LANES);
            out[..count].copy_from_slice(&lanes.store(sums)[..count]);
        }
    }
}

/// The weights of some queries, which positions each sees, and which sixteen dimensions are wanted.
#[derive(Clone, Copy)]
struct Weights<'a, const Q: usize> {
    scores: &'a [f32],
    width: usize,
    seen: &'a [Range<usize>; Q],
    lane: usize,
}

impl<const Q: usize> Weights<'_, Q> {
    /// Positions that one of them sees: they are in order.
    #[inline(always)]
    fn any(&self) -> Range<usize> {
        self.seen[0].start..self.seen[Q - 1].end
    }

    /// Positions that all of them see.
    #[inline(always)]
    fn all(&self) -> Range<usize> {
        self.seen[Q - 1].start..self.seen[0].end
    }
}

/// Scaled scores of some queries at the sixteen positions of a block of keys.
#[inline(always)]
fn scores_of<L: Lanes, T, const Q: usize>(
    lanes: L,
    queries: [&[f32]; Q],
    keys: &[[T; LANES]],
    load: impl Fn(&[T; LANES]) -> L::Floats,
) -> [L::Floats; Q] {
    let dim = queries[0].len();
    let queries = queries.map(|query| &query[..dim]);
    let mut sums = [lanes.splat(0.0); Q];
    for (d, keys) in keys[..dim].iter().enumerate() {
        let keys = load(keys);
        for r in 0..Q {
            sums[r] = lanes.mul_add(lanes.splat(queries[r][d]), keys, sums[r]);
        }
    }
    let scale = lanes.splat(1.0 / (dim as f32).sqrt());
    sums.map(|sum| lanes.mul(sum, scale))
}
