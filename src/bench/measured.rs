//! What one measurement amounts to: counts, rates and percentiles of its requests.
//!
//! An error is counted by its kind and never dropped. Knows no format of a report.

use super::answer::Verdict;
use super::client::Sample;
use super::load::{Pace, Run};
use super::stats::{Summary, ratio};
use crate::client::Failure;
use serde::Serialize;
use std::collections::BTreeMap;

/// One scenario at one pace. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) scenario: String,
    #[serde(flatten)]
    pub(super) pace: Pace,
    /// Requests that were answered, and those that were not because the run was stopped.
    pub(super) ok: usize,
    pub(super) unfinished: u64,
    /// Answered requests whose connection was closed before any answer, and that were sent again.
    pub(super) resent: usize,
    pub(super) errors: BTreeMap<String, ErrorCount>,
    /// From the first request to the last byte.
    pub(super) seconds: f64,
    pub(super) tokens: Tokens,
    pub(super) requests_per_second: Option<f64>,
    pub(super) output_tokens_per_second: Option<f64>,
    /// Prompt tokens that were not cached, over the time to the first token; only without neighbours, and for free text: what
    /// a grammar forces may come before the prompt is computed.
    pub(super) prefill_tokens_per_second: Option<f64>,
    /// Of the generated tokens, those that a grammar left no choice about; only where the server counts them.
    pub(super) forced_share: Option<f64>,
    pub(super) validity: Option<Validity>,
    pub(super) ttft_ms: Option<Summary>,
    /// Between pieces of an answer.
    pub(super) itl_ms: Option<Summary>,
    /// Each answer's mean time per token after the first piece.
    pub(super) tpot_ms: Option<Summary>,
    pub(super) latency_ms: Option<Summary>,
}

/// Errors of one kind, and what the server said about the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct ErrorCount {
    pub(super) count: u64,
    pub(super) first: String,
}

/// Tokens of all answered requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tokens {
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) output: u64,
    /// The server counted them; otherwise an answer's pieces stand for its tokens.
    pub(super) counted: bool,
}

/// Verdicts on answers that must fit a schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Validity {
    pub(super) valid: u64,
    pub(super) invalid: u64,
    /// They reached `max_tokens`, and are neither.
    pub(super) truncated: u64,
    pub(super) first_invalid: Option<String>,
}

impl Measured {
    /// `planned` requests were to be sent.
    pub(super) fn of(scenario: String, pace: Pace, planned: u64, run: Run) -> Self {
        let seconds = run.seconds();
        let unfinished = planned - run.outcomes.len() as u64;
        let (mut samples, mut errors) = (Vec::new(), BTreeMap::new());
        for outcome in run.outcomes {
            match outcome.result {
                Ok(sample) => samples.push(sample),
                Err(failure) => count(&mut errors, failure),
            }
        }
        let tokens = Tokens::of(&samples);
        let validity = Validity::of(&samples);
        let alone = pace == Pace::Concurrency(1) && validity.is_none();
        let summary = |values: Vec<f64>| Summary::of(values.into_iter().map(|seconds| 1e3 * seconds).collect());
        let each = |value: fn(&Sample) -> f64| summary(samples.iter().map(value).collect());
        Self {
            scenario,
            pace,
            ok: samples.len(),
            unfinished,
            resent: samples.iter().filter(|sample| sample.resent).count(),
            errors,
            seconds,
            tokens,
            requests_per_second: ratio(samples.len() as f64, seconds),
            output_tokens_per_second: ratio(tokens.output as f64, seconds),
            prefill_tokens_per_second: alone.then(|| prefill_rate(&samples)).flatten(),
            forced_share: None,
            validity,
            ttft_ms: each(|sample| sample.first.as_secs_f64()),
            itl_ms: summary(samples.iter().flat_map(|sample| sample.gaps.iter().copied()).collect()),
            tpot_ms: summary(samples.iter().filter_map(time_per_token).collect()),
            latency_ms: each(|sample| sample.done.as_secs_f64()),
        }
    }
}

fn count(errors: &mut BTreeMap<String, ErrorCount>, failure: Failure) {
    let entry = errors.entry(failure.kind).or_insert_with(|| ErrorCount { count: 0, first: failure.message });
    entry.count += 1;
}

fn prefill_rate(samples: &[Sample]) -> Option<f64> {
    let computed: u64 = samples.iter().map(|s| s.usage.prompt_tokens.saturating_sub(s.usage.cached())).sum();
    ratio(computed as f64, samples.iter().map(|sample| sample.first.as_secs_f64()).sum())
}

/// Seconds for each token after the first piece of the answer.
fn time_per_token(sample: &Sample) -> Option<f64> {
    let after_first = sample.usage.completion_tokens.checked_sub(1)?;
    ratio((sample.last - sample.first).as_secs_f64(), after_first as f64)
}

impl Tokens {
    fn of(samples: &[Sample]) -> Self {
        let sum = |value: fn(&Sample) -> u64| samples.iter().map(value).sum();
        Self {
            prompt: sum(|sample| sample.usage.prompt_tokens),
            cached: sum(|sample| sample.usage.cached()),
            output: sum(|sample| sample.usage.completion_tokens),
            counted: samples.iter().all(|sample| sample.counted),
        }
    }
}

impl Validity {
    /// `None` where no answer had a schema.
    fn of(samples: &[Sample]) -> Option<Self> {
        let mut found = Self::default();
        for sample in samples {
            match &sample.verdict {
                Verdict::Unchecked => return None,
                Verdict::Valid => found.valid += 1,
                Verdict::Truncated => found.truncated += 1,
                Verdict::Invalid(reason) => {
                    found.invalid += 1;
                    found.first_invalid.get_or_insert_with(|| reason.clone());
                }
            }
        }
        (!samples.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Usage;
    use super::super::load::Outcome;
    use super::*;
    use std::time::{Duration, Instant};

    fn sample(first: u64, done: u64, output: u64, verdict: Verdict) -> Sample {
        Sample {
            first: Duration::from_millis(first),
            gaps: vec![0.02],
            last: Duration::from_millis(done),
            done: Duration::from_millis(done),
            usage: Usage { prompt_tokens: 50, completion_tokens: output, ..Usage::default() },
            counted: true,
            verdict,
            fingerprint: None,
            resent: false,
        }
    }

    fn measured(results: Vec<Result<Sample, Failure>>, planned: u64) -> Measured {
        let started = Instant::now();
        let ended = started + Duration::from_secs(2);
        let outcomes = results.into_iter().map(|result| Outcome { result, ended }).collect();
        Measured::of("call".to_owned(), Pace::Concurrency(1), planned, Run { outcomes, started })
    }

    #[test]
    fn rates_are_over_the_whole_window() {
        let found = measured(
            vec![Ok(sample(100, 500, 5, Verdict::Unchecked)), Ok(sample(300, 700, 21, Verdict::Unchecked))],
            2,
        );
        assert_eq!((found.requests_per_second, found.output_tokens_per_second), (Some(1.0), Some(13.0)));
        // 100 prompt tokens in 0.4 s of waiting for first tokens.
        assert!((found.prefill_tokens_per_second.unwrap() - 250.0).abs() < 1e-9);
        // 400 ms over 4 and over 20 tokens.
        assert!((found.tpot_ms.unwrap().mean - 60.0).abs() < 1e-9);
        assert!((found.ttft_ms.unwrap().p50 - 200.0).abs() < 1e-9);
    }

    #[test]
    fn errors_are_counted_by_kind_beside_what_was_answered() {
        let failure = |kind: &str, message: &str| Err(Failure { message: message.to_owned(), ..Failure::of(kind) });
        let results = vec![
            failure("http 503", "full"),
            Ok(sample(1, 2, 1, Verdict::Truncated)),
            failure("http 503", "still full"),
            Ok(sample(1, 2, 1, Verdict::Invalid("why".to_owned()))),
            failure("connection lost", ""),
        ];
        let found = measured(results, 9);
        assert_eq!((found.ok, found.unfinished), (2, 4));
        assert_eq!(found.errors["http 503"], ErrorCount { count: 2, first: "full".to_owned() });
        assert_eq!(found.errors["connection lost"].count, 1);
        let validity = Validity { valid: 0, invalid: 1, truncated: 1, first_invalid: Some("why".to_owned()) };
        assert_eq!(found.validity, Some(validity));
        // One token has no time per further token.
        assert_eq!(found.tpot_ms, None);
    }
}
