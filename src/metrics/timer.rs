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
    /// Before the computation began.
    pub queue: (u64, u64),
    /// Up to the first token.
    pub first_token: (u64, u64),
}

/// Measures one request; dropped before [`Self::finish`] it counts as cancelled.
pub struct RequestTimer {
    metrics: Arc<Metrics>,
    model: String,
    is_adapter: bool,
    arrived: Instant,
    /// How long it waited.
    queued: Option<Duration>,
    first: Option<Instant>,
    /// The last tokens of each choice.
    last: Vec<Option<Instant>>,
    outcome: Option<&'static str>,
}

impl RequestTimer {
    pub(super) fn new(metrics: Arc<Metrics>, model: &str, is_adapter: bool, arrived: Instant) -> Self {
        let model = model.to_owned();
        Self { metrics, model, is_adapter, arrived, queued: None, first: None, last: Vec::new(), outcome: None }
    }

    /// The request has left the queue, to be computed or because it has waited too long.
    pub fn left_queue(&mut self) {
        let waited = self.arrived.elapsed();
        if self.queued.replace(waited).is_some() {
            return;
        }
        self.metrics.queue.observe(waited.as_secs_f64());
        if self.is_adapter
            && let Some(count) = self.metrics.in_flight.lock().get_mut(&self.model)
        {
            (count.waiting, count.running) = (count.waiting - 1, count.running + 1);
        }
    }

    /// `count` tokens of a choice have come.
    pub fn tokens(&mut self, choice: usize, count: usize) {
        let now = Instant::now();
        if self.first.replace(self.first.unwrap_or(now)).is_none() {
            self.metrics.first_token.observe((now - self.arrived).as_secs_f64());
        }
        if self.last.len() <= choice {
            self.last.resize(choice + 1, None);
        }
        if let Some(last) = self.last[choice].replace(now) {
            self.metrics.inter_token.observe((now - last).as_secs_f64() / count.max(1) as f64);
        }
    }

    fn count(&self, outcome: &str) {
        let mut totals = self.metrics.totals.lock();
        let totals = totals.entry(self.model.clone()).or_default();
        let add = |sum: &mut (u64, u64), took: Duration| {
            *sum = (sum.0 + 1, sum.1 + took.as_nanos() as u64);
        };
        let good = matches!(outcome, "stop" | "length" | "tool_calls");
        add(if good { &mut totals.success } else { &mut totals.failure }, self.arrived.elapsed());
        if let Some(queued) = self.queued {
            add(&mut totals.queue, queued);
        }
        if let Some(first) = self.first {
            add(&mut totals.first_token, first - self.arrived);
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
        self.metrics.duration.observe(self.arrived.elapsed().as_secs_f64());
        if self.is_adapter {
            let mut in_flight = self.metrics.in_flight.lock();
            if let Some(count) = in_flight.get_mut(&self.model) {
                *(if self.queued.is_some() { &mut count.running } else { &mut count.waiting }) -= 1;
                if count.running + count.waiting == 0 {
                    in_flight.remove(&self.model);
                }
            }
        }
    }
}
