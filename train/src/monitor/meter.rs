//! How fast a run goes, how long it will take and how much memory it holds.

use crate::loss::Tally;
use std::fs;
use std::time::Instant;

/// Counts what is done. Time spent in pauses does not lower a rate.
pub(super) struct Meter {
    started: Instant,
    first_step: u64,
    total_steps: u64,
    interval: Interval,
}

/// What happened since the last reading.
struct Interval {
    since: Instant,
    tally: Tally,
    tokens: u64,
    samples: u64,
}

/// One interval, read.
pub(super) struct Reading {
    /// Of the steps that were not skipped.
    pub(super) tally: Tally,
    pub(super) tokens_per_second: f64,
    pub(super) samples_per_second: f64,
    /// Since the process began with the run.
    pub(super) elapsed_seconds: f64,
    /// Until the last step, at the mean pace so far, with its pauses.
    pub(super) eta_seconds: f64,
}

/// Memory of this process in the machine's RAM, in MB (10⁶ bytes).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    pub(super) resident: f64,
    pub(super) peak: f64,
}

impl Meter {
    pub(super) fn new(first_step: u64, total_steps: u64) -> Self {
        Self { started: Instant::now(), first_step, total_steps, interval: Interval::begin() }
    }

    /// Counts a step; one that was skipped has no tally.
    pub(super) fn count(&mut self, tokens: usize, samples: usize, tally: Option<&Tally>) {
        self.interval.tokens += tokens as u64;
        self.interval.samples += samples as u64;
        if let Some(tally) = tally {
            self.interval.tally.merge(tally);
        }
    }

    /// Runs `work` without counting its time.
    pub(super) fn paused<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.interval.since += start.elapsed();
        result
    }

    /// What happened since the last reading, `done` steps being done; begins a new interval.
    pub(super) fn read(&mut self, done: u64) -> Reading {
        let Interval { since, tally, tokens, samples } = std::mem::replace(&mut self.interval, Interval::begin());
        let seconds = since.elapsed().as_secs_f64().max(1e-9);
        let elapsed_seconds = self.started.elapsed().as_secs_f64();
        let made = done.saturating_sub(self.first_step).max(1) as f64;
        Reading {
            tally,
            tokens_per_second: tokens as f64 / seconds,
            samples_per_second: samples as f64 / seconds,
            elapsed_seconds,
            eta_seconds: elapsed_seconds / made * self.total_steps.saturating_sub(done) as f64,
        }
    }
}

impl Interval {
    fn begin() -> Self {
        Self { since: Instant::now(), tally: Tally::default(), tokens: 0, samples: 0 }
    }
}

/// The memory of this process, now and at its peak; `None` where the system does not say (it is Linux that does).
pub(super) fn memory() -> Option<Memory> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<Memory> {
    let megabytes = |field: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
        // The unit is written `kB` and is 1024 bytes.
        Some(rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0 / 1e6)
    };
    Some(Memory { resident: megabytes("VmRSS:")?, peak: megabytes("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn a_pause_does_not_lower_the_rate() {
        let mut meter = Meter::new(10, 20);
        meter.count(600, 3, Some(&Tally { loss: 4.0, weight: 2.0, ..Tally::default() }));
        meter.count(400, 1, None);
        meter.paused(|| sleep(Duration::from_millis(200)));
        let reading = meter.read(12);
        assert!(reading.tokens_per_second > 1000.0 / 0.2, "{}", reading.tokens_per_second);
        assert!((reading.tokens_per_second / reading.samples_per_second - 250.0).abs() < 1e-6);
        assert_eq!(reading.tally.mean(), 2.0);
        assert!(reading.elapsed_seconds >= 0.2);
        // Two steps took that long, eight are to come.
        assert!((reading.eta_seconds - reading.elapsed_seconds * 4.0).abs() < 1e-6);
        assert_eq!(meter.read(12).tokens_per_second, 0.0);
    }

    #[test]
    fn memory_is_read_in_units_of_a_million_bytes() {
        let status = "Name:\ta\nVmHWM:\t    2000 kB\nVmRSS:\t 1000 kB\n";
        assert_eq!(parse(status), Some(Memory { resident: 1.024, peak: 2.048 }));
        assert_eq!(parse("Name:\ta\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_holds_memory() {
        let memory = memory().unwrap();
        assert!(memory.resident > 1.0 && memory.peak >= memory.resident, "{memory:?}");
    }
}
