//! Adapters with virtual tokens: where these stand, what they count as, and who shares them.

use super::*;

/// What the toy model says greedily after this context.
fn greedy_after(context: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = context.to_vec();
    for _ in 0..count {
        let logits = toy_logits(&tokens);
        let best = (0..VOCAB).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap();
        tokens.push(best as u32);
    }
    tokens.split_off(context.len())
}

fn prompted(adapter: &Lease, prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest { adapter: Some(adapter.clone()), ..request(prompt, max_tokens, greedy()) }
}

#[test]
fn the_virtual_tokens_of_an_adapter_stand_before_the_prompt_and_are_not_counted() {
    for budget in [3, 64] {
        let engine = engine(50, options(4, budget));
        let (one, two) = (prompted_lease("one", 5), prompted_lease("two", 2));
        let said: Vec<u32> = (10..19).collect();
        let virtual_ids = |count: u32| (VOCAB as u32..VOCAB as u32 + count).collect::<Vec<_>>();
        let with = |count| greedy_after(&[virtual_ids(count), said.clone()].concat(), 12);
        let events = [
            submit(&engine, prompted(&one, &said, 12)),
            submit(&engine, request(&said, 12, greedy())),
            submit(&engine, prompted(&two, &said, 12)),
        ];
        let answers = events.map(|events| Answer::collect(events).tokens);
        assert_eq!(answers, [with(5), greedy_after(&said, 12), with(2)]);
        assert_eq!(engine.stats().prompt_tokens, 27);
    }
}

#[test]
fn a_prefix_is_shared_with_the_same_soft_prompt_alone() {
    let engine = engine(50, options(2, 64));
    let (one, two) = (prompted_lease("one", 4), prompted_lease("two", 4));
    let said: Vec<u32> = (0..18).collect();
    let cached = |request| {
        let mut events = submit(&engine, request);
        let Some(Event::Started { cached_tokens }) = events.blocking_recv() else { panic!("it did not start") };
        Answer::collect(events);
        cached_tokens
    };
    assert_eq!(cached(prompted(&one, &said, 3)), 0);
    assert_eq!(cached(prompted(&two, &said, 3)), 0);
    assert_eq!(cached(request(&said, 3, greedy())), 0);
    // Five blocks of four, of which one holds the virtual tokens.
    assert_eq!(cached(prompted(&one, &said, 3)), 16);
    assert_eq!(cached(prompted(&one, &said[..2], 3)), 0, "what is not counted is not counted as cached either");
}

#[test]
fn virtual_tokens_take_a_part_of_the_context() {
    let engine = engine(100, options(2, 64));
    let adapter = prompted_lease("one", 10);
    let refused = engine.submit(prompted(&adapter, &[1; 190], 5)).err();
    assert!(matches!(refused, Some(EngineError::ContextExceeded { prompt: 200, context: 200 })));
    let answer = Answer::collect(submit(&engine, prompted(&adapter, &[1; 180], 100)));
    assert_eq!((answer.tokens.len(), answer.finish()), (10, Some(FinishReason::Length)));
}
