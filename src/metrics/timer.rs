//! The clock of one request, and what became of a model's requests. Names no metric.

use super::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What became of a model's requests: how many, and how many nanoseconds they took together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// When the last one ended, in milliseconds since 1970.
    pub last_ms: u64,
    pub success: (u64, u64),
    pub failure: (u64, u64),
    /// Up to the first token.
    pub first_token: (u64, u64),
}

/// Measures one request; dropped before [`Self::finish`] it counts as cancelled.
pub struct RequestTimer {
    pub(super) metrics: Arc<Metrics>,
    pub(super) model: String,
    pub(super) is_adapter: bool,
    pub(super) started: Instant,
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    pub(super) outcome: Option<&'static str>,
}

impl RequestTimer {
    /// The request has left the queue.
    pub fn started(&mut self) {
        self.metrics.queue.observe(self.started.elapsed().as_secs_f64());
    }

    /// `count` tokens have come.
    pub fn tokens(&mut self, count: usize) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        match self.last.replace(now) {
            None => self.metrics.first_token.observe((now - self.started).as_secs_f64()),
            Some(last) => self.metrics.inter_token.observe((now - last).as_secs_f64() / count.max(1) as f64),
        }
    }

    fn count(&self, outcome: &str) {
        let mut totals = self.metrics.totals.lock();
        let totals = totals.entry(self.model.clone()).or_default();
        let add = |sum: &mut (u64, u64), took: Duration| {
            *sum = (sum.0 + 1, sum.1 + took.as_nanos() as u64);
        };
        let good = matches!(outcome, "stop" | "length" | "tool_calls");
        add(if good { &mut totals.success } else { &mut totals.failure }, self.started.elapsed());
        if let Some(first) = self.first {
            add(&mut totals.first_token, first - self.started);
        }
        totals.last_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    }

    /// The request ended; the first outcome counts.
    pub fn finish(&mut self, outcome: &'static str) {
        self.outcome.get_or_insert(outcome);
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or("cancelled");
        self.metrics.requests.with_label_values(&[self.model.as_str(), outcome]).inc();
        self.count(outcome);
        self.metrics.duration.observe(self.started.elapsed().as_secs_f64());
        if self.is_adapter {
            let mut in_flight = self.metrics.in_flight.lock();
            if let Some(count) = in_flight.get_mut(&self.model) {
                *count -= 1;
                if *count == 0 {
                    in_flight.remove(&self.model);
                }
            }
        }
    }
}
