//! Probes and metrics: `/livez` (the engine shows life), `/readyz` and `/health` (send requests here), `/metrics`.

use super::AppState;
use crate::engine::EngineStats;
use crate::metrics::AdapterStats;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// An engine thread that has shown no life for this long is dead, in milliseconds: a probe a second tells within ten.
const HEARTBEAT_LIMIT: u64 = 9_000;
const NO_LIFE: &str = "the engine shows no life";

pub(super) async fn live(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Value>) {
    answer((!is_alive(&state)).then_some(NO_LIFE))
}

pub(super) async fn ready(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Value>) {
    answer(unready(&state))
}

/// The engine has shown life lately.
pub(super) fn is_alive(state: &AppState) -> bool {
    lives(&state.engine.stats())
}

/// Why no requests should come; `None` = alive, not draining, and the queue has room. Adapters never make a server unready.
pub(super) fn unready(state: &AppState) -> Option<&'static str> {
    let stats = state.engine.stats();
    if state.is_draining() {
        Some("draining")
    } else if !lives(&stats) {
        Some(NO_LIFE)
    } else if stats.waiting >= state.limits.max_queue {
        Some("the queue is full")
    } else {
        None
    }
}

pub(super) async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let (cache, adapters) = (state.compiler.cache_stats(), AdapterStats::of(&state.registry));
    let text = state.metrics.render(&state.engine.stats(), cache, &adapters);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn lives(stats: &EngineStats) -> bool {
    stats.alive && stats.heartbeat_age_ms < HEARTBEAT_LIMIT
}

fn answer(trouble: Option<&str>) -> (StatusCode, Json<Value>) {
    match trouble {
        None => (StatusCode::OK, Json(json!({"status": "ok"}))),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unavailable", "reason": reason}))),
    }
}
