//! An OpenAI-compatible server, as a chat needs it: its models, and streamed answers. Knows nothing of what they say.

use super::TalkError;
use crate::bench::Events;
use crate::client::{CHAT, Client, Failure, Proxy};
use serde_json::Value;

pub(super) struct Server {
    client: Client,
    url: String,
}

impl Server {
    /// `url` may end in `/v1`. Nothing is sent yet.
    pub(super) fn new(url: &str, key: Option<&str>) -> Result<Self, TalkError> {
        let client = Client::new(url, key, Proxy::NotLocal);
        let client = client.map_err(|failure| TalkError::Usage(format!("{url}: {failure}")))?;
        Ok(Self { client, url: url.to_owned() })
    }

    /// The model that the server lists first.
    pub(super) async fn first_model(&self) -> Result<String, TalkError> {
        let (first, _) = self.client.first_model().await.map_err(|failure| self.error(failure.to_string()))?;
        first.ok_or_else(|| self.error("/v1/models lists no model; name one with --to"))
    }

    /// Asks for a streamed completion and hands on the data of each event.
    pub(super) async fn stream(
        &self,
        body: &Value,
        mut each: impl FnMut(&[u8]) -> Result<(), TalkError>,
    ) -> Result<(), TalkError> {
        let (response, _) = self.client.open(CHAT, body).await.map_err(|failure| self.error(failure.to_string()))?;
        let (mut response, mut events) = (response, Events::default());
        let lost = |error: reqwest::Error| self.error(Failure::transport(&error).to_string());
        while let Some(bytes) = response.chunk().await.map_err(lost)? {
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

    pub(super) fn error(&self, problem: impl Into<String>) -> TalkError {
        TalkError::Server { url: self.url.clone(), problem: problem.into() }
    }
}
