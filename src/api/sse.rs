//! Server-sent events: a running answer as a body of frames. Knows no protocol on top.

use super::error::ApiError;
use super::generation::{Answer, Update};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;
use std::convert::Infallible;

/// The last frame of OpenAI's whole answers.
pub(super) const DONE: &str = "data: [DONE]\n\n";

/// Writes an answer's frames in some protocol. The loop over the answer is [`response`]'s.
pub(super) trait Script: Send + 'static {
    fn answer(&mut self) -> &mut Answer;
    /// What comes before anything is said; may be nothing.
    fn opening(&mut self) -> String;
    /// What an update says; may be nothing.
    fn update(&mut self, update: &Update) -> String;
    /// The end of a whole answer.
    fn end(&mut self) -> String;
    /// The end of a broken one: the client must not take it for whole.
    fn failure(&mut self, error: ApiError) -> String;
}

/// A response that streams an answer. The body owns it: a client that goes away cancels the generation.
pub(super) fn response(script: impl Script) -> Response {
    let body = stream::unfold(Some((script, Phase::Opening)), |state| async move {
        let (text, state) = next(state?).await;
        (!text.is_empty()).then(|| (Ok::<_, Infallible>(Bytes::from(text)), state))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Keeps nginx from collecting the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[derive(Clone, Copy)]
enum Phase {
    Opening,
    Speaking,
}

/// The next piece of the body, empty only at the end, and what comes after it.
async fn next<S: Script>((mut script, phase): (S, Phase)) -> (String, Option<(S, Phase)>) {
    let mut text = if let Phase::Opening = phase { script.opening() } else { String::new() };
    while text.is_empty() {
        text = match script.answer().next().await {
            Some(Ok(update)) => script.update(&update),
            Some(Err(error)) => return (script.failure(error), None),
            None => return (script.end(), None),
        };
    }
    (text, Some((script, Phase::Speaking)))
}

/// One frame of data.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// One frame with an event's name.
pub(super) fn event(name: &str, value: &Value) -> String {
    format!("event: {name}\ndata: {value}\n\n")
}
