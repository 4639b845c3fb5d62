//! One streamed chat completion over HTTP, timed as its bytes arrive.
//!
//! Knows no scenario: a request in, times and counts out, or the kind of error.

use super::answer::{Answer, Brought, Usage, Verdict};
use super::sse::Events;
use super::workload::Ask;
use crate::client::{CHAT, Client, Failure};
use reqwest::Response;
use std::time::{Duration, Instant};

/// A good answer, and when it came. Durations count from the moment that the request was due.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) first: Duration,
    /// Between pieces of content, in seconds.
    pub(super) gaps: Vec<f64>,
    /// The last piece of content, or the word that it is over.
    pub(super) last: Duration,
    /// The last byte.
    pub(super) done: Duration,
    pub(super) usage: Usage,
    /// The server counted its tokens; otherwise pieces stand for tokens.
    pub(super) counted: bool,
    pub(super) verdict: Verdict,
    pub(super) fingerprint: Option<String>,
    /// Its first connection was closed before any answer.
    pub(super) resent: bool,
}

/// Sends the request, which was due at `due`, and reads the answer to its end.
pub(super) async fn chat(client: &Client, ask: &Ask, due: Instant) -> Result<Sample, Failure> {
    // What is sent twice is timed on the same clock.
    let (response, resent) = client.open(CHAT, &ask.body).await?;
    Ok(Sample { resent, ..read(response, ask, due).await? })
}

async fn read(mut response: Response, ask: &Ask, due: Instant) -> Result<Sample, Failure> {
    let (mut events, mut answer, mut clock) = (Events::default(), Answer::default(), Clock::default());
    while let Some(bytes) = response.chunk().await.map_err(|error| Failure::transport(&error))? {
        let (now, mut failed) = (due.elapsed(), None);
        events.push(&bytes, |data| match answer.take(data) {
            Ok(brought) => clock.note(brought, now),
            Err(name) => failed = failed.take().or(Some(name)),
        });
        if let Some(name) = failed {
            return Err(Failure::of(format!("stream {name}")));
        }
    }
    let done = due.elapsed();
    if !answer.is_finished() {
        return Err(Failure::of("stream ended early"));
    }
    let counted = answer.usage.is_some();
    let mut usage = answer.usage.unwrap_or_default();
    if !counted {
        usage.completion_tokens = clock.pieces;
    }
    let first = clock.first.unwrap_or(clock.last);
    let verdict = answer.judge(&ask.expected);
    let Clock { gaps, last, .. } = clock;
    Ok(Sample { first, gaps, last, done, usage, counted, verdict, fingerprint: answer.fingerprint, resent: false })
}

/// When what came.
#[derive(Debug, Default)]
struct Clock {
    first: Option<Duration>,
    last: Duration,
    gaps: Vec<f64>,
    pieces: u64,
}

impl Clock {
    fn note(&mut self, brought: Brought, now: Duration) {
        if brought == Brought::Nothing {
            return;
        }
        if brought == Brought::Content {
            self.pieces += 1;
            match self.first {
                None => self.first = Some(now),
                Some(_) => self.gaps.push((now - self.last).as_secs_f64()),
            }
        }
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_content_starts_the_clock_of_gaps() {
        let mut clock = Clock::default();
        let at = Duration::from_millis;
        for (brought, time) in
            [(Brought::Nothing, 1), (Brought::Content, 10), (Brought::Content, 30), (Brought::Finish, 35)]
        {
            clock.note(brought, at(time));
        }
        assert_eq!((clock.first, clock.last, clock.pieces), (Some(at(10)), at(35), 2));
        assert_eq!(clock.gaps, [0.02]);
    }
}
