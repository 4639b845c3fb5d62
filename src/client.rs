//! A server that speaks OpenAI's protocol, as a client sees it: where it is, who asks, and what a failure means.
//!
//! Knows no request: a body in, the response or the kind of failure out.

use reqwest::{ClientBuilder, RequestBuilder, Response};
use serde_json::Value;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Where chat completions are asked for.
pub const CHAT: &str = "/v1/chat/completions";

/// A server to send requests to.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Takes no connection twice.
    fresh: reqwest::Client,
    /// Without a slash at its end and without `/v1`.
    base: String,
    key: Option<String>,
}

/// What kind of error a request met, in the words that are reported, and what the server said about it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: String,
    pub message: String,
    /// Of the answer, where there was one.
    pub status: Option<u16>,
}

impl Failure {
    /// A failure of a kind that says everything.
    pub fn of(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: String::new(), status: None }
    }

    pub(crate) fn transport(error: &reqwest::Error) -> Self {
        let kind = match error {
            _ if error.is_connect() => "connection failed",
            _ if error.is_timeout() => "timeout",
            _ if error.is_builder() => "not a URL",
            _ => "connection lost",
        };
        let cause = std::error::Error::source(error).map(ToString::to_string);
        Self { message: cause.unwrap_or_else(|| error.to_string()), ..Self::of(kind) }
    }
}

impl Client {
    /// `url` may end in `/v1`. Nothing is sent yet.
    ///
    /// # Errors
    /// When the system gives no HTTP client.
    pub fn new(url: &str, key: Option<String>) -> Result<Self, Failure> {
        crate::tls::install();
        // A proxy would be measured too.
        let builder = || reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT);
        let built = |builder: ClientBuilder| builder.build().map_err(|error| Failure::transport(&error));
        let http = built(builder().pool_max_idle_per_host(usize::MAX))?;
        let fresh = built(builder().pool_max_idle_per_host(0))?;
        let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        Ok(Self { http, fresh, base, key })
    }

    /// The body of a GET and the `server` header.
    ///
    /// # Errors
    /// No connection, or an error status.
    pub async fn get(&self, path: &str) -> Result<(String, Option<String>), Failure> {
        let request = self.authorised(self.fresh.get(format!("{}{path}", self.base)));
        let response = accepted(request.send().await.map_err(|error| Failure::transport(&error))?).await?;
        let server = response.headers().get("server").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((response.text().await.map_err(|error| Failure::transport(&error))?, server))
    }

    /// The whole body of the answer to a POST of JSON.
    ///
    /// # Errors
    /// No connection, or an error status.
    pub async fn post(&self, path: &str, body: &Value) -> Result<String, Failure> {
        let (response, _) = self.open(path, body).await?;
        response.text().await.map_err(|error| Failure::transport(&error))
    }

    /// Starts the answer to a POST of JSON; also tells whether the first connection was closed before any answer.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Result<(Response, bool), Failure> {
        let body = body.to_string();
        let (response, resent) = match self.send(&self.http, path, body.clone()).await {
            // Some servers close connections that they said to keep. A lost request is sent again.
            Err(error) if error.is_request() && !error.is_connect() => (self.send(&self.fresh, path, body).await, true),
            outcome => (outcome, false),
        };
        Ok((accepted(response.map_err(|error| Failure::transport(&error))?).await?, resent))
    }

    async fn send(&self, http: &reqwest::Client, path: &str, body: String) -> reqwest::Result<Response> {
        let request = self.authorised(http.post(format!("{}{path}", self.base)));
        request.header("content-type", "application/json").body(body).send().await
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// The response, unless it came with an error status.
async fn accepted(response: Response) -> Result<Response, Failure> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = response.text().await.unwrap_or_default();
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    let error = &json["error"];
    let name = error_name(error).filter(|name| *name != status.to_string());
    let kind = format!("http {status}{}", name.map(|name| format!(" {name}")).unwrap_or_default());
    let message = error["message"].as_str().map_or_else(|| body.chars().take(200).collect(), str::to_owned);
    Err(Failure { kind, message, status: Some(status) })
}

/// The code (else type, else status) in an error object of any server.
pub(crate) fn error_name(error: &Value) -> Option<String> {
    ["code", "type", "status"].iter().find_map(|key| match &error[key] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}
