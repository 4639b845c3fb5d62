//! The pages and documents that come with the binary: the console at `/`, the description of the API and its rendering.
//!
//! They hold no data, so they are open; what they fetch asks for its own key.

use axum::http::header::{self, HeaderName};
use axum::response::IntoResponse;

const CONSOLE: &str = include_str!("console.html");
const DOCS: &str = include_str!("docs.html");
/// Every route, in OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");
/// Everything is in the page; it talks to its own server alone.
const POLICY: &str = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn console() -> impl IntoResponse {
    page(CONSOLE)
}

pub(super) async fn docs() -> impl IntoResponse {
    page(DOCS)
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

fn page(html: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, html)
}
