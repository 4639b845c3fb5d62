//! Behaviour of the whole engine over a small deterministic model.

mod soft_prompts;

use super::sampler::Sampler;
use super::testing::*;
use super::*;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

type Events = UnboundedReceiver<Event>;

/// The tokens of a request and how it ended.
#[derive(Debug)]
struct Answer {
    tokens: Vec<u32>,
    forced: usize,
    last: Event,
}

impl Answer {
    fn collect(mut events: Events) -> Self {
        let mut answer = Self { tokens: Vec::new(), forced: 0, last: Event::Tokens(Vec::new()) };
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Tokens(tokens) => {
                    answer.forced += tokens.iter().filter(|token| token.forced).count();
                    answer.tokens.extend(tokens.iter().map(|token| token.id));
                }
                Event::Started { .. } => {}
                last => answer.last = last,
            }
        }
        answer
    }

    fn finish(&self) -> Option<FinishReason> {
        match self.last {
            Event::Finished(reason) => Some(reason),
            _ => None,
        }
    }

    fn is_invalid_output(&self) -> bool {
        matches!(self.last, Event::Failed(EngineError::InvalidOutput(_)))
    }

    fn is_internal(&self) -> bool {
        matches!(self.last, Event::Failed(EngineError::Internal(_)))
    }
}

fn engine(blocks: usize, options: EngineOptions) -> EngineHandle {
    EngineHandle::start_with(ToyRunner::new(blocks, 200), options).unwrap()
}

/// An engine whose passes wait for permits until the sender is dropped.
fn gated(blocks: usize, options: EngineOptions) -> (EngineHandle, Sender<()>) {
    let (permits, gate) = channel();
    (EngineHandle::start_with(ToyRunner::new(blocks, 200).gated(gate), options).unwrap(), permits)
}

fn submit(engine: &EngineHandle, request: GenerateRequest) -> Events {
    engine.submit(request).unwrap()
}

fn submit_guided(engine: &EngineHandle, request: GenerateRequest, guide: EvenGuide) -> Events {
    engine.enqueue(request, Some(Box::new(guide))).unwrap()
}

fn prompt(number: usize) -> Vec<u32> {
    (0..3 + 5 * number as u32).map(|i| (i * 11 + number as u32) % UNLIKELY).collect()
}

/// A motley of requests: greedy and seeded, with and without penalties, filters and a grammar.
fn submit_one(engine: &EngineHandle, number: usize) -> Events {
    let params = match number % 4 {
        0 => greedy(),
        1 => seeded(number as u64),
        2 => SamplingParams { top_k: 9, top_p: 0.8, min_p: 0.01, temperature: 1.5, ..seeded(3) },
        _ => SamplingParams { repetition_penalty: 1.3, frequency_penalty: 0.4, presence_penalty: 0.2, ..seeded(4) },
    };
    let request = request(&prompt(number), 12 + number, params);
    match number % 3 {
        0 => submit_guided(engine, request, EvenGuide::new(&[1, 3], 6)),
        _ => submit(engine, request),
    }
}

fn answers(engine: &EngineHandle, count: usize) -> Vec<Vec<u32>> {
    let events: Vec<_> = (0..count).map(|number| submit_one(engine, number)).collect();
    let answers = events.into_iter().map(|events| {
        let answer = Answer::collect(events);
        assert!(answer.finish().is_some(), "{:?}", answer.last);
        answer.tokens
    });
    answers.collect()
}

/// Each request by itself, in an engine with room for everything.
fn solo_answers(count: usize) -> Vec<Vec<u32>> {
    let engine = engine(100, options(1, 1000));
    let answers = (0..count).map(|number| Answer::collect(submit_one(&engine, number)).tokens);
    answers.collect()
}

#[test]
fn greedy_answers_are_the_models_own() {
    let mut tokens = prompt(2);
    for _ in 0..20 {
        let next = Sampler::new(greedy(), 0, &[]).choose(&toy_logits(&tokens), 0).unwrap().token;
        tokens.push(next);
    }
    let answer = Answer::collect(submit(&engine(50, options(4, 64)), request(&prompt(2), 20, greedy())));
    assert_eq!(answer.tokens, tokens[prompt(2).len()..]);
    assert_eq!(answer.finish(), Some(FinishReason::Length));
}

#[test]
fn a_batch_gives_each_request_the_tokens_of_its_solo_run() {
    let engine = engine(200, options(8, 64));
    assert_eq!(answers(&engine, 10), solo_answers(10));
    assert_eq!(engine.stats().preemptions, 0);
}

#[test]
fn any_token_budget_gives_the_same_tokens() {
    let expected = solo_answers(4);
    for token_budget in 1..=64 {
        assert_eq!(answers(&engine(60, options(4, token_budget)), 4), expected, "with a budget of {token_budget}");
    }
}

#[test]
fn preemption_changes_no_token() {
    let engine = engine(14, options(6, 32));
    assert_eq!(answers(&engine, 6), solo_answers(6));
    assert!(engine.stats().preemptions > 0);
}

#[test]
fn forced_tokens_come_without_a_step_of_their_own() {
    let engine = engine(50, options(1, 64));
    let answer = Answer::collect(submit_guided(&engine, request(&[1, 2], 100, greedy()), EvenGuide::new(&[5, 7], 10)));
    assert_eq!(answer.finish(), Some(FinishReason::Stop));
    assert_eq!(answer.tokens[..2], [5, 7]);
    let sampled = answer.tokens.len() - answer.forced;
    assert_eq!((sampled, engine.stats().steps), (10, 10));
    assert!(answer.forced > 4);
    assert_eq!(engine.stats().forced_tokens, answer.forced as u64);
    assert_eq!(engine.stats().generated_tokens, answer.tokens.len() as u64);
    assert_eq!(engine.stats().prompt_tokens, 2);
}

#[test]
fn what_prompts_have_in_common_is_computed_once() {
    let engine = engine(50, options(2, 64));
    let prompt: Vec<u32> = (0..21).collect();
    let cached = |tokens: &[u32]| {
        let mut events = submit(&engine, request(tokens, 3, greedy()));
        let Some(Event::Started { cached_tokens }) = events.blocking_recv() else { panic!("it did not start") };
        (cached_tokens, Answer::collect(events).tokens)
    };
    let (first, tokens) = cached(&prompt);
    assert_eq!((first, cached(&prompt)), (0, (20, tokens.clone())));
    // The answer is known too, and a part of a block is not.
    let longer = [prompt.as_slice(), &tokens].concat();
    assert_eq!((cached(&longer).0, cached(&prompt[..18]).0), (20, 16));
    assert_eq!((engine.stats().prefix_queries, engine.stats().prefix_hits), (21 + 21 + 24 + 18, 20 + 20 + 16));
    assert_eq!(engine.stats().blocks_used, 0);
}

#[test]
fn a_stop_token_ends_the_answer() {
    let engine = engine(50, options(1, 64));
    let whole = Answer::collect(submit(&engine, request(&[1, 2], 20, greedy()))).tokens;
    let mut request = request(&[1, 2], 20, greedy());
    request.stop_token_ids = vec![whole[7]];
    let answer = Answer::collect(submit(&engine, request));
    let end = whole.iter().position(|token| *token == whole[7]).unwrap();
    assert_eq!((answer.tokens.as_slice(), answer.finish()), (&whole[..end], Some(FinishReason::Stop)));
}

#[test]
fn the_context_and_the_cache_bound_an_answer() {
    let answer = Answer::collect(submit(&engine(100, options(1, 64)), request(&[1; 190], 1000, greedy())));
    assert_eq!((answer.tokens.len(), answer.finish()), (10, Some(FinishReason::Length)));
    // Five blocks of four positions; the last token is never computed.
    let answer = Answer::collect(submit(&engine(5, options(1, 64)), request(&[1; 10], 1000, greedy())));
    assert_eq!((answer.tokens.len(), answer.finish()), (11, Some(FinishReason::Length)));
}

#[test]
fn what_can_never_run_is_refused() {
    let engine = engine(5, options(1, 64));
    let refused = |prompt: &[u32]| engine.submit(request(prompt, 5, greedy())).err();
    assert!(matches!(refused(&[1; 200]), Some(EngineError::ContextExceeded { prompt: 200, context: 200 })));
    assert!(matches!(refused(&[1; 20]), Some(EngineError::CacheTooSmall { needed: 6, total: 5 })));
    assert!(refused(&[1; 19]).is_none());
    assert!(matches!(refused(&[]), Some(EngineError::Internal(cause)) if cause.contains("empty")));
    assert!(matches!(refused(&[1, 64]), Some(EngineError::Internal(cause)) if cause.contains("token 64")));
}

#[test]
fn a_dropped_receiver_frees_blocks_and_place() {
    let (engine, permits) = gated(100, EngineOptions { max_queue: 1, ..options(2, 64) });
    let leased = lease("a");
    let mut long = request(&[1; 50], 140, greedy());
    long.adapter = Some(leased.clone());
    let mut running = submit(&engine, long);
    let other = submit(&engine, request(&[2; 9], 30, greedy()));
    let waiting = submit(&engine, request(&[3; 9], 140, greedy()));
    permits.send(()).unwrap();
    assert!(matches!(running.blocking_recv(), Some(Event::Started { .. })));
    assert!(matches!(running.blocking_recv(), Some(Event::Tokens(_))));
    drop((running, waiting, permits));
    let answer = Answer::collect(other);
    assert_eq!((answer.tokens.len(), answer.finish()), (30, Some(FinishReason::Length)));
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0));
    assert_eq!(std::sync::Arc::strong_count(&leased), 1);
}

#[test]
fn a_full_queue_refuses() {
    let (engine, permits) = gated(100, EngineOptions { max_queue: 2, ..options(1, 64) });
    let accepted: Vec<_> = (0..3).map(|number| submit_one(&engine, number)).collect();
    let refused = engine.submit(request(&[1], 5, greedy()));
    assert!(matches!(refused, Err(EngineError::Overloaded { limit: 2 })));
    drop(permits);
    assert!(accepted.into_iter().all(|events| Answer::collect(events).finish().is_some()));
    assert_eq!(Answer::collect(submit(&engine, request(&[1], 5, greedy()))).tokens.len(), 5);
}

#[test]
fn broken_output_fails_its_own_request_only() {
    let expected = solo_answers(4);
    let (engine, permits) = gated(200, options(8, 64));
    let nan = submit(&engine, request(&[1, NAN], 5, greedy()));
    let error = submit_guided(&engine, request(&[1, 2], 50, greedy()), EvenGuide::breaking(2, false));
    let panic = submit_guided(&engine, request(&[1, 2], 50, greedy()), EvenGuide::breaking(3, true));
    let nothing = SamplingParams { logit_bias: (0..64).map(|id| (id, f32::NEG_INFINITY)).collect(), ..greedy() };
    let nothing = submit(&engine, request(&[1, 2], 5, nothing));
    let good: Vec<_> = (0..4).map(|number| submit_one(&engine, number)).collect();
    drop(permits);
    for failed in [nan, error, panic, nothing] {
        let answer = Answer::collect(failed);
        assert!(answer.is_invalid_output(), "{:?}", answer.last);
    }
    let good: Vec<_> = good.into_iter().map(|events| Answer::collect(events).tokens).collect();
    assert_eq!(good, expected);
    assert!(engine.alive());
}

#[test]
fn a_failing_step_fails_its_batch_and_the_engine_goes_on() {
    for poison in [PANIC, FAIL] {
        let expected = solo_answers(3);
        let (engine, permits) = gated(200, options(1, 64));
        let failed = submit(&engine, request(&[1, poison], 5, greedy()));
        let good: Vec<_> = (0..3).map(|number| submit_one(&engine, number)).collect();
        drop(permits);
        let answer = Answer::collect(failed);
        assert!(answer.is_internal() && answer.tokens.is_empty(), "{:?}", answer.last);
        let good: Vec<_> = good.into_iter().map(|events| Answer::collect(events).tokens).collect();
        assert_eq!(good, expected);
        assert!(engine.alive() && engine.stats().blocks_used == 0);
    }
}

#[test]
fn a_step_that_keeps_failing_stops_the_engine() {
    let (engine, permits) = gated(200, options(1, 64));
    let poisoned: Vec<_> = (0..4).map(|_| submit(&engine, request(&[1, PANIC], 5, greedy()))).collect();
    let innocent = submit(&engine, request(&[1], 5, greedy()));
    drop(permits);
    assert!(poisoned.into_iter().chain([innocent]).all(|events| Answer::collect(events).is_internal()));
    assert!(!engine.alive() && !engine.stats().alive);
    // Whoever waits for its end hears of it.
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(engine.stopped());
    assert!(matches!(engine.submit(request(&[1], 5, greedy())), Err(EngineError::Internal(_))));
}

#[tokio::test]
async fn draining_lets_the_accepted_requests_end() {
    let (engine, permits) = gated(200, options(1, 64));
    let mut accepted = [submit_one(&engine, 1), submit_one(&engine, 2)];
    let drained = tokio::spawn({
        let engine = engine.clone();
        async move { engine.drain(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    assert!(matches!(engine.submit(request(&[1], 5, greedy())), Err(EngineError::ShuttingDown)));
    drop(permits);
    drained.await.unwrap();
    for events in &mut accepted {
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Finished(_))));
    }
}

#[tokio::test]
async fn draining_fails_what_is_left_at_the_deadline() {
    let engine = EngineHandle::start_with(ToyRunner::new(30_000, 100_000), options(1, 64)).unwrap();
    let mut accepted = [1, 2].map(|_| submit(&engine, request(&[1], 90_000, greedy())));
    engine.drain(Duration::ZERO).await;
    for events in &mut accepted {
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Failed(EngineError::ShuttingDown))), "{last:?}");
    }
}

#[test]
fn requests_outlive_the_handles() {
    let (engine, permits) = gated(200, options(1, 64));
    let events = submit(&engine, request(&[1], 50, greedy()));
    drop((engine, permits));
    assert_eq!(Answer::collect(events).finish(), Some(FinishReason::Length));
}

#[test]
fn requests_without_a_seed_differ() {
    let engine = engine(200, options(4, 64));
    let free = || request(&[1, 2, 3], 30, SamplingParams::default());
    let tokens: Vec<_> = [free(), free()].map(|request| Answer::collect(submit(&engine, request)).tokens).into();
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn a_step_is_one_event() {
    let engine = engine(50, options(1, 64));
    let mut events = submit_guided(&engine, request(&[1, 2], 100, greedy()), EvenGuide::new(&[], 12));
    let mut most = 0;
    while let Some(event) = events.blocking_recv() {
        if let Event::Tokens(tokens) = event {
            assert!(!tokens[0].forced && tokens[1..].iter().all(|token| token.forced));
            most = most.max(tokens.len());
        }
    }
    assert!(most > 1);
}

#[test]
fn a_long_pass_shows_life() {
    let (engine, permits) = gated(100, options(1, 64));
    let submitted = Instant::now();
    let events = submit(&engine, request(&[1, 2], 2, greedy()));
    // The pass waits for a permit: only it can have beaten well after the request came.
    let beaten = || submitted.elapsed() > Duration::from_millis(engine.stats().heartbeat_age_ms + 300);
    while !beaten() {
        assert!(submitted.elapsed() < Duration::from_secs(20), "no life for {} ms", engine.stats().heartbeat_age_ms);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(permits);
    assert_eq!(Answer::collect(events).tokens.len(), 2);
}

#[test]
fn handles_tell_the_measures() {
    let engine = engine(50, options(1, 64));
    assert_eq!((engine.context_len(), engine.vocab_size()), (200, VOCAB));
    let stats = engine.stats();
    assert!(stats.alive && stats.blocks_total == 50 && stats.heartbeat_age_ms < 10_000);
}
