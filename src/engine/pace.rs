//! How many prompt tokens a step may take in beside running answers, learned from how long steps took.
//!
//! An answer that runs waits for its next token less than twice as long as without prompts, but for the odd step. Knows durations and counts:
//! no sequence, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

/// What prompts may add to a step, as a part of what it takes without them.
const SHARE: f64 = 0.75;
/// Prompts get on even beside a crowd.
const LEAST_TOKENS: usize = 2;
/// Weight of the newest observation.
const NEWEST: f64 = 0.2;

/// What one step computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Tokens of answers that run.
    pub(super) answers: usize,
    /// Tokens of prompts.
    pub(super) prompts: usize,
}

/// What steps took lately, in seconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Steps without prompts, by the tokens of their answers.
    answers: BTreeMap<usize, f64>,
    /// What a prompt's token adds.
    prompt_token: Option<f64>,
}

impl Pace {
    /// Takes note of a step.
    pub(super) fn observe(&mut self, load: Load, took: Duration) {
        let took = took.as_secs_f64();
        if load.prompts > 0 {
            let without = self.without_prompts(load.answers.max(1)).unwrap_or(0.0);
            let each = (took - without).max(0.0) / load.prompts as f64;
            self.prompt_token = Some(blend(self.prompt_token, each));
        } else if load.answers > 0 {
            let known = self.answers.get(&load.answers).copied();
            self.answers.insert(load.answers, blend(known, took));
        }
    }

    /// Most prompt tokens of a step that computes so many tokens of answers; any number where nobody waits or nothing is known.
    pub(super) fn prompt_tokens(&self, answers: usize) -> usize {
        match (self.without_prompts(answers), self.prompt_token) {
            (Some(without), Some(each)) if answers > 0 => ((SHARE * without / each) as usize).max(LEAST_TOKENS),
            _ => usize::MAX,
        }
    }

    /// A step of fewer tokens takes no longer: where this many were never seen, the next lower number is on the safe side.
    fn without_prompts(&self, answers: usize) -> Option<f64> {
        let nearest = self.answers.range(..=answers).next_back().or_else(|| self.answers.first_key_value());
        nearest.map(|(_, took)| *took)
    }
}

fn blend(known: Option<f64>, newest: f64) -> f64 {
    known.map_or(newest, |known| known + NEWEST * (newest - known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(steps: &[(usize, usize, u64)]) -> Pace {
        let mut pace = Pace::default();
        for &(answers, prompts, millis) in steps {
            pace.observe(Load { answers, prompts }, Duration::from_millis(millis));
        }
        pace
    }

    #[test]
    fn prompts_may_not_double_a_step() {
        let pace = observed(&[(1, 0, 20), (0, 512, 20 + 1024)]);
        assert_eq!(pace.prompt_tokens(1), 7);
        assert_eq!(pace.prompt_tokens(0), usize::MAX, "nobody waits");
        // What steps with both take says more than a guess.
        let pace = observed(&[(1, 0, 20), (0, 512, 20 + 1024), (1, 7, 48), (1, 7, 48), (1, 7, 48)]);
        assert!((4..7).contains(&pace.prompt_tokens(1)), "{}", pace.prompt_tokens(1));
    }

    #[test]
    fn more_answers_leave_more_room() {
        let pace = observed(&[(1, 0, 20), (8, 0, 50), (0, 100, 20 + 200)]);
        assert_eq!([1, 7, 8, 30].map(|answers| pace.prompt_tokens(answers)), [7, 7, 18, 18]);
    }

    #[test]
    fn prompts_get_on_whatever_they_cost() {
        assert_eq!(observed(&[(1, 0, 1), (1, 10, 5000)]).prompt_tokens(1), LEAST_TOKENS);
        assert_eq!(observed(&[(1, 0, 20)]).prompt_tokens(1), usize::MAX);
        assert_eq!(observed(&[(1, 0, 20), (1, 50, 20)]).prompt_tokens(1), usize::MAX, "they cost nothing");
    }
}
