use super::super::SamplingParams;
use super::super::testing::*;
use super::*;

fn ids(progress: &Progress) -> Vec<(u32, bool)> {
    progress.tokens.iter().map(|token| (token.id, token.forced)).collect()
}

/// Logits that make one token by far the best.
fn prefer(token: u32) -> Vec<f32> {
    (0..VOCAB as u32).map(|id| if id == token { 9.0 } else { 0.0 }).collect()
}

#[test]
fn a_forced_prefix_is_reported_as_generated_and_computed_with_the_prompt() {
    let (mut sequence, _events) = sequence(request(&[1, 2], 8, greedy()), Some(EvenGuide::new(&[5, 7], 9)), 100);
    let progress = sequence.begin().unwrap();
    assert_eq!((ids(&progress), progress.finish), (vec![(5, true), (7, true)], None));
    assert_eq!((sequence.tokens(), sequence.pending()), (&[1, 2, 5, 7][..], 4));
}

#[test]
fn a_sampled_token_is_followed_by_the_forced_ones() {
    let (mut sequence, _events) = sequence(request(&[1], 8, greedy()), Some(EvenGuide::new(&[], 9)), 100);
    let progress = sequence.advance(&mut prefer(10)).unwrap();
    assert_eq!(ids(&progress), [(10, false), (11, true), (13, true)]);
    assert_eq!(progress.finish, None);
}

#[test]
fn forced_tokens_count_towards_max_tokens_and_are_cut_there() {
    let (mut sequence, _events) = sequence(request(&[1], 2, greedy()), Some(EvenGuide::new(&[], 9)), 100);
    let progress = sequence.advance(&mut prefer(10)).unwrap();
    assert_eq!((ids(&progress), progress.finish), (vec![(10, false), (11, true)], Some(FinishReason::Length)));
}

#[test]
fn a_complete_grammar_ends_the_turn_even_at_the_last_token() {
    let (mut sequence, _events) = sequence(request(&[1], 3, greedy()), Some(EvenGuide::new(&[], 1)), 100);
    let progress = sequence.advance(&mut prefer(10)).unwrap();
    assert_eq!((progress.tokens.len(), progress.finish), (3, Some(FinishReason::Stop)));
}

#[test]
fn a_grammar_that_is_complete_after_its_prefix_needs_no_model() {
    let (mut sequence, _events) = sequence(request(&[1], 3, greedy()), Some(EvenGuide::new(&[5], 0)), 100);
    let progress = sequence.begin().unwrap();
    assert_eq!((ids(&progress), progress.finish), (vec![(5, true)], Some(FinishReason::Stop)));
}

#[test]
fn a_stop_token_ends_the_generation_unreported() {
    let mut request = request(&[1], 8, greedy());
    request.stop_token_ids = vec![12];
    let (mut sequence, _events) = sequence(request, None, 100);
    let progress = sequence.advance(&mut prefer(12)).unwrap();
    assert_eq!((ids(&progress), progress.finish), (vec![], Some(FinishReason::Stop)));
}

#[test]
fn a_forced_stop_token_ends_the_generation_unreported() {
    let mut request = request(&[1], 8, greedy());
    request.stop_token_ids = vec![13];
    let (mut sequence, _events) = sequence(request, Some(EvenGuide::new(&[], 9)), 100);
    let progress = sequence.advance(&mut prefer(10)).unwrap();
    assert_eq!((ids(&progress), progress.finish), (vec![(10, false), (11, true)], Some(FinishReason::Stop)));
}

#[test]
fn the_context_ends_a_generation() {
    let (mut sequence, _events) = sequence(request(&[1, 2, 3], 8, greedy()), None, 5);
    assert_eq!(sequence.advance(&mut prefer(4)).unwrap().finish, None);
    assert_eq!(sequence.advance(&mut prefer(4)).unwrap().finish, Some(FinishReason::Length));
}

#[test]
fn no_tokens_wanted_means_none_given() {
    let (mut sequence, _events) = sequence(request(&[1], 0, greedy()), Some(EvenGuide::new(&[5], 9)), 100);
    let progress = sequence.begin().unwrap();
    assert_eq!((ids(&progress), progress.finish), (vec![], Some(FinishReason::Length)));
}

#[test]
fn a_token_that_the_model_does_not_have_is_not_forced() {
    let (mut sequence, _events) = sequence(request(&[1], 8, greedy()), Some(EvenGuide::new(&[VOCAB as u32], 9)), 100);
    assert!(matches!(sequence.begin(), Err(EngineError::InvalidOutput(cause)) if cause.contains("64")));
}

#[test]
fn forced_tokens_have_the_whole_probability() {
    let params = SamplingParams { logprobs: Some(2), ..greedy() };
    let (mut sequence, _events) = sequence(request(&[1], 8, params), Some(EvenGuide::new(&[5], 9)), 100);
    let progress = sequence.begin().unwrap();
    let logprobs = progress.tokens[0].logprobs.as_ref().unwrap();
    assert_eq!((logprobs.logprob, &logprobs.top), (0.0, &vec![(5, 0.0)]));
}

#[test]
fn the_last_event_follows_when_the_sequence_is_gone() {
    let (mut sequence, mut events) = sequence(request(&[1], 8, greedy()), None, 100);
    let token = TokenEvent { id: 3, forced: false, logprobs: None };
    sequence.deliver(Ok(Progress { tokens: vec![token], finish: Some(FinishReason::Stop), masked: None }));
    assert!(sequence.is_over());
    assert!(events.try_recv().is_err(), "nothing is told before the start");
    sequence.start();
    sequence.start();
    assert!(matches!(events.try_recv(), Ok(Event::Started { .. })));
    assert!(matches!(events.try_recv(), Ok(Event::Tokens(tokens)) if tokens[0].id == 3));
    assert!(events.try_recv().is_err());
    drop(sequence);
    assert!(matches!(events.try_recv(), Ok(Event::Finished(FinishReason::Stop))));
}

#[test]
fn a_sequence_that_is_lost_tells_so() {
    let (sequence, mut events) = sequence(request(&[1], 8, greedy()), None, 100);
    drop(sequence);
    assert!(matches!(events.try_recv(), Ok(Event::Failed(EngineError::Internal(_)))));
}

#[test]
fn a_sequence_without_a_listener_is_over() {
    let (sequence, events) = sequence(request(&[1], 8, greedy()), None, 100);
    assert!(!sequence.is_over());
    drop(events);
    assert!(sequence.is_over());
}

#[test]
fn an_answer_whose_masks_take_too_long_is_given_up_unless_speed_may_not_decide() {
    for bounded in [true, false] {
        let seat = Seat { bounded_masks: bounded, ..seat(100) };
        let (mut sequence, _events) = Sequence::new(request(&[1], 8, greedy()), None, seat);
        let often = (0..30).try_for_each(|_| sequence.check_masks(Duration::from_secs(1)));
        assert_eq!(often.is_err(), bounded);
        assert_eq!(sequence.check_masks(2 * SLOWEST_MASK).is_err(), bounded);
    }
}
