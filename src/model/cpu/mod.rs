//! The decoder on the CPU as serving runs it: packed weights, one team of threads, buffers that are kept between passes.
//!
//! Computes what [`super::Decoder`] computes, without gradients. A row's result depends on its own sequence alone: neither on
//! the other rows of a pass nor on how a prompt was cut. Knows no adapter files, no requests and no sampling.

mod adapter;
mod attention;
mod head;
mod inputs;
mod kv_store;
mod linear;
mod load;
mod packed;
mod parts;
mod product;
mod simd;
mod swiglu;
mod team;

pub use adapter::PackedAdapter;
pub use head::LogitRow;
pub use kv_store::KvType;
pub use load::{Precision, Quantise};

use super::lora::{AdapterBatch, Packing};
use super::ops::Rotary;
use super::ops::kernels::{Loop, vectorised};
use super::ops::norm::normalise;
use super::prompt;
use super::weight::Elsewhere;
use super::{ModelConfig, ModelError, PagedSequence};
use adapter::Group;
use attention::{Attend, Heads, Plan};
use candle_core::DType;
use inputs::Inputs;
use kv_store::{KvStore, Slot};
use linear::{Linear, Machine, Stage};
use packed::{Format, Matrix};
use parts::Chunks;
use product::Write;
use simd::Isa;
use std::sync::Arc;
use team::Team;

/// One layer's weights.
struct Block {
    index: usize,
    input_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// RMSNorm weights over each head of q and k (Qwen 3).
    qk_norm: Option<[Vec<f32>; 2]>,
    post_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A Llama-shaped causal decoder, packed for serving.
pub struct CpuDecoder {
    config: ModelConfig,
    embedding: Arc<Matrix>,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    head: Linear,
    isa: Isa,
    team: Team,
    store: KvStore,
    kv_type: KvType,
    packing: Packing,
    buffers: Buffers,
}

/// What a pass writes to.
#[derive(Default)]
struct Buffers {
    /// The residual stream, `[rows, hidden]`.
    x: Vec<f32>,
    /// Queries, keys and values side by side.
    qkv: Vec<f32>,
    /// Normalised `x`.
    normed: Inputs,
    attended: Inputs,
    gated: Inputs,
    /// The rows of `x` whose logits are wanted, and what the head reads of them.
    wanted_x: Vec<f32>,
    wanted: Inputs,
}

/// One forward pass over the new tokens of one or more sequences, laid end to end.
pub struct CpuPass<'a> {
    /// Token ids, length T.
    pub tokens: &'a [u32],
    /// Position of each token in its own sequence, length T.
    pub positions: &'a [u32],
    /// How the rows are divided, and where each sequence's keys and values live.
    pub sequences: &'a [PagedSequence<'a>],
    /// Which rows use which adapter.
    pub adapters: &'a AdapterBatch,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: &'a [LogitRow<'a>],
}

/// What every layer of a pass needs.
struct Context<'a> {
    pass: &'a CpuPass<'a>,
    adapters: Vec<Group<'a>>,
    machine: Machine<'a>,
    rotary: Rotary,
    heads: Heads,
    plan: Plan,
    slots: Vec<Slot>,
    eps: f32,
}

impl CpuDecoder {
    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How adapters are held beside its weights.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The formats of its matrices, the most frequent first.
    pub fn formats(&self) -> String {
        let mut counts: Vec<(Format, usize)> = Vec::new();
        let matrices = self.blocks.iter().flat_map(Block::matrices).chain([&*self.embedding, &*self.head.matrix]);
        for format in matrices.map(Matrix::format) {
            match counts.iter_mut().find(|(known, _)| *known == format) {
                Some((_, count)) => *count += 1,
                None => counts.push((format, 1)),
            }
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.iter().map(|(format, _)| format.to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// Bytes that a block of the key/value store takes over all layers.
    pub fn block_bytes(&self) -> usize {
        KvStore::block_bytes(&self.config, self.kv_type)
    }

    /// Makes an empty store of `blocks` blocks; what was stored is gone.
    pub fn reset_store(&mut self, blocks: usize) {
        // The old one goes first, so that two never exist at a time.
        self.store = KvStore::new(&self.config, 0, self.kv_type);
        self.store = KvStore::new(&self.config, blocks, self.kv_type);
    }

    /// Whether the calling thread computes without the others from now on.
    pub fn set_alone(&self, alone: bool) {
        self.team.set_alone(alone);
    }

    /// Fills `logits` with those of `pass.logit_rows`, row after row. Calls `after_block` after each layer, for whoever watches
    /// a long pass.
    pub fn forward(
        &mut self,
        pass: &CpuPass<'_>,
        after_block: &dyn Fn(),
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let heads = Heads::new(&self.config);
        let context = Context {
            pass,
            adapters: Group::all(pass.adapters, self.packing)?,
            machine: Machine { isa: self.isa, team: &self.team },
            rotary: Rotary::new(&self.config, pass.positions),
            plan: Plan::new(&heads, pass.sequences),
            heads,
            slots: KvStore::slots(pass.sequences),
            eps: self.config.rms_norm_eps as f32,
        };
        let buffers = &mut self.buffers;
        embed(&self.embedding, pass, &mut buffers.x)?;
        for block in &self.blocks {
            block.forward(&context, &mut self.store, buffers);
            after_block();
        }
        take(pass.logit_rows, &buffers.x, self.config.hidden_size, &mut buffers.wanted_x);
        normalise_rows(&context, &buffers.wanted_x, &self.norm, &[&self.head], &mut buffers.wanted);
        head::logits(context.machine, &self.head.matrix, pass.logit_rows, &buffers.wanted, logits);
        Ok(())
    }
}

/// Copies some rows.
fn take(rows: &[LogitRow<'_>], x: &[f32], width: usize, out: &mut Vec<f32>) {
    out.clear();
    rows.iter().for_each(|row| out.extend_from_slice(&x[row.row as usize * width..][..width]));
}

fn embed(embedding: &Matrix, pass: &CpuPass<'_>, x: &mut Vec<f32>) -> Result<(), ModelError> {
    let (width, vocab_size) = (embedding.inputs, embedding.outputs);
    x.resize(pass.tokens.len() * width, 0.0);
    for (row, &token) in x.chunks_exact_mut(width).zip(pass.tokens).filter(|(_, token)| (**token as usize) < vocab_size)
    {
        embedding.row_into(token as usize, row);
    }
    for Elsewhere { place, table, index } in prompt::virtual_rows(pass.tokens, vocab_size, pass.adapters)? {
        let values: Vec<f32> = table.get(index)?.to_dtype(DType::F32)?.to_vec1()?;
        x[place * width..][..width].copy_from_slice(&values);
    }
    Ok(())
}

impl Block {
    fn matrices(&self) -> impl Iterator<Item = &Matrix> + Clone {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down].into_iter().map(|linear| &*linear.matrix)
    }

    fn forward(&self, context: &Context<'_>, store: &mut KvStore, buffers: &mut Buffers) {
        let Buffers { x, qkv, normed, attended, gated, .. } = buffers;
        let (machine, adapters) = (context.machine, context.adapters.as_slice());
        let layers = [&self.q, &self.k, &self.v];
        normalise_rows(context, x, &self.input_norm, &layers, normed);
        let rows = context.pass.tokens.len();
        qkv.resize(rows * layers.iter().map(|layer| layer.matrix.outputs).sum::<usize>(), 0.0);
        Stage::new(machine, &layers, normed, adapters).run(qkv, Write::Set);
        self.rotate(context, qkv);
        self.attend(context, store, qkv, attended);
        attended.quantise([&*self.o.matrix], machine.team);
        Stage::new(machine, &[&self.o], attended, adapters).run(x, Write::Add(1.0));
        let layers = [&self.gate, &self.up];
        normalise_rows(context, x, &self.post_norm, &layers, normed);
        let inner = gated.reset(rows, self.gate.matrix.outputs);
        Stage::new(machine, &layers, normed, adapters).run_gated(inner);
        gated.quantise([&*self.down.matrix], machine.team);
        Stage::new(machine, &[&self.down], gated, adapters).run(x, Write::Add(1.0));
    }

    /// Normalises (Qwen 3) and rotates queries and keys in place.
    fn rotate(&self, context: &Context<'_>, qkv: &mut [f32]) {
        let (query, key) = (self.q.matrix.outputs, self.k.matrix.outputs);
        let (width, work) = (query + 2 * key, qkv.len() * 4);
        context.machine.team.each(work, Chunks::new(qkv, width), |index, row| {
            let (queries, rest) = row.split_at_mut(query);
            let keys = &mut rest[..key];
            let norms = self.qk_norm.as_ref().map(|[q, k]| [q.as_slice(), k.as_slice()]);
            vectorised(Turn { rotary: &context.rotary, index, heads: [queries, keys], norms, eps: context.eps });
        });
    }

    fn attend(&self, context: &Context<'_>, store: &mut KvStore, qkv: &[f32], out: &mut Inputs) {
        let (query, key) = (self.q.matrix.outputs, self.k.matrix.outputs);
        let width = query + 2 * key;
        let keys_and_values = |row: usize| qkv[row * width..][query..width].split_at(key);
        store.write(self.index, &context.slots, keys_and_values, context.machine.team);
        let attend = Attend {
            heads: context.heads,
            plan: &context.plan,
            sequences: context.pass.sequences,
            shape: store.shape,
            store: &store.layers[self.index],
            queries: qkv,
            stride: width,
        };
        attend.run(context.machine.isa, context.machine.team, out.reset(context.pass.tokens.len(), query));
    }
}

/// RMSNorm of every row, in the forms that `readers` take.
fn normalise_rows(context: &Context<'_>, x: &[f32], weight: &[f32], readers: &[&Linear], out: &mut Inputs) {
    let (width, eps) = (weight.len(), context.eps);
    let floats = out.reset(x.len() / width, width);
    context.machine.team.each(4 * x.len(), Chunks::new(floats, width), |row, y| {
        vectorised(Normalise { x: &x[row * width..(row + 1) * width], weight, eps, y });
    });
    out.quantise(readers.iter().map(|reader| &*reader.matrix), context.machine.team);
}

struct Normalise<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Loop for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        normalise(self.x, self.weight, self.eps, self.y);
    }
}

/// Queries and keys of one row.
struct Turn<'a> {
    rotary: &'a Rotary,
    index: usize,
    heads: [&'a mut [f32]; 2],
    norms: Option<[&'a [f32]; 2]>,
    eps: f32,
}

impl Loop for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (i, heads) in self.heads.into_iter().enumerate() {
            if let Some(norms) = self.norms {
                for head in heads.chunks_exact_mut(norms[i].len()) {
                    let plain = head.to_vec();
                    normalise(&plain, norms[i], self.eps, head);
                }
            }
            self.rotary.rotate(self.index, heads);
        }
    }
}

#[cfg(test)]
mod tests;
