//! Server-sent events: a body made of frames that come one after another. Knows no protocol on top.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;

/// What writes a stream's frames.
pub(super) trait Frames: Send + 'static {
    /// The next non-empty piece of the body, or `None` at its end.
    fn next(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// A response that streams frames. The body owns them: a client that goes away drops them.
pub(super) fn response(frames: impl Frames) -> Response {
    let body = stream::unfold(frames, |mut frames| async move {
        let text = frames.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), frames))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Keeps nginx from collecting the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One frame of data.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// One frame with an event's name.
pub(super) fn event(name: &str, value: &Value) -> String {
    format!("event: {name}\ndata: {value}\n\n")
}
