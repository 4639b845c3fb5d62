//! Request bodies: JSON objects of bounded size, with OpenAI-shaped refusals instead of the framework's.

use super::error::{ApiError, Kind};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde_json::{Map, Value};
use std::time::Duration;

/// Largest request body, in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// Longest time for a body to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Reads the body as a JSON object.
pub(super) async fn json_object(request: Request) -> Result<Map<String, Value>, ApiError> {
    parse_object(&json_bytes(request).await?)
}

/// Reads a body that says to be JSON.
pub(super) async fn json_bytes(request: Request) -> Result<Vec<u8>, ApiError> {
    check_type(request.headers())?;
    bytes(request).await
}

/// Reads a body, whatever it says to be.
pub(super) async fn bytes(request: Request) -> Result<Vec<u8>, ApiError> {
    check_headers(request.headers())?;
    tokio::time::timeout(BODY_LIMIT, collect(request.into_body())).await.map_err(|_| {
        let message = format!("The request body did not arrive within {} s.", BODY_LIMIT.as_secs());
        ApiError::new(Kind::IncompleteBody, message)
    })?
}

/// Parses a body as a JSON object.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::new(Kind::InvalidType, "Invalid type for the request body: expected a JSON object.")),
        Err(error) => {
            let message = format!("We could not parse the JSON body of your request: {error}.");
            Err(ApiError::new(Kind::InvalidJson, message))
        }
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let message = "Send the body as JSON, with the header `content-type: application/json`.";
        return Err(ApiError::new(Kind::InvalidContentType, message));
    }
    Ok(())
}

/// Refuses what is too large by its own word, and what would have to be unpacked first.
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        let message = "Compressed bodies are not supported: send the body as it is, without content-encoding.";
        return Err(ApiError::new(Kind::InvalidContentType, message));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) { Err(too_large()) } else { Ok(()) }
}

async fn collect(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::new(Kind::IncompleteBody, "The request body could not be read."))?;
        if bytes.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_large() -> ApiError {
    ApiError::new(Kind::RequestTooLarge, format!("The request body is larger than {MAX_BODY} bytes."))
}
