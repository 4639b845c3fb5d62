use super::super::sequence::Progress;
use super::super::testing::{self, EvenGuide, VOCAB, greedy};
use super::super::{Event, FinishReason};
use super::*;
use proptest::prelude::*;
use tokio::sync::mpsc::UnboundedReceiver;

const BLOCK: usize = 4;

/// A scheduler with pretended forward passes: whoever is computed to its end gets a token.
struct Rig {
    scheduler: Scheduler,
    blocks: usize,
    /// For each arrival: its events, and how many tokens it must get if nobody cancels it.
    requests: Vec<(Option<UnboundedReceiver<Event>>, usize)>,
}

impl Rig {
    fn new(max_batch: usize, token_budget: usize, blocks: usize) -> Self {
        let limits = Limits { max_batch, token_budget, prefix_cache: true };
        Self { scheduler: Scheduler::new(limits, BlockPool::new(blocks, BLOCK)), blocks, requests: Vec::new() }
    }

    /// A request whose first token is its number; `guided` = with tokens forced after each sampled one.
    fn arrive(&mut self, prompt: usize, max_tokens: usize, guided: bool) {
        let capacity = self.blocks * BLOCK;
        let mut tokens = vec![0; prompt.clamp(1, capacity - 1)];
        tokens[0] = self.requests.len() as u32;
        let expected = max_tokens.min(capacity + 1 - tokens.len());
        let guide = guided.then(|| EvenGuide::new(&[], usize::MAX));
        let request = testing::request(&tokens, max_tokens, greedy());
        let (mut sequence, events) = testing::sequence(request, guide, capacity + 1);
        let progress = sequence.begin();
        sequence.deliver(progress);
        self.scheduler.push(sequence);
        self.requests.push((Some(events), expected));
    }

    /// One step; returns how many tokens were computed for which request.
    fn step(&mut self) -> Vec<(u32, usize)> {
        drop(self.scheduler.reap());
        self.scheduler.schedule();
        self.check();
        let granted = |sequence: &Sequence| (sequence.tokens()[0], sequence.scheduled);
        let granted = self.scheduler.running().iter().map(granted).filter(|(_, scheduled)| *scheduled > 0).collect();
        let outcomes: Vec<_> = self.scheduler.running_mut().iter_mut().map(advance).collect();
        self.scheduler.settle();
        for (sequence, outcome) in self.scheduler.running_mut().iter_mut().zip(outcomes) {
            if let Some(outcome) = outcome {
                sequence.deliver(outcome);
            }
        }
        granted
    }

    fn check(&self) {
        let scheduler = &self.scheduler;
        let computed: usize = scheduler.running.iter().map(|sequence| sequence.scheduled).sum();
        assert!(computed <= scheduler.limits.token_budget, "over the token budget");
        assert!(computed > 0 || scheduler.is_empty(), "a step without progress");
        assert!(scheduler.running.len() <= scheduler.limits.max_batch, "over the batch limit");
        let arrived: Vec<u32> = scheduler.running.iter().chain(&scheduler.waiting).map(|s| s.tokens()[0]).collect();
        assert!(arrived.is_sorted_by(|a, b| a < b), "out of order: {arrived:?}");
        self.check_blocks();
    }

    fn check_blocks(&self) {
        let scheduler = &self.scheduler;
        let mut held: Vec<u32> = scheduler.running.iter().flat_map(|sequence| sequence.blocks.clone()).collect();
        held.sort_unstable();
        let written = scheduler.running.iter().flat_map(|one| &one.blocks[one.computed() / BLOCK..]);
        for block in written {
            let holders = held.iter().filter(|held| *held == block).count();
            assert_eq!(holders, 1, "a block is written to that others hold");
        }
        held.dedup();
        assert_eq!(held.len(), scheduler.pool.used(), "blocks lost");
        assert_eq!(scheduler.pool.used() + scheduler.pool.available(), self.blocks);
        assert!(scheduler.waiting.iter().all(|sequence| sequence.blocks.is_empty()));
        for sequence in scheduler.running.iter().filter(|sequence| sequence.scheduled > 0) {
            assert!(sequence.blocks.len() * BLOCK >= sequence.computed() + sequence.scheduled, "no room to compute");
        }
    }

    fn run_to_the_end(&mut self) {
        for _ in 0..20_000 {
            if self.scheduler.is_empty() {
                return;
            }
            self.step();
            drop(self.scheduler.reap());
        }
        panic!("some sequence never ends");
    }

    /// Every request that was not cancelled got all its tokens.
    fn check_answers(&mut self) {
        assert_eq!(self.scheduler.pool.used(), 0);
        for (events, expected) in &mut self.requests {
            let Some(events) = events else { continue };
            let mut tokens = 0;
            let last = loop {
                match events.try_recv().unwrap() {
                    Event::Started { .. } => {}
                    Event::Tokens(new) => tokens += new.len(),
                    last => break last,
                }
            };
            assert!(matches!(last, Event::Finished(FinishReason::Length)));
            assert_eq!(tokens, *expected);
        }
    }
}

/// Advances a sequence whose last token is computed, by logits that depend on its length.
fn advance(sequence: &mut Sequence) -> Option<Result<Progress, EngineError>> {
    let mut logits: Vec<f32> = (0..VOCAB).map(|id| ((id * 7 + sequence.tokens().len()) % 13) as f32).collect();
    sequence.wants_logits().then(|| sequence.advance(&mut logits))
}

#[derive(Debug, Clone)]
enum Move {
    Arrive { prompt: usize, max_tokens: usize, guided: bool },
    Cancel(usize),
    Steps(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let arrive = (1usize..40, 0usize..30, any::<bool>()).prop_map(|(prompt, max_tokens, guided)| Move::Arrive {
        prompt,
        max_tokens,
        guided,
    });
    let one =
        prop_oneof![5 => arrive, 1 => (0usize..40).prop_map(Move::Cancel), 5 => (1usize..9).prop_map(Move::Steps)];
    prop::collection::vec(one, 1..50)
}

proptest! {
    #[test]
    fn every_sequence_ends_within_the_limits(
        max_batch in 1usize..6,
        token_budget in 1usize..24,
        blocks in 2usize..12,
        moves in moves(),
    ) {
        let mut rig = Rig::new(max_batch, token_budget, blocks);
        for one in moves {
            match one {
                Move::Arrive { prompt, max_tokens, guided } => rig.arrive(prompt, max_tokens, guided),
                Move::Cancel(number) => {
                    let _ = rig.requests.get_mut(number).and_then(|(events, _)| events.take());
                }
                Move::Steps(count) => (0..count).for_each(|_| drop(rig.step())),
            }
        }
        rig.run_to_the_end();
        rig.check_answers();
    }
}

#[test]
fn decoding_sequences_never_stall_behind_prompts() {
    let mut rig = Rig::new(4, 8, 100);
    rig.arrive(2, 50, false);
    rig.arrive(2, 50, false);
    rig.step();
    rig.arrive(100, 5, false);
    for _ in 0..10 {
        assert_eq!(rig.step(), [(0, 1), (1, 1), (2, 6)]);
    }
}

#[test]
fn a_prompt_is_computed_in_chunks_and_the_next_one_fills_the_rest() {
    let mut rig = Rig::new(4, 8, 100);
    rig.arrive(10, 5, false);
    rig.arrive(10, 5, false);
    assert_eq!(rig.step(), [(0, 8)]);
    assert_eq!(rig.step(), [(0, 2), (1, 6)]);
    assert_eq!(rig.step(), [(0, 1), (1, 4)]);
    assert_eq!(rig.step(), [(0, 1), (1, 1)]);
}

#[test]
fn decoding_sequences_take_turns_when_the_budget_is_short() {
    let mut rig = Rig::new(3, 3, 100);
    (0..3).for_each(|_| rig.arrive(1, 50, false));
    rig.step();
    rig.scheduler.limits.token_budget = 1;
    let served: Vec<u32> = (0..6).map(|_| rig.step()[0].0).collect();
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn the_youngest_gives_way_when_the_blocks_run_out() {
    let mut rig = Rig::new(4, 64, 4);
    rig.arrive(4, 9, false);
    rig.arrive(3, 9, false);
    let steps: Vec<_> = (0..7).map(|_| rig.step()).collect();
    assert!(rig.scheduler.preemptions() > 0);
    assert!(steps.iter().all(|granted| granted[0].0 == 0), "the oldest was disturbed");
    rig.run_to_the_end();
    rig.check_answers();
}

#[test]
fn a_failed_step_fails_its_sequences_and_spares_the_rest() {
    let mut rig = Rig::new(3, 3, 100);
    (0..3).for_each(|_| rig.arrive(1, 9, false));
    rig.step();
    rig.scheduler.limits.token_budget = 2;
    rig.scheduler.schedule();
    rig.scheduler.abandon_step(&EngineError::Internal("broken".to_owned()));
    assert_eq!((rig.scheduler.pool.used(), rig.scheduler.reap().len()), (0, 2));
    for (events, _) in &mut rig.requests[..2] {
        let mut events = events.take().unwrap();
        assert!(matches!(events.try_recv(), Ok(Event::Started { .. })));
        assert!(matches!(events.try_recv(), Ok(Event::Tokens(_))));
        assert!(matches!(events.try_recv(), Ok(Event::Failed(EngineError::Internal(_)))));
    }
    rig.run_to_the_end();
    rig.check_answers();
}

#[test]
fn a_request_that_waits_and_is_cancelled_goes_away() {
    let mut rig = Rig::new(1, 8, 100);
    rig.arrive(4, 50, false);
    rig.arrive(4, 50, false);
    rig.step();
    rig.requests[1].0 = None;
    assert_eq!(rig.scheduler.reap().len(), 1);
    assert!(rig.scheduler.waiting.is_empty());
}

#[test]
fn a_long_prompt_comes_in_small_pieces_beside_an_answer() {
    let mut rig = Rig::new(4, 512, 100);
    rig.arrive(4, 4, false);
    assert_eq!([rig.step(), rig.step()], [[(0, 4)], [(0, 1)]]);
    let millis = Duration::from_millis;
    rig.scheduler.observe(Load { answers: 1, prompts: 0 }, millis(20));
    rig.arrive(300, 2, false);
    assert_eq!(rig.step(), [(0, 1), (1, 16)]);
    rig.scheduler.observe(Load { answers: 1, prompts: 16 }, millis(20 + 20));
    assert_eq!(rig.step(), [(0, 1), (1, 14)]);
    assert_eq!(rig.step(), [(1, 270)], "nobody waits any more");
}
