//! Around every route: request ids, one log line, the size of heads, panics turned into our error shape, unknown routes.

use super::error::{ApiError, Kind, echo};
use super::{AppState, ids, triton};
use crate::telemetry;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// Largest head of a request, in bytes.
pub const HEAD_BYTES: usize = 64 * 1024;
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the response its request id, counts a refusal and logs the request once.
pub(super) async fn observe(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), echo(request.uri().path()));
    let started = Instant::now();
    let span = telemetry::request_span(method.as_str(), &path, request.headers());
    let mut response = match check_head(&request) {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(error) => in_the_paths_shape(request.uri().path(), error),
    };
    span.record("http.response.status_code", i64::from(response.status().as_u16()));
    if let Some(kind) = response.extensions().get::<Kind>() {
        state.metrics.refused(kind.code().unwrap_or("none"));
    }
    let milliseconds = started.elapsed().as_millis() as u64;
    tracing::info!(request = id, %method, path, status = response.status().as_u16(), milliseconds, "request");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The connection reads more than this at a time; what is too large for one client shall not pass for another.
fn check_head(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let bytes = headers.sum::<usize>() + request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if bytes < HEAD_BYTES {
        return Ok(());
    }
    let message = format!("The request's headers are too large: at most {HEAD_BYTES} bytes are read.");
    Err(ApiError::new(Kind::HeadTooLarge, message))
}

/// The caller's id if it is harmless in a log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    given.filter(|id| is_harmless(id)).map_or_else(ids::request, str::to_owned)
}

fn is_harmless(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The answer to a request whose handler panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer calls")]
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    ApiError::internal(text.unwrap_or_else(|| "panic".to_owned())).into_response()
}

pub(super) async fn unknown_route(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("Invalid URL ({} {})", request.method(), echo(path));
    in_the_paths_shape(path, ApiError::new(Kind::RouteNotFound, message))
}

pub(super) async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("Not allowed to {} on {}.", request.method(), echo(path));
    in_the_paths_shape(path, ApiError::new(Kind::MethodNotAllowed, message))
}

/// An error as the clients of a path read it.
pub(super) fn in_the_paths_shape(path: &str, error: ApiError) -> Response {
    if path == "/v2" || path.starts_with("/v2/") { triton::refuse(error) } else { error.into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_that_could_forge_a_log_line_is_replaced() {
        for hostile in ["", "a b", "a\tb", &"x".repeat(65), "id\u{202e}"] {
            assert!(!is_harmless(hostile), "{hostile:?}");
        }
        assert!(is_harmless("req_A-1.b"));
    }
}
