//! When requests are sent: so many under way at a time (closed loop), or at their own times (open loop).
//!
//! Knows what a request's outcome is, and not how it comes about.

use super::client::Sample;
use super::words::generator;
use crate::client::Failure;
use futures::StreamExt;
use rand_chacha::rand_core::Rng;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The stream of a seed that arrivals are drawn from; prompts use low numbers.
const ARRIVALS: u64 = u64::MAX - 1;

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pace {
    /// So many under way at any time.
    Concurrency(usize),
    /// A Poisson process of so many a second.
    Rate(f64),
}

/// What became of a request, and when it was over.
pub(super) struct Outcome {
    pub(super) result: Result<Sample, Failure>,
    pub(super) ended: Instant,
}

/// What became of all of them.
pub(super) struct Run {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) started: Instant,
}

impl Run {
    /// From the first request to the last byte, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        let end = self.outcomes.iter().map(|outcome| outcome.ended).max();
        end.map_or(0.0, |end| end.duration_since(self.started).as_secs_f64())
    }
}

/// Sends requests `0..count` by `send(number, due)`, tells `each` outcome, and returns early when `stop` does; what is under
/// way then is dropped.
pub(super) async fn drive<F>(
    pace: Pace,
    (count, seed): (u64, u64),
    send: impl Fn(u64, Instant) -> F,
    stop: impl Future<Output = ()>,
    mut each: impl FnMut(),
) -> Run
where
    F: Future<Output = Result<Sample, Failure>>,
{
    let started = Instant::now();
    let (places, arrivals) = match pace {
        Pace::Concurrency(places) => (places, None),
        Pace::Rate(rate) => (count.max(1) as usize, Some(arrivals(rate, count, seed))),
    };
    let send = &send;
    let one = |number: u64| {
        let after = arrivals.as_ref().map(|arrivals| arrivals[number as usize]);
        async move {
            let due = after.map_or_else(Instant::now, |after| started + after);
            // A timer has a resolution of a millisecond: none where there is nothing to wait for.
            if after.is_some() {
                tokio::time::sleep_until(due.into()).await;
            }
            let result = send(number, due).await;
            Outcome { result, ended: Instant::now() }
        }
    };
    let running = futures::stream::iter(0..count).map(one).buffer_unordered(places).take_until(Box::pin(stop));
    let outcomes = running.inspect(|_| each()).collect().await;
    Run { outcomes, started }
}

/// The times of `count` arrivals: exponential gaps of mean `1 / rate` seconds, the first arrival after one of them.
fn arrivals(rate: f64, count: u64, seed: u64) -> Vec<Duration> {
    let mut random = generator(seed, ARRIVALS);
    let mut time = 0.0;
    let arrival = |_| {
        // 53 random bits: uniform in (0, 1].
        let uniform = ((random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        time -= uniform.ln() / rate;
        Duration::from_secs_f64(time)
    };
    (0..count).map(arrival).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn arrivals_are_seeded_and_exponential() {
        let times = arrivals(50.0, 20_000, 3);
        assert_eq!(times, arrivals(50.0, 20_000, 3));
        assert_ne!(times[..10], arrivals(50.0, 10, 4)[..]);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean, and 1 - 1/e of it lies below that.
        assert!((mean - 0.02).abs() < 0.001, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
        let below = gaps.iter().filter(|gap| **gap < mean).count() as f64 / gaps.len() as f64;
        assert!((below - 0.632).abs() < 0.02, "{below}");
    }

    fn failure() -> Result<Sample, Failure> {
        Err(Failure::of("x"))
    }

    #[tokio::test]
    async fn no_more_than_the_given_number_are_under_way() {
        let (now, most, told) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let send = |_, _| async {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            tokio::task::yield_now().await;
            now.set(now.get() - 1);
            failure()
        };
        let pace = Pace::Concurrency(3);
        let run = drive(pace, (20, 0), send, std::future::pending(), || told.set(told.get() + 1)).await;
        assert_eq!((run.outcomes.len(), most.get(), told.get()), (20, 3, 20));
    }

    #[tokio::test]
    async fn an_open_loop_does_not_wait_for_answers() {
        let sent = Cell::new(0);
        let send = |_, due: Instant| {
            assert!(Instant::now() >= due);
            sent.set(sent.get() + 1);
            std::future::pending::<Result<Sample, Failure>>()
        };
        let all_sent = std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if sent.get() == 5 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        let run = drive(Pace::Rate(2000.0), (5, 1), send, all_sent, || {}).await;
        assert_eq!((sent.get(), run.outcomes.len()), (5, 0));
    }
}
