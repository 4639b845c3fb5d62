//! Causal attention within packed segments, for training and for scoring whole prompts: fused forward and backward.
//!
//! Scores exist for one block of queries of one head at a time; the backward pass computes them again.

use super::kernels::{Matrix, RowKernel, dot, each_row, matmul, softmax};
use super::{View, composed, is_fused, tensor};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Queries handled together; bounds the size of the score matrix.
const QUERY_BLOCK: usize = 64;

/// `q: [T, heads, d]`, `k, v: [T, kv_heads, d]` → `[T, heads, d]`. `lengths` (sum T) are the segments; a token sees its
/// own segment up to itself, at most the last `window` positions.
pub fn causal_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    lengths: &[usize],
    window: Option<usize>,
) -> Result<Tensor> {
    if is_fused(q) {
        let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
        return CausalAttention::new(lengths, window).run(&q, &k, &v);
    }
    let part = |t: &Tensor, at: &Range<usize>| t.narrow(0, at.start, at.len());
    let parts = segments(lengths).map(|at| composed::attention(&part(q, &at)?, &part(k, &at)?, &part(v, &at)?, window));
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}

/// What one call saves for its backward pass: its inputs and its output.
pub struct SavedTensors<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub out: &'a Tensor,
}

/// Gradients of q, k and v from that of the output.
pub fn causal_attention_backward(
    saved: &SavedTensors<'_>,
    grad: &Tensor,
    lengths: &[usize],
    window: Option<usize>,
) -> Result<[Tensor; 3]> {
    let SavedTensors { q, k, v, .. } = *saved;
    if is_fused(q) {
        return CausalAttention::new(lengths, window).run_backward(saved, &grad.contiguous()?);
    }
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for at in segments(lengths) {
        let part = |t: &Tensor| t.narrow(0, at.start, at.len());
        let inputs = [&part(q)?, &part(k)?, &part(v)?];
        let found = composed::gradients(inputs, &part(grad)?, |[q, k, v]| composed::attention(q, k, v, window))?;
        parts.iter_mut().zip(found).for_each(|(parts, found)| parts.push(found));
    }
    let [dq, dk, dv] = parts.map(|parts| Tensor::cat(&parts, 0));
    Ok([dq?, dk?, dv?])
}

/// The rows of each segment.
fn segments(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    lengths.iter().scan(0, |start, len| {
        *start += len;
        Some(*start - len..*start)
    })
}

struct CausalAttention<'a> {
    lengths: &'a [usize],
    window: usize,
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

impl Heads {
    fn new(q: (usize, usize, usize), k: (usize, usize, usize)) -> Self {
        Self { query: q.1, kv: k.1, dim: q.2 }
    }

    fn group(self) -> usize {
        self.query / self.kv
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Copies what the query heads of a task gave to their places in `[T, heads, d]`.
    fn place_group(self, all: &mut [f32], parts: &[Vec<f32>], task: &Task) {
        for (member, part) in parts.iter().enumerate() {
            let head = task.kv_head * self.group() + member;
            place(all, part, &task.segment, (head, self.query, self.dim));
        }
    }

    /// Rows `rows` of head `head` in `[T, heads, d]` data.
    fn rows<'a>(self, data: &'a [f32], heads: usize, head: usize, rows: Range<usize>) -> Matrix<'a> {
        let stride = heads * self.dim;
        let from = (rows.start * stride + head * self.dim).min(data.len());
        Matrix::new(&data[from..], rows.len(), self.dim, stride)
    }
}

/// One key/value head of one segment: an independent piece of work.
#[derive(Clone)]
struct Task {
    segment: Range<usize>,
    kv_head: usize,
}

/// Softmax over what each query sees; zero elsewhere.
struct CausalSoftmax {
    first_query: usize,
    window: usize,
}

impl RowKernel for CausalSoftmax {
    #[inline(always)]
    fn row(&self, index: usize, row: &mut [f32]) {
        let i = self.first_query + index;
        let first = (i + 1).saturating_sub(self.window);
        row[..first].fill(0.0);
        softmax(&mut row[first..=i]);
        row[i + 1..].fill(0.0);
    }
}

impl CausalAttention<'_> {
    fn tasks(&self, heads: Heads) -> Vec<Task> {
        let of = |segment: Range<usize>| (0..heads.kv).map(move |kv_head| Task { segment: segment.clone(), kv_head });
        segments(self.lengths).flat_map(of).collect()
    }

    /// Softmaxed scores of the queries `block` (positions in the segment) over keys `0..block.end`.
    fn probabilities(&self, q: Matrix<'_>, k: Matrix<'_>, block: &Range<usize>, scale: f32) -> Vec<f32> {
        let keys = block.end;
        let mut scores = vec![0f32; block.len() * keys];
        matmul(&mut scores, q, k.t(), scale, false);
        each_row(&mut scores, keys, &CausalSoftmax { first_query: block.start, window: self.window });
        scores
    }

    /// `[len, d]` for each query head of the task's group.
    fn forward(&self, heads: Heads, task: &Task, [q, k, v]: [&[f32]; 3]) -> Vec<Vec<f32>> {
        let one = |member: usize| {
            let head = task.kv_head * heads.group() + member;
            let mut out = vec![0f32; task.segment.len() * heads.dim];
            for (block, out) in blocks(task.segment.len()).zip(out.chunks_mut(QUERY_BLOCK * heads.dim)) {
                let keys = task.segment.start..task.segment.start + block.end;
                let queries = task.segment.start + block.start..task.segment.start + block.end;
                let k = heads.rows(k, heads.kv, task.kv_head, keys.clone());
                let p = self.probabilities(heads.rows(q, heads.query, head, queries), k, &block, heads.scale());
                let p = Matrix::new(&p, block.len(), block.end, block.end);
                matmul(out, p, heads.rows(v, heads.kv, task.kv_head, keys), 1.0, false);
            }
            out
        };
        (0..heads.group()).map(one).collect()
    }

    /// Gradients of the task: per query head of the group, then of the key head and of the value head.
    fn backward(&self, heads: Heads, task: &Task, data: &Data<'_>) -> (Vec<Vec<f32>>, Vec<f32>, Vec<f32>) {
        let size = task.segment.len() * heads.dim;
        let (mut dk, mut dv) = (vec![0f32; size], vec![0f32; size]);
        let mut one = |member: usize| {
            let mut dq = vec![0f32; size];
            for (block, dq) in blocks(task.segment.len()).zip(dq.chunks_mut(QUERY_BLOCK * heads.dim)) {
                let part = Part { heads, task, head: task.kv_head * heads.group() + member, block };
                let (keys, end) = (part.keys(), part.block.end * heads.dim);
                let (q, grad) = (part.queries(data.q), part.queries(data.grad));
                let k = heads.rows(data.k, heads.kv, task.kv_head, keys.clone());
                let p = self.probabilities(q, k, &part.block, heads.scale());
                let ds = part.score_gradient(&p, data, heads.rows(data.v, heads.kv, task.kv_head, keys));
                let matrix = |m| Matrix::new(m, part.block.len(), part.block.end, part.block.end);
                matmul(dq, matrix(&ds), k, heads.scale(), false);
                matmul(&mut dk[..end], matrix(&ds).t(), q, heads.scale(), true);
                matmul(&mut dv[..end], matrix(&p).t(), grad, 1.0, true);
            }
            dq
        };
        let dq = (0..heads.group()).map(&mut one).collect();
        (dq, dk, dv)
    }
}

/// The values of the saved tensors, and of the output's gradient.
struct Data<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    grad: &'a [f32],
}

/// One block of queries of one head of a task.
struct Part<'a> {
    heads: Heads,
    task: &'a Task,
    head: usize,
    block: Range<usize>,
}

impl Part<'_> {
    fn keys(&self) -> Range<usize> {
        self.task.segment.start..self.task.segment.start + self.block.end
    }

    fn positions(&self) -> Range<usize> {
        self.task.segment.start + self.block.start..self.task.segment.start + self.block.end
    }

    fn queries<'a>(&self, data: &'a [f32]) -> Matrix<'a> {
        self.heads.rows(data, self.heads.query, self.head, self.positions())
    }

    fn score_gradient(&self, p: &[f32], data: &Data<'_>, v: Matrix<'_>) -> Vec<f32> {
        let mut ds = vec![0f32; p.len()];
        matmul(&mut ds, self.queries(data.grad), v.t(), 1.0, false);
        each_row(&mut ds, self.block.end, &ScoreGradient { part: self, p, data });
        ds
    }
}

/// Turns a row of `dO Vᵀ` into `dS = P * (dO Vᵀ - rowsum(dO * O))`.
struct ScoreGradient<'a> {
    part: &'a Part<'a>,
    p: &'a [f32],
    data: &'a Data<'a>,
}

impl RowKernel for ScoreGradient<'_> {
    #[inline(always)]
    fn row(&self, index: usize, ds: &mut [f32]) {
        let Part { heads, head, .. } = *self.part;
        let at = ((self.part.positions().start + index) * heads.query + head) * heads.dim;
        let shift = dot(&self.data.grad[at..at + heads.dim], &self.data.out[at..at + heads.dim]);
        for (ds, p) in ds.iter_mut().zip(&self.p[index * self.part.block.end..]) {
            *ds = p * (*ds - shift);
        }
    }
}

fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(QUERY_BLOCK).map(move |start| start..(start + QUERY_BLOCK).min(len))
}

/// Copies `[len, d]` into head `head` of the segment's rows of `[T, heads, d]`.
fn place(all: &mut [f32], part: &[f32], segment: &Range<usize>, (head, heads, dim): (usize, usize, usize)) {
    for (t, row) in segment.clone().zip(part.chunks_exact(dim)) {
        let at = (t * heads + head) * dim;
        all[at..at + dim].copy_from_slice(row);
    }
}

impl<'a> CausalAttention<'a> {
    fn new(lengths: &'a [usize], window: Option<usize>) -> Self {
        Self { lengths, window: window.unwrap_or(usize::MAX) }
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let views = [View::new(q)?, View::new(k)?, View::new(v)?];
        let data = views.each_ref().map(|view| &**view);
        let heads = Heads::new(q.dims3()?, k.dims3()?);
        let tasks = self.tasks(heads);
        let parts: Vec<_> = tasks.par_iter().map(|task| self.forward(heads, task, data)).collect();
        let mut out = vec![0f32; data[0].len()];
        for (task, parts) in tasks.iter().zip(&parts) {
            heads.place_group(&mut out, parts, task);
        }
        tensor(out, q.shape().clone())
    }

    fn run_backward(&self, saved: &SavedTensors<'_>, grad: &Tensor) -> Result<[Tensor; 3]> {
        let SavedTensors { q, k, v, out } = *saved;
        let views = [View::new(q)?, View::new(k)?, View::new(v)?, View::new(out)?, View::new(grad)?];
        let data = Data { q: &views[0], k: &views[1], v: &views[2], out: &views[3], grad: &views[4] };
        let heads = Heads::new(q.dims3()?, k.dims3()?);
        let tasks = self.tasks(heads);
        let parts: Vec<_> = tasks.par_iter().map(|task| self.backward(heads, task, &data)).collect();
        let mut all = [vec![0f32; data.q.len()], vec![0f32; data.k.len()], vec![0f32; data.v.len()]];
        for (task, (dq, dk, dv)) in tasks.iter().zip(&parts) {
            heads.place_group(&mut all[0], dq, task);
            place(&mut all[1], dk, &task.segment, (task.kv_head, heads.kv, heads.dim));
            place(&mut all[2], dv, &task.segment, (task.kv_head, heads.kv, heads.dim));
        }
        let [dq, dk, dv] = all;
        Ok([tensor(dq, q.shape().clone())?, tensor(dk, k.shape().clone())?, tensor(dv, v.shape().clone())?])
    }
}
