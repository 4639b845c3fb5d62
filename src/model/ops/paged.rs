//! Attention of new tokens over the block KV cache, without gathering it.
//!
//! Every query row is computed alone and in a fixed order, so a token's result depends neither on its batch nor on how
//! its prompt was cut into chunks.

use super::kernels::{Loop, add_scaled, dot, softmax, vectorised};
use super::{View, composed, is_fused, tensor};
use crate::model::kv_cache::BLOCK_SIZE;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Where the rows of a pass find their keys and values.
#[derive(Debug, Clone, Default)]
pub struct PagedLayout {
    /// Block ids of each sequence.
    blocks: Vec<Vec<u32>>,
    /// For each row: its sequence and its position.
    rows: Vec<(usize, usize)>,
    window: Option<usize>,
}

impl PagedLayout {
    /// An empty layout for a model with this sliding window.
    pub fn new(window: Option<usize>) -> Self {
        Self { window, ..Self::default() }
    }

    /// Adds a sequence with `new` rows at positions `cached..cached + new`.
    pub fn push(&mut self, blocks: &[u32], cached: usize, new: usize) {
        let sequence = self.blocks.len();
        self.blocks.push(blocks.to_vec());
        self.rows.extend((cached..cached + new).map(|position| (sequence, position)));
    }

    /// The cache slots of the rows themselves: where their keys and values are written.
    pub fn slots(&self) -> Vec<u32> {
        self.rows.iter().map(|(sequence, position)| self.slot(*sequence, *position) as u32).collect()
    }

    fn slot(&self, sequence: usize, position: usize) -> usize {
        self.blocks[sequence][position / BLOCK_SIZE] as usize * BLOCK_SIZE + position % BLOCK_SIZE
    }

    /// First position that a row sees.
    fn first(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// `q: [T, heads, d]`; `keys`, `values`: the cache of one layer, `[slots, kv_heads, d]` → `[T, heads, d]`.
pub fn paged_attention(q: &Tensor, keys: &Tensor, values: &Tensor, layout: &PagedLayout) -> Result<Tensor> {
    if is_fused(q) {
        return fused(&q.contiguous()?, keys, values, layout);
    }
    let mut outputs = Vec::new();
    let mut row = 0;
    for sequence in 0..layout.blocks.len() {
        let rows = layout.rows.iter().filter(|(s, _)| *s == sequence).count();
        let last = layout.rows[row + rows - 1].1;
        let slots: Vec<u32> = (0..=last).map(|position| layout.slot(sequence, position) as u32).collect();
        let slots = Tensor::new(slots, q.device())?;
        let (k, v) = (keys.index_select(&slots, 0)?, values.index_select(&slots, 0)?);
        outputs.push(composed::attention(&q.narrow(0, row, rows)?, &k, &v, layout.window)?);
        row += rows;
    }
    Tensor::cat(&outputs, 0)
}

fn fused(q: &Tensor, keys: &Tensor, values: &Tensor, layout: &PagedLayout) -> Result<Tensor> {
    let ((_, heads, dim), (_, kv_heads, _)) = (q.dims3()?, keys.dims3()?);
    let (queries, keys, values) = (View::new(q)?, View::new(keys)?, View::new(values)?);
    let (keys, values) = (&*keys, &*values);
    let mut out = vec![0f32; queries.len()];
    let rows = out.par_chunks_mut(dim).zip(queries.par_chunks(dim)).enumerate();
    rows.for_each(|(i, (out, q))| {
        let (row, kv_offset) = (i / heads, i % heads / (heads / kv_heads) * dim);
        vectorised(Query { layout, row, q, keys, values, kv_offset, width: kv_heads * dim, out });
    });
    tensor(out, q.shape().clone())
}

/// One query head of one row.
struct Query<'a> {
    layout: &'a PagedLayout,
    row: usize,
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    /// Where the query's key head starts inside a slot of `width` values.
    kv_offset: usize,
    width: usize,
    out: &'a mut [f32],
}

impl Loop for Query<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (sequence, position) = self.layout.rows[self.row];
        let dim = self.q.len();
        let scale = 1.0 / (dim as f32).sqrt();
        let positions = self.layout.first(position)..=position;
        let mut scores = Vec::with_capacity(position + 1);
        for p in positions.clone() {
            let at = self.layout.slot(sequence, p) * self.width + self.kv_offset;
            scores.push(dot(self.q, &self.keys[at..at + dim]) * scale);
        }
        softmax(&mut scores);
        for (weight, p) in scores.iter().zip(positions) {
            let at = self.layout.slot(sequence, p) * self.width + self.kv_offset;
            add_scaled(self.out, *weight, &self.values[at..at + dim]);
        }
    }
}
