//! Keys and values of all sequences on the CPU, laid out for the attention kernel.
//!
//! In a block the keys lie dimension by dimension, so that one vector holds the same dimension of sixteen positions; the
//! values lie position by position. Which block belongs to whom is the engine's business.

use super::parts::Chunks;
use super::simd::LANES;
use super::team::Team;
use crate::model::kv_cache::BLOCK_SIZE;
use crate::model::{ModelConfig, PagedSequence};
use half::f16;

const _: () = assert!(BLOCK_SIZE == LANES, "a block of keys is one vector wide");

/// How keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    F32,
    F16,
}

impl KvType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Keys and values of one layer.
pub(super) enum LayerStore {
    F32(Cells<f32>),
    F16(Cells<u16>),
}

/// The numbers of either type; untouched memory is not resident.
pub(super) struct Cells<T> {
    /// `[kv_heads, blocks, dim, positions]`
    pub(super) keys: Vec<T>,
    /// `[kv_heads, blocks, positions, dim]`
    pub(super) values: Vec<T>,
}

impl LayerStore {
    fn zeros(kind: KvType, count: usize) -> Self {
        match kind {
            KvType::F32 => Self::F32(Cells { keys: vec![0.0; count], values: vec![0.0; count] }),
            KvType::F16 => Self::F16(Cells { keys: vec![0; count], values: vec![0; count] }),
        }
    }
}

/// The store of every layer.
pub(super) struct KvStore {
    pub(super) layers: Vec<LayerStore>,
    pub(super) shape: KvShape,
}

/// The measures of a layer's store.
#[derive(Debug, Clone, Copy)]
pub(super) struct KvShape {
    pub(super) heads: usize,
    pub(super) blocks: usize,
    /// Of a head, rounded up to whole vectors.
    pub(super) dim: usize,
}

impl KvShape {
    fn new(config: &ModelConfig, blocks: usize) -> Self {
        Self { heads: config.num_kv_heads, blocks, dim: config.head_dim.next_multiple_of(LANES) }
    }

    /// Numbers in a block of one head.
    pub(super) fn block(&self) -> usize {
        self.dim * BLOCK_SIZE
    }

    /// Where a head's block begins.
    pub(super) fn at(&self, head: usize, block: u32) -> usize {
        (head * self.blocks + block as usize) * self.block()
    }
}

/// One row's new keys or values of all heads, and where they go.
pub(super) struct Slot {
    block: u32,
    offset: usize,
}

impl KvStore {
    pub(super) fn new(config: &ModelConfig, blocks: usize, kind: KvType) -> Self {
        let shape = KvShape::new(config, blocks);
        let layer = |_| LayerStore::zeros(kind, shape.heads * blocks * shape.block());
        let layers = (0..config.num_layers).map(layer).collect();
        Self { layers, shape }
    }

    /// Bytes that one block takes over all layers.
    pub(super) fn block_bytes(config: &ModelConfig, kind: KvType) -> usize {
        let shape = KvShape::new(config, 1);
        2 * config.num_layers * shape.heads * shape.block() * kind.bytes()
    }

    /// Where the new rows of a pass are written.
    pub(super) fn slots(sequences: &[PagedSequence<'_>]) -> Vec<Slot> {
        let slot = |s: &PagedSequence<'_>, p: usize| Slot { block: s.blocks[p / BLOCK_SIZE], offset: p % BLOCK_SIZE };
        sequences.iter().flat_map(|s| (s.cached..s.cached + s.new).map(move |p| slot(s, p))).collect()
    }

    /// Writes the rows' keys and values: `rows(i)` are those of row `i`, `[kv_heads, head_dim]` each.
    pub(super) fn write<'a>(
        &mut self,
        layer: usize,
        slots: &[Slot],
        rows: impl Fn(usize) -> (&'a [f32], &'a [f32]) + Sync,
        team: &Team,
    ) {
        let writer = Writer { shape: self.shape, slots, rows };
        match &mut self.layers[layer] {
            LayerStore::F32(cells) => writer.run(cells, team, |x| x),
            LayerStore::F16(cells) => writer.run(cells, team, |x| f16::from_f32(x).to_bits()),
        }
    }
}

struct Writer<'s, F> {
    shape: KvShape,
    slots: &'s [Slot],
    rows: F,
}

impl<'a, F: Fn(usize) -> (&'a [f32], &'a [f32]) + Sync> Writer<'_, F> {
    fn run<T: Send>(&self, cells: &mut Cells<T>, team: &Team, number: impl Fn(f32) -> T + Sync) {
        let per_head = self.shape.blocks * self.shape.block();
        let parts = (Chunks::new(&mut cells.keys, per_head), Chunks::new(&mut cells.values, per_head));
        let work = 2 * self.slots.len() * self.shape.heads * self.shape.dim;
        team.each(work, parts, |head, (keys, values)| {
            for (row, slot) in self.slots.iter().enumerate() {
                let (key, value) = (self.rows)(row);
                let dim = key.len() / self.shape.heads;
                let part = head * dim..(head + 1) * dim;
                let block = self.shape.at(0, slot.block);
                for (d, &x) in key[part.clone()].iter().enumerate() {
                    keys[block + d * BLOCK_SIZE + slot.offset] = number(x);
                }
                let start = block + slot.offset * self.shape.dim;
                for (to, &x) in values[start..start + dim].iter_mut().zip(&value[part]) {
                    *to = number(x);
                }
            }
        });
    }
}
