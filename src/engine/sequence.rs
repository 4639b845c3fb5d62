//! One generation: its tokens, how far they are computed and known to the cache, and how the next ones are chosen.
//!
//! Knows no tensors and no other sequence. Dropping a sequence gives back its place, its adapter lease and then tells the
//! requester the last event, so whoever sees that event finds everything released.

use super::blocks::{BlockPool, Namespace, Prefix};
use super::sampler::Sampler;
use super::shared::Slot;
use super::{EngineError, Event, FinishReason, GenerateRequest, TokenEvent, TokenLogprobs};
use crate::adapter::registry::Lease;
use crate::grammar::{Constraint, GrammarError};
use crate::model::prompt::virtual_tokens;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Longest time of one mask.
const SLOWEST_MASK: Duration = Duration::from_secs(2);
/// Longest time of all masks of one answer.
const ALL_MASKS: Duration = Duration::from_secs(20);

/// What steers a sequence: which tokens may come next and which must.
pub(super) trait Guide: Send {
    /// Finds out which tokens may come next.
    fn prepare(&mut self) -> Result<(), GrammarError>;

    /// The tokens that may come next, a bit for each, once that is found out.
    fn allowed(&self) -> Option<&[u32]>;

    /// Writes −∞ into the logits of forbidden tokens.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError>;

    /// Advances by a sampled token.
    fn commit(&mut self, token: u32) -> Result<(), GrammarError>;

    /// What must come next.
    fn forced(&mut self) -> Result<Forced, GrammarError>;
}

/// Tokens without an alternative, already committed, and whether the turn is complete after them.
pub(super) struct Forced {
    pub(super) tokens: Vec<u32>,
    pub(super) complete: bool,
}

impl Guide for Constraint {
    fn prepare(&mut self) -> Result<(), GrammarError> {
        self.prepare_mask().map(drop)
    }

    fn allowed(&self) -> Option<&[u32]> {
        self.prepared_mask()
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        self.apply_mask(logits)
    }

    fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        Self::commit(self, token)
    }

    fn forced(&mut self) -> Result<Forced, GrammarError> {
        let tokens = self.take_forced()?;
        Ok(Forced { tokens, complete: self.is_finished() })
    }
}

/// What a step brought for one sequence.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) tokens: Vec<TokenEvent>,
    pub(super) finish: Option<FinishReason>,
    /// What the mask took, where there was one.
    pub(super) masked: Option<Duration>,
}

/// What the engine decides about a request when it lets it in.
pub(super) struct Seat {
    /// The request's place in the engine, held until the sequence ends.
    pub(super) _slot: Slot,
    /// Most tokens that prompt and answer may have together.
    pub(super) max_len: usize,
    /// Token ids are below this.
    pub(super) vocab_size: usize,
    /// The seed, if the request names none.
    pub(super) seed: u64,
    /// See [`super::EngineOptions::bounded_masks`].
    pub(super) bounded_masks: bool,
}

/// One generation.
pub(super) struct Sequence {
    tokens: Vec<u32>,
    /// Virtual tokens of the adapter, at the beginning.
    virtual_len: usize,
    /// All before the answer, these included.
    prompt_len: usize,
    /// Tokens that are computed as a prompt: what was there at the (last) admission.
    prefill_len: usize,
    /// Tokens whose keys and values are in the cache.
    computed: usize,
    /// Tokens to compute in the present step.
    pub(super) scheduled: usize,
    /// The last step that computed something for it.
    pub(super) served: u64,
    pub(super) blocks: Vec<u32>,
    /// Who may share its blocks.
    namespace: Arc<Namespace>,
    /// What its known blocks are, and how many they are.
    prefix: Prefix,
    known: usize,
    sampler: Sampler,
    /// What the next token's mask took, and what all of them did.
    masked: Option<Duration>,
    mask_time: Duration,
    stop_token_ids: Vec<u32>,
    guide: Option<Box<dyn Guide>>,
    lease: Option<Lease>,
    // The order of the fields matters from here: the place is given back before the last event is sent.
    seat: Seat,
    outbox: Outbox,
}

impl Sequence {
    /// A sequence and the receiver of its events. The guide takes the place of `request.constraint`.
    pub(super) fn new(
        mut request: GenerateRequest,
        guide: Option<Box<dyn Guide>>,
        mut seat: Seat,
    ) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, events) = mpsc::unbounded_channel();
        let virtual_len = request.adapter.as_ref().map_or(0, |lease| lease.weights.virtual_tokens());
        let prompt_len = virtual_len + request.prompt.len();
        seat.max_len = seat.max_len.min(prompt_len.saturating_add(request.max_tokens));
        if request.params.ignore_eos {
            let never = request.stop_token_ids.drain(..).map(|id| (id, f32::NEG_INFINITY));
            request.params.logit_bias.extend(never);
        }
        let adapter = request.adapter.as_ref().map(|lease| lease.id.clone());
        let namespace = Arc::new(Namespace { adapter, tenant: request.tenant });
        let sequence = Self {
            virtual_len,
            prompt_len,
            prefill_len: prompt_len,
            computed: 0,
            scheduled: 0,
            served: 0,
            blocks: Vec::new(),
            prefix: Prefix::Start(Arc::clone(&namespace)),
            namespace,
            known: 0,
            masked: None,
            mask_time: Duration::ZERO,
            sampler: Sampler::new(request.params, seat.seed, &request.prompt),
            tokens: virtual_tokens(seat.vocab_size, virtual_len).chain(request.prompt).collect(),
            stop_token_ids: request.stop_token_ids,
            guide,
            lease: request.adapter,
            seat,
            outbox: Outbox { sender, held: Some(Vec::new()), last: None },
        };
        (sequence, events)
    }

    /// Takes what the grammar forces right after the prompt.
    pub(super) fn begin(&mut self) -> Result<Progress, EngineError> {
        let mut tokens = Vec::new();
        let finish = self.force(&mut tokens)?;
        self.prefill_len = self.tokens.len();
        Ok(Progress { tokens, finish, masked: None })
    }

    /// Finds out which tokens may come next, so that no logits of other ones need to be computed.
    pub(super) fn prepare(&mut self) -> Result<(), EngineError> {
        let Some(guide) = &mut self.guide else { return Ok(()) };
        let started = Instant::now();
        guide.prepare().map_err(|error| invalid(&error))?;
        let took = started.elapsed();
        self.masked = Some(took);
        self.check_masks(took)
    }

    /// The tokens that may come next, a bit for each, if they are known; otherwise any.
    pub(super) fn allowed(&self) -> Option<&[u32]> {
        self.guide.as_ref()?.allowed()
    }

    /// Chooses the next token from its row of logits, and takes what the grammar forces after it.
    pub(super) fn advance(&mut self, logits: &mut [f32]) -> Result<Progress, EngineError> {
        // What is forbidden comes first: it may be there or not, and be broken or not.
        if let Some(guide) = &mut self.guide {
            guide.mask(logits).map_err(|error| invalid(&error))?;
        }
        self.sampler.prepare(logits).map_err(|error| invalid(&error))?;
        let masked = self.masked.take();
        let index = self.tokens.len() - self.prompt_len;
        let choice = self.sampler.choose(logits, index as u64).map_err(|error| invalid(&error))?;
        if self.stop_token_ids.contains(&choice.token) {
            return Ok(Progress { tokens: Vec::new(), finish: Some(FinishReason::Stop), masked });
        }
        if let Some(guide) = &mut self.guide {
            guide.commit(choice.token).map_err(|error| invalid(&error))?;
        }
        let mut tokens = vec![self.push(choice.token, false, choice.logprobs)];
        let finish = self.force(&mut tokens)?;
        Ok(Progress { tokens, finish, masked })
    }

    /// The batch waits for every mask: a grammar that takes too long for its own answer takes it from others.
    fn check_masks(&mut self, took: Duration) -> Result<(), EngineError> {
        self.mask_time += took;
        if self.seat.bounded_masks && (took > SLOWEST_MASK || self.mask_time > ALL_MASKS) {
            return Err(invalid(&"the grammar takes too long"));
        }
        Ok(())
    }

    /// Appends forced tokens as far as there is room; says whether the generation ends with them.
    fn force(&mut self, report: &mut Vec<TokenEvent>) -> Result<Option<FinishReason>, EngineError> {
        let forced = match &mut self.guide {
            Some(guide) => guide.forced().map_err(|error| invalid(&error))?,
            None => Forced { tokens: Vec::new(), complete: false },
        };
        for token in forced.tokens {
            if self.stop_token_ids.contains(&token) {
                return Ok(Some(FinishReason::Stop));
            }
            if self.tokens.len() >= self.seat.max_len {
                return Ok(Some(FinishReason::Length));
            }
            if token as usize >= self.seat.vocab_size {
                return Err(invalid(&format_args!("the grammar forces token {token}, which the model does not have")));
            }
            let logprobs = self.sampler.forced_logprobs(token);
            report.push(self.push(token, true, logprobs));
        }
        let full = self.tokens.len() >= self.seat.max_len;
        Ok(if forced.complete { Some(FinishReason::Stop) } else { full.then_some(FinishReason::Length) })
    }

    fn push(&mut self, id: u32, forced: bool, logprobs: Option<TokenLogprobs>) -> TokenEvent {
        self.tokens.push(id);
        self.sampler.record(id);
        TokenEvent { id, forced, logprobs }
    }

    /// Sends what a step brought; a finish or a failure is kept for the end.
    pub(super) fn deliver(&mut self, outcome: Result<Progress, EngineError>) {
        match outcome {
            Ok(progress) => {
                if !progress.tokens.is_empty() {
                    self.outbox.send(Event::Tokens(progress.tokens));
                }
                self.outbox.last = progress.finish.map(Event::Finished);
            }
            Err(error) => self.fail(error),
        }
    }

    /// Takes the blocks that hold the beginning of its tokens already, if any do.
    pub(super) fn adopt_known(&mut self, pool: &mut BlockPool) {
        pool.adopt(&mut self.prefix, &self.tokens, &mut self.blocks);
        self.known = self.blocks.len();
        self.computed = self.known * pool.block_size();
    }

    /// Makes its full blocks known.
    pub(super) fn publish(&mut self, pool: &mut BlockPool) {
        let size = pool.block_size();
        while (self.known + 1) * size <= self.computed {
            let tokens = &self.tokens[self.known * size..(self.known + 1) * size];
            pool.publish(&mut self.prefix, self.blocks[self.known], tokens);
            self.known += 1;
        }
    }

    /// It leaves the queue (again): what the grammar forced before that can be told now. Prompt tokens that need not be
    /// computed, and those that there are; nothing if it was told before.
    pub(super) fn start(&mut self) -> (usize, usize) {
        if self.outbox.held.is_none() {
            return (0, 0);
        }
        let cached_tokens = self.computed.min(self.prompt_len).saturating_sub(self.virtual_len);
        let _ = self.outbox.sender.send(Event::Started { cached_tokens });
        self.outbox.release();
        (cached_tokens, self.prompt_len())
    }

    pub(super) fn fail(&mut self, error: EngineError) {
        self.outbox.last = Some(Event::Failed(error));
    }

    /// Finished, failed, or nobody listens any more.
    pub(super) fn is_over(&self) -> bool {
        self.outbox.last.is_some() || self.outbox.sender.is_closed()
    }

    /// Counts the present step's tokens as computed.
    pub(super) fn settle(&mut self) {
        self.computed += std::mem::take(&mut self.scheduled);
    }

    /// Forgets all that is computed; the caller takes the blocks.
    pub(super) fn rewind(&mut self) {
        (self.computed, self.known) = (0, 0);
        self.prefix = Prefix::Start(Arc::clone(&self.namespace));
        self.scheduled = 0;
        self.prefill_len = self.tokens.len();
    }

    /// Prompt and everything generated.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of the prompt as it was given.
    pub(super) fn prompt_len(&self) -> usize {
        self.prompt_len - self.virtual_len
    }

    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens that are not computed yet.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Still at its prompt (or, after a preemption, at what it had).
    pub(super) fn is_prefilling(&self) -> bool {
        self.computed < self.prefill_len
    }

    /// The present step computes its last token, so its logits are wanted.
    pub(super) fn wants_logits(&self) -> bool {
        self.scheduled > 0 && self.scheduled == self.pending()
    }

    /// A grammar says what may come.
    pub(super) fn is_guided(&self) -> bool {
        self.guide.is_some()
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }
}

fn invalid(cause: &dyn std::fmt::Display) -> EngineError {
    EngineError::InvalidOutput(cause.to_string())
}

/// The way back to the requester; always ends with one last event.
struct Outbox {
    sender: mpsc::UnboundedSender<Event>,
    /// Events from before the start; `None` after it.
    held: Option<Vec<Event>>,
    last: Option<Event>,
}

impl Outbox {
    /// A closed channel is noticed by [`Sequence::is_over`].
    fn send(&mut self, event: Event) {
        match &mut self.held {
            Some(held) => held.push(event),
            None => drop(self.sender.send(event)),
        }
    }

    fn release(&mut self) {
        for event in self.held.take().unwrap_or_default() {
            let _ = self.sender.send(event);
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.release();
        let stopped = || Event::Failed(EngineError::Internal("the engine has stopped".to_owned()));
        // Nobody may be listening any more.
        let _ = self.sender.send(self.last.take().unwrap_or_else(stopped));
    }
}

#[cfg(test)]
mod tests;
