//! What load balancers ask of a generation: how full the server is, in a header of the response (ORCA, as Triton has it).

use crate::api::AppState;
use crate::model::kv_cache::BLOCK_SIZE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde_json::json;

/// How the figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

impl Format {
    /// What the request asks for.
    pub(super) fn wanted(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("endpoint-load-metrics-format")?.to_str().ok()?;
        match value.to_ascii_lowercase().as_str() {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn write(self, utilization: f64, capacity: usize) -> String {
        match self {
            Self::Text => format!(
                "TEXT named_metrics.kv_cache_utilization={utilization}, named_metrics.max_token_capacity={capacity}"
            ),
            Self::Json => {
                let metrics = json!({"kv_cache_utilization": utilization, "max_token_capacity": capacity});
                format!("JSON {}", json!({"named_metrics": metrics}))
            }
        }
    }
}

/// Adds the figures, if they are wanted.
pub(super) fn tell(format: Option<Format>, state: &AppState, mut response: Response) -> Response {
    let Some(format) = format else { return response };
    let stats = state.engine.stats();
    let utilization = stats.blocks_used as f64 / stats.blocks_total.max(1) as f64;
    if let Ok(value) = HeaderValue::from_str(&format.write(utilization, stats.blocks_total * BLOCK_SIZE)) {
        response.headers_mut().insert("endpoint-load-metrics", value);
    }
    response
}
