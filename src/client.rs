//! A server that speaks OpenAI's protocol, as a client sees it: where it is, who asks, and what a failure means.
//!
//! Knows no request but that for the list of models: a body in, the response or the failure out.

use crate::visible;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, SERVER};
use reqwest::redirect::Policy;
use reqwest::{Response, Url};
use serde_json::Value;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time between two pieces of an answer: a long prompt takes its time before the first.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);
/// Characters of an error's text that are kept.
const LONGEST_MESSAGE: usize = 500;
/// Where chat completions are asked for.
pub const CHAT: &str = "/v1/chat/completions";

/// Which servers are asked through the proxy that the environment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// None, where times are measured: the proxy would be measured too.
    Never,
    /// All but those of this machine, whose addresses no proxy knows.
    NotLocal,
}

/// A server to send requests to.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Takes no connection twice.
    fresh: reqwest::Client,
    /// Without a slash at its end and without `/v1`.
    base: String,
}

/// What kind of error a request met, and what the server or the system said about it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// In the words that are reported.
    pub kind: String,
    /// Nothing where the kind says everything.
    pub message: String,
    pub cause: Cause,
}

/// What a failure means for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No request can be made: the URL or the key is wrong.
    Usage,
    /// Nobody listens there.
    Unreachable,
    /// The answer was lost on its way, or none came in time.
    Lost,
    /// An answer with an error status, and after what time the server wants to be asked again.
    Status { code: u16, again: Option<Duration> },
}

impl Failure {
    /// A lost answer of a kind that says everything.
    pub fn of(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: String::new(), cause: Cause::Lost }
    }

    fn usage(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into(), cause: Cause::Usage }
    }

    pub(crate) fn transport(error: &reqwest::Error) -> Self {
        let (kind, cause) = match error {
            _ if error.is_connect() => ("connection failed", Cause::Unreachable),
            _ if error.is_timeout() => ("timeout", Cause::Lost),
            _ if error.is_builder() => ("no HTTP client", Cause::Usage),
            _ => ("connection lost", Cause::Lost),
        };
        // The deepest cause says most.
        let causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
        let message = causes.last().map(ToString::to_string).unwrap_or_default();
        Self { kind: kind.to_owned(), message, cause }
    }
}

impl Display for Failure {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, message, .. } = self;
        if message.is_empty() { write!(out, "{kind}") } else { write!(out, "{kind}: {message}") }
    }
}

impl Client {
    /// `url` may end in `/v1`; `key` is sent as the bearer of every request, unless it is empty. Nothing is sent yet.
    ///
    /// # Errors
    /// When URL or key are none, or the system gives no HTTP client.
    pub fn new(url: &str, key: Option<&str>, proxy: Proxy) -> Result<Self, Failure> {
        crate::tls::install();
        let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        let address = address(&base)?;
        let direct = proxy == Proxy::Never || is_local(&address);
        let headers = headers(key)?;
        let built = |kept_connections: usize| {
            let builder = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).read_timeout(SILENCE_LIMIT);
            // A POST that is sent elsewhere becomes a GET.
            let builder = builder.redirect(Policy::none()).default_headers(headers.clone());
            let builder = builder.pool_max_idle_per_host(kept_connections);
            let builder = if direct { builder.no_proxy() } else { builder };
            builder.build().map_err(|error| Failure::transport(&error))
        };
        Ok(Self { http: built(usize::MAX)?, fresh: built(0)?, base })
    }

    /// The first model that the server lists, and its header `server`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn first_model(&self) -> Result<(Option<String>, Option<String>), Failure> {
        let (text, server) = self.get("/v1/models").await?;
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        Ok((list["data"][0]["id"].as_str().map(str::to_owned), server))
    }

    /// The body of a GET and the `server` header.
    ///
    /// # Errors
    /// No connection, or an error status.
    pub async fn get(&self, path: &str) -> Result<(String, Option<String>), Failure> {
        let sent = self.fresh.get(format!("{}{path}", self.base)).send().await;
        let response = accepted(sent.map_err(|error| Failure::transport(&error))?).await?;
        let server = header(&response, &SERVER);
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
            Err(error) if error.is_request() && !error.is_connect() && !error.is_timeout() => {
                (self.send(&self.fresh, path, body).await, true)
            }
            outcome => (outcome, false),
        };
        Ok((accepted(response.map_err(|error| Failure::transport(&error))?).await?, resent))
    }

    async fn send(&self, http: &reqwest::Client, path: &str, body: String) -> reqwest::Result<Response> {
        http.post(format!("{}{path}", self.base)).header(CONTENT_TYPE, "application/json").body(body).send().await
    }
}

fn address(url: &str) -> Result<Url, Failure> {
    let wrong =
        |problem: String| Failure::usage("not a URL", format!("{problem}; write it like http://127.0.0.1:8080"));
    let address = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    match address.scheme() {
        "http" | "https" => Ok(address),
        other => Err(wrong(format!("`{other}` is neither http nor https"))),
    }
}

fn is_local(address: &Url) -> bool {
    let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn headers(key: Option<&str>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut bearer = bearer.map_err(|_| {
            Failure::usage("not a key", "it has a character that is no printable ASCII, such as a line break")
        })?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

fn header(response: &Response, name: &HeaderName) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The response, unless it came with an error status or sends elsewhere.
async fn accepted(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let code = status.as_u16();
    let again = header(&response, &RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
    let cause = Cause::Status { code, again: again.map(Duration::from_secs) };
    let (name, message) = match header(&response, &LOCATION).filter(|_| status.is_redirection()) {
        Some(place) => (None, format!("it is at {place} now; give the URL of that server")),
        None => said(&response.text().await.unwrap_or_default()),
    };
    let name = name.filter(|name| *name != code.to_string());
    let kind = format!("http {code}{}", name.map(|name| format!(" {name}")).unwrap_or_default());
    let message: String = message.chars().take(LONGEST_MESSAGE).collect();
    // People read it at a terminal.
    Err(Failure { kind: visible::name(&kind), message: visible::text(&message), cause })
}

/// The name and the words of the error that a body tells.
fn said(body: &str) -> (Option<String>, String) {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let error = &json["error"];
    (error_name(error), error["message"].as_str().unwrap_or(body).to_owned())
}

/// The code (else type, else status) in an error object of any server.
pub(crate) fn error_name(error: &Value) -> Option<String> {
    ["code", "type", "status"].iter().find_map(|key| match &error[key] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_a_key_that_cannot_be_sent_is_named_with_its_remedy() {
        let refused = |url: &str, key| Client::new(url, key, Proxy::NotLocal).unwrap_err();
        for (url, problem) in [("not a url", "relative URL"), ("localhost:8080", "`localhost` is neither http")] {
            let failure = refused(url, None);
            assert_eq!((failure.kind.as_str(), failure.cause), ("not a URL", Cause::Usage));
            assert!(failure.message.contains(problem) && failure.message.contains("http://127.0.0.1"), "{failure}");
        }
        let failure = refused("http://127.0.0.1:1/v1/", Some("a\nb"));
        assert!(
            failure.to_string().starts_with("not a key: it has a character that is no printable ASCII"),
            "{failure}"
        );
    }

    #[test]
    fn an_empty_key_is_none_and_another_is_the_bearer() {
        assert!(headers(Some("")).unwrap().is_empty() && headers(None).unwrap().is_empty());
        let headers = headers(Some("k")).unwrap();
        assert!(headers[AUTHORIZATION] == "Bearer k" && headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn this_machine_needs_no_proxy() {
        let local = |url: &str| is_local(&address(url).unwrap());
        assert!(["http://localhost:1", "http://127.0.0.9", "https://[::1]:8080"].into_iter().all(local));
        assert!(!["http://127.example.org", "http://10.0.0.1", "http://x/?//127."].into_iter().any(local));
    }

    #[test]
    fn an_error_is_told_by_its_name_and_words_in_any_servers_form() {
        let named = said(r#"{"error": {"code": "not_found", "message": "no such model"}}"#);
        assert_eq!(named, (Some("not_found".to_owned()), "no such model".to_owned()));
        assert_eq!(said("<html>"), (None, "<html>".to_owned()));
    }
}
