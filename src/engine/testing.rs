//! A small deterministic model, a small grammar and sequences, for the engine's tests.

use super::batch::Batch;
use super::runner::{Runner, Shape};
use super::sequence::{Forced, Guide, Seat, Sequence};
use super::shared::{Shared, Slot};
use super::{EngineOptions, Event, GenerateRequest, SamplingParams};
use crate::adapter::registry::{Generation, Lease};
use crate::grammar::GrammarError;
use crate::model::{AdapterWeights, ModelError, PagedSequence};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

pub(super) const VOCAB: usize = 64;
/// Ids from here on are never likely; the model reacts to some of them in its context.
pub(super) const UNLIKELY: u32 = 60;
/// The model's logits are NaN after it has seen this token.
pub(super) const NAN: u32 = 60;
/// The model panics while it computes this token.
pub(super) const PANIC: u32 = 61;
/// The model fails while it computes this token.
pub(super) const FAIL: u32 = 62;

/// A model whose logits are a hash of the whole context, which it reads back from its block cache: a wrong block table,
/// position or count gives other tokens.
pub(super) struct ToyRunner {
    shape: Shape,
    /// The token at each position of each block; `u32::MAX` = nothing.
    cache: Vec<u32>,
    /// Each pass waits for one permit, showing life, until the sender is dropped.
    gate: Option<Receiver<()>>,
}

impl ToyRunner {
    pub(super) fn new(blocks: usize, context_len: usize) -> Self {
        let block_size = 4;
        let shape = Shape { vocab_size: VOCAB, context_len, blocks, block_size };
        Self { shape, cache: vec![u32::MAX; blocks * block_size], gate: None }
    }

    pub(super) fn gated(mut self, gate: Receiver<()>) -> Self {
        self.gate = Some(gate);
        self
    }

    fn slot(&self, blocks: &[u32], position: usize) -> usize {
        blocks[position / self.shape.block_size] as usize * self.shape.block_size + position % self.shape.block_size
    }

    fn write(&mut self, part: &PagedSequence<'_>, tokens: &[u32], positions: &[u32]) {
        for (i, (&token, &position)) in tokens.iter().zip(positions).enumerate() {
            assert_eq!(position as usize, part.cached + i);
            let slot = self.slot(part.blocks, position as usize);
            self.cache[slot] = token;
        }
    }

    fn context(&self, part: &PagedSequence<'_>) -> Vec<u32> {
        (0..part.cached + part.new).map(|position| self.cache[self.slot(part.blocks, position)]).collect()
    }
}

impl Runner for ToyRunner {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn forward(&mut self, batch: &Batch<'_>, beat: &dyn Fn(), logits: &mut Vec<f32>) -> Result<(), ModelError> {
        if let Some(gate) = &self.gate {
            while gate.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                beat();
            }
        }
        assert!(!batch.tokens.contains(&PANIC), "a token that the model cannot stand");
        if batch.tokens.contains(&FAIL) {
            return Err(ModelError::Config("a token that the model refuses".to_owned()));
        }
        let mut row = 0;
        logits.clear();
        for part in &batch.sequences {
            let rows = row..row + part.new;
            self.write(part, &batch.tokens[rows.clone()], &batch.positions[rows.clone()]);
            row = rows.end;
            if let Some(wanted) = batch.logit_rows.iter().find(|wanted| wanted.row as usize == row - 1) {
                let logits_of_all = toy_logits(&self.context(part));
                logits.extend(logits_of_all.into_iter().enumerate().map(|(id, logit)| match wanted.wanted {
                    Some(bits) if bits[id / 32] >> (id % 32) & 1 == 0 => f32::NEG_INFINITY,
                    _ => logit,
                }));
            }
        }
        assert_eq!(row, batch.tokens.len());
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ModelError> {
        self.cache.fill(u32::MAX);
        Ok(())
    }
}

/// The model itself: context → logits.
pub(super) fn toy_logits(context: &[u32]) -> Vec<f32> {
    let hash = |seed: u64, value: u32| (seed ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let state = context.iter().fold(1, |state, &token| hash(state, token));
    let logit = |id: u32| match id {
        _ if context.contains(&NAN) => f32::NAN,
        UNLIKELY.. => f32::NEG_INFINITY,
        _ => (hash(hash(state, id), 7) % 4096) as f32 / 512.0 - 4.0,
    };
    (0..VOCAB as u32).map(logit).collect()
}

/// Allows even tokens only, forces up to three odd ones after each, and ends after some sampled tokens.
pub(super) struct EvenGuide {
    /// Forced before anything is sampled.
    pub(super) prefix: Vec<u32>,
    /// Sampled tokens until the turn is complete.
    pub(super) left: usize,
    /// Sampled tokens until it breaks.
    pub(super) breaks_after: Option<usize>,
    /// How it breaks: by a panic or an error.
    pub(super) panics: bool,
}

impl EvenGuide {
    pub(super) fn new(prefix: &[u32], left: usize) -> Self {
        Self { prefix: prefix.to_vec(), left, breaks_after: None, panics: false }
    }

    pub(super) fn breaking(after: usize, panics: bool) -> Self {
        Self { prefix: Vec::new(), left: usize::MAX, breaks_after: Some(after), panics }
    }
}

impl Guide for EvenGuide {
    fn prepare(&mut self) -> Result<(), GrammarError> {
        Ok(())
    }

    fn allowed(&self) -> Option<&[u32]> {
        Some(&[0x5555_5555; VOCAB / 32])
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        logits.iter_mut().skip(1).step_by(2).for_each(|logit| *logit = f32::NEG_INFINITY);
        Ok(())
    }

    fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        assert_eq!(token % 2, 0, "a masked token was sampled");
        if let Some(left) = &mut self.breaks_after {
            assert!(!(self.panics && *left == 0), "the grammar panics");
            *left = left.checked_sub(1).ok_or_else(|| GrammarError::Internal("the grammar breaks".to_owned()))?;
        }
        self.left -= 1;
        self.prefix = (0..token % 4).map(|i| (token + 2 * i + 1) % UNLIKELY).collect();
        Ok(())
    }

    fn forced(&mut self) -> Result<Forced, GrammarError> {
        Ok(Forced { tokens: std::mem::take(&mut self.prefix), complete: self.left == 0 })
    }
}

pub(super) fn options(max_batch: usize, token_budget: usize) -> EngineOptions {
    EngineOptions { max_batch, token_budget, kv_cache_bytes: 0, max_queue: 64, prefix_cache: true, bounded_masks: true }
}

pub(super) fn request(prompt: &[u32], max_tokens: usize, params: SamplingParams) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.to_vec(),
        params,
        max_tokens,
        stop_token_ids: Vec::new(),
        constraint: None,
        adapter: None,
        tenant: None,
    }
}

pub(super) fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

pub(super) fn seeded(seed: u64) -> SamplingParams {
    SamplingParams { seed: Some(seed), ..SamplingParams::default() }
}

/// A seat in an engine without bounds of its own.
pub(super) fn seat(max_len: usize) -> Seat {
    let shape = Shape { vocab_size: VOCAB, context_len: max_len, blocks: 1, block_size: 1 };
    let shared = Arc::new(Shared::new(shape, &options(1, 1)));
    Seat { _slot: Slot::take(&shared).unwrap(), max_len, vocab_size: VOCAB, seed: 1, bounded_masks: true }
}

pub(super) fn sequence(
    request: GenerateRequest,
    guide: Option<EvenGuide>,
    max_len: usize,
) -> (Sequence, UnboundedReceiver<Event>) {
    let guide = guide.map(|guide| Box::new(guide) as Box<dyn Guide>);
    Sequence::new(request, guide, seat(max_len))
}

/// A sequence of which the next step computes `scheduled` tokens.
pub(super) fn scheduled(prompt: &[u32], scheduled: usize, lease: Option<&Lease>) -> Sequence {
    let mut request = request(prompt, 8, greedy());
    request.adapter = lease.cloned();
    let (mut sequence, _) = sequence(request, None, 100);
    sequence.scheduled = scheduled;
    sequence
}

pub(super) fn lease(name: &str) -> Lease {
    Arc::new(Generation {
        name: name.to_owned(),
        id: format!("id of {name}"),
        rank: 1,
        bytes: 0,
        path: name.into(),
        chat_template: None,
        created: 0,
        weights: Arc::new(AdapterWeights::empty(1)),
    })
}

/// An adapter with so many virtual tokens. The toy model takes their ids as they are.
pub(super) fn prompted_lease(name: &str, virtual_tokens: usize) -> Lease {
    let prompt = Tensor::zeros((virtual_tokens, 1), DType::F32, &Device::Cpu).unwrap();
    let weights = Arc::new(AdapterWeights::empty(1).with_prompt(prompt));
    let id = format!("id of {name}");
    let (name, path) = (name.to_owned(), name.into());
    Arc::new(Generation { name, id, rank: 0, bytes: 0, path, chat_template: None, created: 0, weights })
}
