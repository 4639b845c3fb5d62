//! Logits → token: bias, penalties, temperature, top-k, top-p, min-p and the seeded draw, on one row at a time.
//!
//! Knows no sequence, no grammar and no batch: the caller applies its mask before [`Sampler::prepare`]. The draw depends on the seed and the token's index alone, so neither neighbours nor a
//! recomputation after a preemption can change it.

use super::{SamplingParams, TokenLogprobs};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Why a row of logits gives no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogits {
    /// A NaN or +∞.
    #[error("the logit of token {0} is not a number or infinite")]
    NotFinite(usize),
    /// Every token is at −∞.
    #[error("no token is allowed")]
    Empty,
}

/// A token and what is reported with it.
#[derive(Debug, Clone)]
pub struct Choice {
    pub token: u32,
    pub logprobs: Option<TokenLogprobs>,
}

/// The sampling state of one sequence.
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    history: Option<History>,
}

impl Sampler {
    /// A sampler for a sequence that begins with `prompt`; `seed` is used where the parameters name none.
    pub fn new(params: SamplingParams, seed: u64, prompt: &[u32]) -> Self {
        let seed = params.seed.unwrap_or(seed);
        let history = History::wanted(&params).then(|| History::of_prompt(prompt));
        Self { params, seed, history }
    }

    /// Remembers a generated token for the penalties.
    pub fn record(&mut self, token: u32) {
        if let Some(history) = &mut self.history {
            *history.generated.entry(token).or_default() += 1;
        }
    }

    /// Refuses broken logits, then applies the bias and the penalties.
    pub fn prepare(&self, logits: &mut [f32]) -> Result<(), InvalidLogits> {
        check_finite(logits)?;
        for &(id, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        if let Some(history) = &self.history {
            history.penalise(&self.params, logits);
        }
        Ok(())
    }

    /// Chooses from prepared logits. `index` is the token's place among the generated ones.
    pub fn choose(&self, logits: &[f32], index: u64) -> Result<Choice, InvalidLogits> {
        let best = argmax(logits)?;
        let greedy = self.params.temperature.partial_cmp(&0.0) != Some(Ordering::Greater);
        let most = logits[best as usize];
        let token = if greedy { best } else { self.draw(logits, most, index) };
        let logprobs = self.params.logprobs.map(|top| log_probabilities(logits, most, token, top));
        Ok(Choice { token, logprobs })
    }

    /// What is reported with a token that had no alternative: its masked probability is 1.
    pub fn forced_logprobs(&self, token: u32) -> Option<TokenLogprobs> {
        let top = self.params.logprobs?;
        Some(TokenLogprobs { logprob: 0.0, top: vec![(token, 0.0); top.min(1)] })
    }

    fn draw(&self, logits: &[f32], best: f32, index: u64) -> u32 {
        let mut candidates = weigh(logits, best, self.params.temperature);
        keep_top_k(&mut candidates, self.params.top_k);
        keep_top_p(&mut candidates, self.params.top_p);
        // The best weight is 1, so min_p is a plain threshold.
        candidates.retain(|c| c.weight >= self.params.min_p.min(1.0));
        pick(&candidates, uniform(self.seed, index))
    }
}

/// Which tokens occurred, and how often among the generated ones (0 = in the prompt only).
struct History {
    generated: HashMap<u32, u32>,
}

impl History {
    fn wanted(params: &SamplingParams) -> bool {
        params.repetition_penalty != 1.0 || params.frequency_penalty != 0.0 || params.presence_penalty != 0.0
    }

    fn of_prompt(prompt: &[u32]) -> Self {
        Self { generated: prompt.iter().map(|&token| (token, 0)).collect() }
    }

    fn penalise(&self, params: &SamplingParams, logits: &mut [f32]) {
        for (&token, &count) in &self.generated {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let repetition = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if count > 0 {
                *logit -= params.frequency_penalty * count as f32 + params.presence_penalty;
            }
        }
    }
}

/// A token that may be drawn; the weight of the best one is 1.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    weight: f32,
}

/// Heaviest first; equal weights by id, so that the order is total.
fn heaviest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// A vocabulary is looked through in pieces of this length, without an exit inside of one.
const PIECE: usize = 1024;

fn check_finite(logits: &[f32]) -> Result<(), InvalidLogits> {
    let good = logits.chunks(PIECE).all(|piece| greatest(piece).is_some());
    if good { Ok(()) } else { Err(not_finite(logits)) }
}

fn not_finite(logits: &[f32]) -> InvalidLogits {
    InvalidLogits::NotFinite(logits.iter().position(|&logit| !is_good(logit)).unwrap_or_default())
}

/// Neither +∞ nor no number at all.
fn is_good(logit: f32) -> bool {
    logit < f32::INFINITY
}

/// The lowest id among the greatest logits.
fn argmax(logits: &[f32]) -> Result<u32, InvalidLogits> {
    let (mut best, mut start) = (f32::NEG_INFINITY, 0);
    for (index, piece) in logits.chunks(PIECE).enumerate() {
        let greatest = greatest(piece).ok_or_else(|| not_finite(logits))?;
        if greatest > best {
            (best, start) = (greatest, index * PIECE);
        }
    }
    let place = logits[start..].iter().position(|logit| *logit == best);
    if best == f32::NEG_INFINITY { Err(InvalidLogits::Empty) } else { Ok((start + place.unwrap_or_default()) as u32) }
}

/// The greatest of some logits, unless one is not a number or +∞. Lane by lane, so that the compiler vectorises it.
fn greatest(logits: &[f32]) -> Option<f32> {
    let (mut most, mut broken) = ([f32::NEG_INFINITY; 16], [0u32; 16]);
    let (whole, rest) = logits.as_chunks::<16>();
    for lanes in whole {
        for (lane, &logit) in lanes.iter().enumerate() {
            most[lane] = if logit > most[lane] { logit } else { most[lane] };
            broken[lane] |= u32::from(!is_good(logit));
        }
    }
    let good = broken == [0; 16] && rest.iter().all(|&logit| is_good(logit));
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    good.then(|| most.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater))
}

/// Unnormalised probabilities at a temperature, relative to the best; tokens that cannot be drawn are left out.
fn weigh(logits: &[f32], best: f32, temperature: f32) -> Vec<Candidate> {
    let weight = |logit: f32| ((logit - best) / temperature).exp();
    let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, weight: weight(logit) });
    all.filter(|c| c.weight > 0.0).collect()
}

fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k == 0 || k >= candidates.len() {
        return;
    }
    candidates.select_nth_unstable_by(k - 1, heaviest_first);
    candidates.truncate(k);
    // The order after a selection is the library's affair; a seed must not depend on it.
    candidates.sort_unstable_by(heaviest_first);
}

/// Keeps the heaviest candidates that together hold a share of `p`, sorting no more of them than it must.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let goal = f64::from(p) * total_weight(candidates);
    let (mut sorted, mut span, mut mass) = (0, 64, 0.0);
    while sorted < candidates.len() {
        let end = candidates.len().min(sorted + span);
        sort_next(&mut candidates[sorted..], end - sorted);
        for i in sorted..end {
            mass += f64::from(candidates[i].weight);
            if mass >= goal {
                return candidates.truncate(i + 1);
            }
        }
        (sorted, span) = (end, span * 4);
    }
}

/// Puts the `count` heaviest of the candidates in front, in order.
fn sort_next(candidates: &mut [Candidate], count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, heaviest_first);
    }
    candidates[..count].sort_unstable_by(heaviest_first);
}

fn total_weight(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

/// The candidate at share `point` (in 0..1) of the total weight. The best candidate is never filtered out, so there is one.
fn pick(candidates: &[Candidate], point: f64) -> u32 {
    let mut rest = point * total_weight(candidates);
    for candidate in candidates {
        rest -= f64::from(candidate.weight);
        if rest < 0.0 {
            return candidate.id;
        }
    }
    // Rounding may leave a crumb beyond the last.
    candidates.last().map_or(0, |c| c.id)
}

/// A number in 0..1 that depends on the seed and the token's index only.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Log-softmax of the token and of the `top` most likely ones; `best` is the greatest logit.
fn log_probabilities(logits: &[f32], best: f32, token: u32, top: usize) -> TokenLogprobs {
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
    let logprob = |logit: f32| logit - best - sum.ln() as f32;
    let allowed = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut ranked: Vec<_> = allowed.map(|(id, &logit)| Candidate { id: id as u32, weight: logit }).collect();
    let count = top.min(ranked.len());
    if count > 0 {
        sort_next(&mut ranked, count);
    }
    let top = ranked[..count].iter().map(|c| (c.id, logprob(c.weight))).collect();
    TokenLogprobs { logprob: logprob(logits[token as usize]), top }
}

#[cfg(test)]
mod tests;
