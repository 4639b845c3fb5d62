//! A server that speaks OpenAI's protocol, ours or another's: one request a turn, many under way at once.
//!
//! What the server writes under which grammar is its own business.

use super::{Answerer, Case, Reply, Take};
use crate::data::native;
use crate::error::{Result, TrainError};
use crate::eval::score::Call;
use callsmith::client::{CHAT, Cause, Client, Failure, Proxy};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Waits before a request is sent again to a server that is busy, or that has lost it.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];
/// The longest wait that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often an answer that makes no sense is asked for.
const READINGS: usize = 2;
/// Characters of such an answer that are shown.
const SHOWN: usize = 200;

/// A model behind a URL.
pub struct Remote {
    client: Client,
    url: String,
    model: String,
    max_tokens: usize,
    in_flight: usize,
    /// Its answers are kept.
    kept: bool,
}

/// What of a completion is looked at.
#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    /// JSON text, by the rule.
    #[serde(default)]
    arguments: Value,
}

impl Remote {
    /// The model that the server at `url` calls `model`; `key` is sent as the bearer of every request.
    ///
    /// # Errors
    /// When URL or key are none, or the system gives no HTTP client.
    pub fn new(url: &str, key: Option<&str>, model: &str, max_tokens: usize, in_flight: usize) -> Result<Self> {
        let client = Client::new(url, key, Proxy::NotLocal);
        let client = client.map_err(|failure| TrainError::input(Path::new(url), failure.to_string()))?;
        Ok(Self { client, url: url.to_owned(), model: model.to_owned(), max_tokens, in_flight, kept: false })
    }

    /// The same, whose answers are kept or not: messages tell it to whoever has to begin again.
    #[must_use]
    pub fn kept(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    fn body(&self, case: &Case) -> Value {
        let mut body = native::to_json(&case.conversation);
        body["model"] = json!(self.model);
        body["max_tokens"] = json!(self.max_tokens);
        body["temperature"] = json!(0.0);
        body
    }

    fn wrong(&self, failure: &Failure) -> TrainError {
        let remedy = match failure.cause {
            Cause::Status { code: 401 | 403, .. } => "; give the server's key with --api-key",
            Cause::Status { code: 404, .. } => {
                "; --url is the server's root (or its /v1), --served-model one of the names that /v1/models lists"
            }
            // They say it themselves.
            Cause::Usage | Cause::Status { code: 300..=399, .. } => "",
            _ if self.kept => "; what was answered is kept under --out, and the same command goes on from there",
            _ => "; with --out, answers are kept, and the same command goes on from there",
        };
        TrainError::input(Path::new(&self.url), format!("{failure}{remedy}"))
    }

    async fn answer_all(&self, cases: &[&Case], take: Take<'_>) -> Result<()> {
        let mut running: JoinSet<(usize, Result<Reply, Failure>)> = JoinSet::new();
        let mut waiting = cases.iter().enumerate();
        loop {
            while running.len() < self.in_flight
                && let Some((place, case)) = waiting.next()
            {
                let (client, body) = (self.client.clone(), self.body(case));
                running.spawn(async move { (place, ask(&client, &body).await) });
            }
            let Some(ended) = running.join_next().await else { return Ok(()) };
            let ended = ended.map_err(|error| TrainError::Data(format!("a request was lost: {error}")))?;
            take(ended.0, ended.1.map_err(|failure| self.wrong(&failure))?)?;
        }
    }
}

impl Answerer for Remote {
    fn answer(&self, cases: &[&Case], take: Take<'_>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(TrainError::io(&self.url))?.block_on(self.answer_all(cases, take))
    }

    fn identity(&self) -> Value {
        json!({"url": self.url, "model": self.model, "max_tokens": self.max_tokens})
    }
}

/// One request. What is wrong with it alone is its reply.
async fn ask(client: &Client, body: &Value) -> Result<Reply, Failure> {
    let mut problem = String::new();
    for _ in 0..READINGS {
        let text = match post(client, body).await {
            Ok(text) => text,
            Err(Failure { kind, message, cause: Cause::Status { code: 400 | 413 | 422, .. } }) => {
                return Ok(Reply::refusal(format!("{kind}: {message}")));
            }
            Err(failure) => return Err(failure),
        };
        match read(&text) {
            Ok(reply) => return Ok(reply),
            Err(error) => problem = error,
        }
    }
    Ok(Reply::refusal(problem))
}

/// The body of an answer, which is asked for again while the server is busy or loses it.
async fn post(client: &Client, body: &Value) -> Result<String, Failure> {
    let mut pauses = PAUSES.iter();
    loop {
        let failure = match client.post(CHAT, body).await {
            Ok(text) => return Ok(text),
            Err(failure) => failure,
        };
        let wanted = match failure.cause {
            Cause::Lost => Some(Duration::ZERO),
            Cause::Status { code: 429 | 500..=599, again } => Some(again.unwrap_or_default()),
            Cause::Usage | Cause::Unreachable | Cause::Status { .. } => None,
        };
        match wanted.zip(pauses.next()) {
            Some((wanted, &pause)) => sleep(wanted.clamp(pause, LONGEST_PAUSE)).await,
            None => return Err(failure),
        }
    }
}

/// The reply that a completion holds, or what is wrong with it.
fn read(text: &str) -> Result<Reply, String> {
    let shown: String = text.chars().take(SHOWN).collect();
    let unread = |error: serde_json::Error| format!("no chat completion ({error}): {shown}");
    let completion: Completion = serde_json::from_str(text).map_err(unread)?;
    let message = completion.choices.into_iter().next().map(|choice| choice.message);
    let message = message.ok_or_else(|| format!("a completion without a choice: {shown}"))?;
    let call = |ToolCall { function }| -> Call { (function.name, arguments(function.arguments)) };
    let calls: Vec<Call> = message.tool_calls.unwrap_or_default().into_iter().map(call).collect();
    // Words beside calls would hide them.
    let text = if calls.is_empty() { message.content.unwrap_or_default() } else { String::new() };
    Ok(Reply { text, calls, refused: None })
}

/// Some servers write an object where its text belongs, or nothing where a function takes nothing. Text that is no JSON equals no
/// wanted arguments.
fn arguments(given: Value) -> Value {
    match given {
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
        other => other,
    }
}

#[cfg(test)]
mod tests;
