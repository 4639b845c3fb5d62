//! How many prompt tokens a step may take in beside running answers, learned from how long steps took.
//!
//! An answer that runs waits for its next token less than twice as long as without prompts, but for the odd step. What a token
//! costs depends on how many there are, on the context and on the machine, so the number is found by trial, not computed. Knows
//! durations and counts: no sequence, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

/// How much longer a step may take because of prompts.
const LONGER: f64 = 1.7;
/// Prompts get on even beside a crowd.
const LEAST_TOKENS: f64 = 2.0;
/// Prompt tokens of the first step that has answers too.
const FIRST_TOKENS: f64 = 16.0;
/// Weights of the newest step without prompts, if it was faster than what is known and if it was slower: something else may
/// have kept the processor busy, most of all the reading of a long prompt.
const FASTER: f64 = 0.2;
const SLOWER: f64 = 0.02;

/// What one step computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Tokens of answers that run.
    pub(super) answers: usize,
    /// Tokens of prompts.
    pub(super) prompts: usize,
}

/// What is known of the steps so far.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long steps without prompts took lately, in seconds, by the tokens of their answers.
    answers: BTreeMap<usize, f64>,
    /// Prompt tokens that make a step as long as it may be.
    tokens: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { answers: BTreeMap::new(), tokens: FIRST_TOKENS }
    }
}

impl Pace {
    /// Takes note of a step.
    pub(super) fn observe(&mut self, load: Load, took: Duration) {
        let took = took.as_secs_f64();
        match load {
            // Nobody waited for it.
            Load { answers: 0, .. } => {}
            Load { answers, prompts: 0 } => {
                let known = self.answers.entry(answers).or_insert(took);
                *known += if took < *known { FASTER } else { SLOWER } * (took - *known);
            }
            Load { answers, prompts } => match self.without_prompts(answers) {
                Some(without) if took > LONGER * without => self.tokens = (self.tokens * 0.9).max(LEAST_TOKENS),
                Some(_) if prompts >= self.tokens as usize => self.tokens += (self.tokens * 0.05).max(1.0),
                _ => {}
            },
        }
    }

    /// Most prompt tokens of a step that computes so many tokens of answers; any number where nobody waits or nothing is known.
    pub(super) fn prompt_tokens(&self, answers: usize) -> usize {
        if answers == 0 || self.answers.is_empty() { usize::MAX } else { self.tokens as usize }
    }

    /// A step of fewer tokens takes no longer: where this many were never seen, the next lower number is on the safe side.
    fn without_prompts(&self, answers: usize) -> Option<f64> {
        let nearest = self.answers.range(..=answers).next_back().or_else(|| self.answers.first_key_value());
        nearest.map(|(_, took)| *took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A pace that knows steps without prompts, after many steps of a machine on which those with prompts take `cost`.
    fn after(pace: &mut Pace, answers: usize, cost: impl Fn(usize) -> u64) -> Vec<u64> {
        let step = |pace: &mut Pace| {
            let prompts = pace.prompt_tokens(answers).min(512);
            pace.observe(Load { answers, prompts }, millis(cost(prompts)));
            cost(prompts)
        };
        (0..200).map(|_| step(pace)).collect()
    }

    #[test]
    fn prompts_take_what_they_may_and_no_more() {
        let mut pace = Pace::default();
        assert_eq!(pace.prompt_tokens(1), usize::MAX, "nothing is known");
        pace.observe(Load { answers: 1, prompts: 0 }, millis(20));
        // The first token beside an answer costs most: 34 ms are 11 tokens.
        let steps = after(&mut pace, 1, |tokens| 20 + 3 + tokens as u64);
        assert!(steps[20..].iter().all(|took| (30..=36).contains(took)), "{steps:?}");
        // A longer context: 34 ms are 3 tokens.
        let steps = after(&mut pace, 1, |tokens| 20 + 3 + 3 * tokens as u64);
        assert!(steps[20..].iter().all(|took| (29..=38).contains(took)), "{steps:?}");
        assert_eq!(pace.prompt_tokens(0), usize::MAX, "nobody waits");
    }

    #[test]
    fn steps_that_are_longer_anyway_leave_more_room() {
        let mut pace = Pace::default();
        pace.observe(Load { answers: 1, prompts: 0 }, millis(20));
        pace.observe(Load { answers: 8, prompts: 0 }, millis(50));
        after(&mut pace, 1, |tokens| 20 + tokens as u64);
        let beside_one = pace.prompt_tokens(1);
        after(&mut pace, 8, |tokens| 50 + tokens as u64);
        assert!(beside_one <= 16 && (30..40).contains(&pace.prompt_tokens(8)), "{beside_one} {pace:?}");
    }

    #[test]
    fn prompts_get_on_whatever_they_cost() {
        let mut pace = Pace::default();
        pace.observe(Load { answers: 1, prompts: 0 }, millis(1));
        after(&mut pace, 1, |_| 5000);
        assert_eq!(pace.prompt_tokens(1), 2);
        after(&mut pace, 1, |_| 1);
        assert!(pace.prompt_tokens(1) > 512, "they cost nothing");
    }
}
