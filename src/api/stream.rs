//! An answer as server-sent events, or folded into one response by the same code.

use super::answer::{Answer, Update};
use super::error::ApiError;
use super::wire::response::{self, Chunks};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;
use std::convert::Infallible;

/// Waits for the whole answer. Dropping the future cancels the generation.
pub(super) async fn whole(mut answer: Answer) -> Result<Response, ApiError> {
    while let Some(update) = answer.next().await {
        update?;
    }
    Ok(Json(answer.completion()).into_response())
}

/// Streams the answer. The body owns it: a client that goes away cancels the generation.
pub(super) fn events(answer: Answer, include_usage: bool) -> Response {
    let chunks = Chunks { head: answer.head.clone(), include_usage };
    let transcript = Transcript { answer, chunks, phase: Phase::Opening };
    let body = stream::unfold(transcript, |mut transcript| async move {
        let text = transcript.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), transcript))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Keeps nginx from collecting the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

enum Phase {
    Opening,
    Speaking,
    Over,
}

struct Transcript {
    answer: Answer,
    chunks: Chunks,
    phase: Phase,
}

impl Transcript {
    /// The next non-empty piece of the body, or `None` at its end.
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::Opening => {
                self.phase = Phase::Speaking;
                Some((0..self.answer.choices.len()).map(|index| data(&self.chunks.role(index))).collect())
            }
            Phase::Speaking => Some(self.speak().await),
            Phase::Over => None,
        }
    }

    async fn speak(&mut self) -> String {
        loop {
            let text = match self.answer.next().await {
                Some(Ok(update)) => self.update(&update),
                // No [DONE] after an error: the client must not take the answer for whole.
                Some(Err(error)) => self.end(data(&error.body())),
                None => {
                    let usage = self.chunks.include_usage.then(|| data(&self.chunks.usage(self.answer.usage())));
                    self.end(usage.unwrap_or_default() + "data: [DONE]\n\n")
                }
            };
            if !text.is_empty() {
                return text;
            }
        }
    }

    fn end(&mut self, text: String) -> String {
        self.phase = Phase::Over;
        text
    }

    fn update(&mut self, update: &Update) -> String {
        let choice = update.choice;
        let calls = &self.answer.spoken(choice).calls;
        let deltas: Vec<Value> = update.deltas.iter().filter_map(|piece| response::delta(piece, calls)).collect();
        let mut text = String::new();
        for delta in deltas {
            // The step's logprobs ride on its first chunk.
            let logprobs = self.answer.take_logprobs(choice);
            text.push_str(&data(&self.chunks.delta(choice, &delta, &logprobs)));
        }
        if let Some(reason) = update.finish {
            let logprobs = self.answer.take_logprobs(choice);
            text.push_str(&data(&self.chunks.finish(choice, reason, &logprobs)));
        }
        text
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}
