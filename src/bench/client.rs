//! One streamed chat completion over HTTP, timed as its bytes arrive.
//!
//! Knows no scenario: a request in, times and counts out, or the kind of error.

use super::BenchError;
use super::answer::{Answer, Brought, Usage, Verdict, error_name};
use super::sse::Events;
use super::workload::Ask;
use reqwest::{ClientBuilder, RequestBuilder, Response};
use serde_json::Value;
use std::time::{Duration, Instant};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A server, as a client sees it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    /// Takes no connection twice.
    fresh: reqwest::Client,
    /// Without a slash at its end and without `/v1`.
    base: String,
    key: Option<String>,
}

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

/// What kind of error a request met, in the words that are reported, and what the server said about it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: String,
    pub(super) message: String,
}

impl Failure {
    fn of(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: String::new() }
    }

    fn transport(error: &reqwest::Error) -> Self {
        let kind = match error {
            _ if error.is_connect() => "connection failed",
            _ if error.is_timeout() => "timeout",
            _ if error.is_builder() => "not a URL",
            _ => "connection lost",
        };
        let cause = std::error::Error::source(error).map(ToString::to_string);
        Self { kind: kind.to_owned(), message: cause.unwrap_or_else(|| error.to_string()) }
    }
}

impl Client {
    /// `url` may end in `/v1`. Nothing is sent yet.
    pub(super) fn new(url: &str, key: Option<String>) -> Result<Self, BenchError> {
        crate::tls::install();
        // A proxy would be measured too.
        let builder = || reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT);
        let built = |builder: ClientBuilder| {
            builder.build().map_err(|error| BenchError::Usage(format!("no HTTP client: {error}")))
        };
        let http = built(builder().pool_max_idle_per_host(usize::MAX))?;
        let fresh = built(builder().pool_max_idle_per_host(0))?;
        let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        Ok(Self { http, fresh, base, key })
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The body of a GET and the `server` header.
    pub(super) async fn get(&self, path: &str) -> Result<(String, Option<String>), Failure> {
        let request = self.authorised(self.fresh.get(format!("{}{path}", self.base)));
        let response = request.send().await.map_err(|error| Failure::transport(&error))?;
        let server = response.headers().get("server").and_then(|value| value.to_str().ok()).map(str::to_owned);
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok((response.text().await.map_err(|error| Failure::transport(&error))?, server))
    }

    /// Sends the request, which was due at `due`, and reads the answer to its end.
    pub(super) async fn chat(&self, ask: &Ask, due: Instant) -> Result<Sample, Failure> {
        let body = ask.body.to_string();
        let (response, resent) = match self.post(&self.http, body.clone()).await {
            // Some servers close connections that they said to keep. A lost request is sent again, on the same clock.
            Err(error) if error.is_request() && !error.is_connect() => (self.post(&self.fresh, body).await, true),
            outcome => (outcome, false),
        };
        let response = response.map_err(|error| Failure::transport(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(Sample { resent, ..read(response, ask, due).await? })
    }

    async fn post(&self, http: &reqwest::Client, body: String) -> reqwest::Result<Response> {
        let request = self.authorised(http.post(format!("{}/v1/chat/completions", self.base)));
        request.header("content-type", "application/json").body(body).send().await
    }
}

/// The answer came with an error status.
async fn refused(response: Response) -> Failure {
    let status = response.status().as_u16();
    let body = response.text().await.unwrap_or_default();
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    let error = &json["error"];
    let name = error_name(error).filter(|name| *name != status.to_string());
    let kind = format!("http {status}{}", name.map(|name| format!(" {name}")).unwrap_or_default());
    let message = error["message"].as_str().map_or_else(|| body.chars().take(200).collect(), str::to_owned);
    Failure { kind, message }
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
