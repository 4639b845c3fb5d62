use super::*;
use proptest::prelude::*;

const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 0.5, 3.0, -1.0];

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

/// Which tokens come up, and how often, over many indexes of one seed.
fn drawn(params: SamplingParams, logits: &[f32]) -> Vec<usize> {
    let sampler = Sampler::new(params, 7, &[]);
    let mut counts = vec![0; logits.len()];
    for index in 0..4000 {
        counts[sampler.choose(logits, index).unwrap().token as usize] += 1;
    }
    counts
}

fn support(params: SamplingParams, logits: &[f32]) -> Vec<usize> {
    drawn(params, logits).iter().enumerate().filter(|(_, count)| **count > 0).map(|(id, _)| id).collect()
}

fn prepared(params: SamplingParams, prompt: &[u32], generated: &[u32]) -> Vec<f32> {
    let mut sampler = Sampler::new(params, 0, prompt);
    generated.iter().for_each(|&token| sampler.record(token));
    let mut logits = LOGITS.to_vec();
    sampler.prepare(&mut logits).unwrap();
    logits
}

fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

#[test]
fn greedy_takes_the_lowest_id_among_the_best() {
    assert_eq!(Sampler::new(greedy(), 0, &[]).choose(&LOGITS, 0).unwrap().token, 1);
}

#[test]
fn a_long_row_is_looked_through_to_its_end() {
    let mut row = vec![-2.0; 5003];
    let best = |row: &[f32]| Sampler::new(greedy(), 0, &[]).choose(row, 0).map(|choice| choice.token);
    for (id, logit) in [(5002, -1.0), (4999, -1.0), (3000, 0.5), (3001, 0.5), (17, 0.5), (2050, 0.75)] {
        row[id] = logit;
        let first_of_the_best = row.iter().position(|&x| x == row.iter().copied().fold(-9.0, f32::max)).unwrap();
        assert_eq!(best(&row), Ok(first_of_the_best as u32));
    }
    for (id, broken) in [(5002, f32::NAN), (4000, f32::INFINITY), (1023, f32::NAN)] {
        row[id] = broken;
        assert_eq!(best(&row), Err(InvalidLogits::NotFinite(id)));
    }
}

#[test]
fn draws_follow_the_tempered_distribution() {
    for temperature in [0.5, 1.0, 2.0] {
        let counts = drawn(SamplingParams { temperature, ..SamplingParams::default() }, &LOGITS);
        for (count, p) in counts.iter().zip(probabilities(&LOGITS, f64::from(temperature))) {
            let share = *count as f64 / 4000.0;
            // Four standard deviations.
            let slack = 4.0 * (p * (1.0 - p) / 4000.0).sqrt() + 1e-3;
            assert!((share - p).abs() < slack, "{share} instead of {p} at temperature {temperature}");
        }
    }
}

#[test]
fn a_vanishing_temperature_is_nearly_greedy() {
    let params = SamplingParams { temperature: 1e-30, ..SamplingParams::default() };
    assert_eq!(support(params, &LOGITS), [1, 4]);
}

#[test]
fn top_k_keeps_the_k_best_and_breaks_ties_by_id() {
    let top_k = |top_k| support(SamplingParams { top_k, ..SamplingParams::default() }, &LOGITS);
    assert_eq!(top_k(1), [1]);
    assert_eq!(top_k(2), [1, 4]);
    assert_eq!(top_k(3), [1, 2, 4]);
    assert_eq!(top_k(0), [0, 1, 2, 3, 4, 5]);
    assert_eq!(top_k(99), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn top_p_keeps_the_smallest_head_with_that_share() {
    // Shares: 0.365, 0.365, 0.134, 0.049, 0.030, 0.007 (times 1/0.95).
    let top_p = |top_p| support(SamplingParams { top_p, ..SamplingParams::default() }, &LOGITS);
    assert_eq!(top_p(0.0), [1]);
    assert_eq!(top_p(0.3), [1]);
    assert_eq!(top_p(0.5), [1, 4]);
    assert_eq!(top_p(0.85), [1, 2, 4]);
    assert_eq!(top_p(1.0), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn min_p_keeps_what_has_that_share_of_the_best() {
    let min_p = |min_p| support(SamplingParams { min_p, ..SamplingParams::default() }, &LOGITS);
    // exp(2 - 3) = 0.37, exp(1 - 3) = 0.14
    assert_eq!(min_p(0.3), [1, 2, 4]);
    assert_eq!(min_p(0.1), [0, 1, 2, 4]);
    assert_eq!(min_p(1.0), [1, 4]);
}

#[test]
fn filters_combine() {
    let params = SamplingParams { top_k: 3, top_p: 0.9, min_p: 0.5, ..SamplingParams::default() };
    assert_eq!(support(params, &LOGITS), [1, 4]);
}

#[test]
fn top_p_over_a_large_flat_vocabulary_sorts_as_far_as_it_must() {
    let logits: Vec<f32> = (0..3000).map(|id| (id % 1000) as f32 * 1e-3).collect();
    let mut candidates = weigh(&logits, 0.999, 1.0);
    let total = total_weight(&candidates);
    keep_top_p(&mut candidates, 0.5);
    assert!(candidates.is_sorted_by(|a, b| heaviest_first(a, b).is_lt()));
    let kept = total_weight(&candidates);
    let last = f64::from(candidates.last().unwrap().weight);
    assert!(kept >= 0.5 * total && kept - last < 0.5 * total);
}

#[test]
fn a_seed_and_an_index_fix_the_token() {
    let draw = |seed, index| {
        let params = SamplingParams { seed: Some(seed), ..SamplingParams::default() };
        Sampler::new(params, 99, &[]).choose(&[0.0; 1000], index).unwrap().token
    };
    // Any order, any number of times.
    let forth: Vec<u32> = (0..20).map(|index| draw(5, index)).collect();
    let back: Vec<u32> = (0..20).rev().map(|index| draw(5, index)).collect();
    assert!(forth.iter().eq(back.iter().rev()));
    assert_ne!(forth, (0..20).map(|index| draw(6, index)).collect::<Vec<_>>());
    assert!(forth.iter().collect::<std::collections::HashSet<_>>().len() > 10);
}

#[test]
fn the_engine_seed_is_used_where_the_request_has_none() {
    let draw = |seed| Sampler::new(SamplingParams::default(), seed, &[]).choose(&[0.0; 1000], 0).unwrap().token;
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn neutral_parameters_change_no_logit() {
    assert_eq!(prepared(SamplingParams::default(), &[1, 2], &[3, 3]), LOGITS);
}

#[test]
fn the_repetition_penalty_concerns_prompt_and_answer_once_each() {
    let params = SamplingParams { repetition_penalty: 2.0, ..greedy() };
    assert_eq!(prepared(params, &[1, 1, 5], &[2, 2]), [1.0, 1.5, 1.0, 0.5, 3.0, -2.0]);
}

#[test]
fn frequency_and_presence_penalties_concern_the_answer_only() {
    let params = SamplingParams { frequency_penalty: 0.5, ..greedy() };
    assert_eq!(prepared(params, &[1], &[2, 2, 4]), [1.0, 3.0, 1.0, 0.5, 2.5, -1.0]);
    let params = SamplingParams { presence_penalty: 0.5, ..greedy() };
    assert_eq!(prepared(params, &[1], &[2, 2, 4]), [1.0, 3.0, 1.5, 0.5, 2.5, -1.0]);
}

#[test]
fn a_bias_moves_a_logit_and_one_beyond_the_row_moves_none() {
    let params = SamplingParams { logit_bias: vec![(3, 100.0), (1, -100.0), (6, 9.0)], ..greedy() };
    let logits = prepared(params.clone(), &[], &[]);
    assert_eq!(logits, [1.0, -97.0, 2.0, 100.5, 3.0, -1.0]);
    assert_eq!(Sampler::new(params, 0, &[]).choose(&logits, 0).unwrap().token, 3);
}

#[test]
fn broken_logits_are_refused() {
    let sampler = Sampler::new(greedy(), 0, &[]);
    for bad in [f32::NAN, f32::INFINITY] {
        for place in [0, 1500, 2999] {
            let mut logits = vec![0.0; 3000];
            logits[place] = bad;
            assert_eq!(sampler.prepare(&mut logits), Err(InvalidLogits::NotFinite(place)));
        }
    }
    for logits in [&[f32::NEG_INFINITY; 3][..], &[]] {
        assert_eq!(sampler.choose(logits, 0).unwrap_err(), InvalidLogits::Empty);
    }
}

#[test]
fn what_the_mask_forbids_is_never_drawn() {
    let mut logits = LOGITS;
    for id in [1, 4, 5] {
        logits[id] = f32::NEG_INFINITY;
    }
    let hot = SamplingParams { temperature: 50.0, ..SamplingParams::default() };
    assert_eq!(support(hot, &logits), [0, 2, 3]);
}

#[test]
fn logprobs_are_those_of_the_untempered_masked_distribution() {
    let params = SamplingParams { temperature: 9.0, logprobs: Some(9), ..SamplingParams::default() };
    let mut logits = LOGITS;
    logits[0] = f32::NEG_INFINITY;
    let choice = Sampler::new(params, 3, &[]).choose(&logits, 0).unwrap();
    let logprobs = choice.logprobs.unwrap();
    assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 4, 2, 3, 5]);
    let sum: f32 = logprobs.top.iter().map(|(_, logprob)| logprob.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    for (id, logprob) in &logprobs.top {
        let expected = probabilities(&logits, 1.0)[*id as usize].ln() as f32;
        assert!((logprob - expected).abs() < 1e-5);
        assert!(*id != choice.token || *logprob == logprobs.logprob);
    }
}

#[test]
fn the_number_of_alternatives_is_the_one_asked_for() {
    for (asked, given) in [(0, 0), (1, 1), (4, 4), (6, 6), (20, 6)] {
        let params = SamplingParams { logprobs: Some(asked), ..greedy() };
        let choice = Sampler::new(params, 0, &[]).choose(&LOGITS, 0).unwrap();
        assert_eq!(choice.logprobs.unwrap().top.len(), given);
    }
    assert!(Sampler::new(greedy(), 0, &[]).choose(&LOGITS, 0).unwrap().logprobs.is_none());
}

proptest! {
    /// The sets, computed the slow way: sort everything.
    #[test]
    fn the_drawn_token_is_in_the_filtered_set(
        logits in prop::collection::vec(-8f32..8.0, 1..200),
        top_k in 0usize..50,
        top_p in 0f32..1.2,
        min_p in 0f32..0.5,
        seed: u64,
    ) {
        let params = SamplingParams { top_k, top_p, min_p, ..SamplingParams::default() };
        let token = Sampler::new(params, seed, &[]).choose(&logits, 0).unwrap().token;
        let mut ranked: Vec<(usize, f64)> = probabilities(&logits, 1.0).into_iter().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if top_k > 0 {
            ranked.truncate(top_k);
        }
        let total: f64 = ranked.iter().map(|(_, p)| p).sum();
        let place = ranked.iter().position(|(id, _)| *id == token as usize);
        prop_assert!(place.is_some());
        let place = place.unwrap();
        let before: f64 = ranked[..place].iter().map(|(_, p)| p).sum();
        prop_assert!(place == 0 || before < f64::from(top_p) * total + 1e-5);
        prop_assert!(ranked[place].1 >= f64::from(min_p) * ranked[0].1 - 1e-6);
    }
}
