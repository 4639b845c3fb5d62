//! An OpenAI-compatible server, as a chat needs it: its models, and streamed answers. Knows nothing of what they say.

use super::TalkError;
use crate::bench::Events;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use std::error::Error;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time between two pieces of an answer: a long prompt takes its time before the first.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);
/// Characters of an error's text that are shown.
const SHOWN: usize = 500;

pub(super) struct Server {
    http: Client,
    /// Without a slash at its end and without `/v1`.
    base: String,
    key: Option<String>,
}

impl Server {
    /// `url` may end in `/v1`. Nothing is sent yet.
    pub(super) fn new(url: &str, key: Option<String>) -> Result<Self, TalkError> {
        crate::tls::install();
        let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        let builder = Client::builder().connect_timeout(CONNECT_LIMIT).read_timeout(SILENCE_LIMIT);
        // No proxy knows this machine's own addresses.
        let local = ["//127.", "//localhost", "//[::1]"].iter().any(|host| base.contains(host));
        let builder = if local { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| TalkError::Usage(format!("no HTTP client: {error}")))?;
        Ok(Self { http, base, key })
    }

    /// The model that the server lists first.
    pub(super) async fn first_model(&self) -> Result<String, TalkError> {
        let request = self.http.get(format!("{}/v1/models", self.base));
        let text = self.send(request).await?.text().await.map_err(|error| self.lost(&error))?;
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        let first = list["data"][0]["id"].as_str().map(str::to_owned);
        first.ok_or_else(|| self.error("/v1/models lists no model; name one with --to"))
    }

    /// Asks for a streamed completion and hands on the data of each event.
    pub(super) async fn stream(
        &self,
        body: &Value,
        mut each: impl FnMut(&[u8]) -> Result<(), TalkError>,
    ) -> Result<(), TalkError> {
        let request = self.http.post(format!("{}/v1/chat/completions", self.base));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let (mut response, mut events) = (self.send(request).await?, Events::default());
        while let Some(bytes) = response.chunk().await.map_err(|error| self.lost(&error))? {
            let mut outcome = Ok(());
            events.push(&bytes, |data| {
                if outcome.is_ok() {
                    outcome = each(data);
                }
            });
            outcome?;
        }
        Ok(())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, TalkError> {
        let request = self.key.iter().fold(request, RequestBuilder::bearer_auth);
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        let said = json["error"]["message"].as_str().unwrap_or(&body);
        Err(self.error(format!("{status}: {}", said.chars().take(SHOWN).collect::<String>())))
    }

    fn lost(&self, error: &reqwest::Error) -> TalkError {
        let causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
        self.error(causes.last().map_or_else(|| error.to_string(), ToString::to_string))
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> TalkError {
        TalkError::Server { url: self.base.clone(), problem: problem.into() }
    }
}
