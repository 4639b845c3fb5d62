//! Probes and metrics: `/livez` (the engine shows life), `/readyz` and `/health` (send requests here), `/metrics`.

use super::AppState;
use crate::engine::EngineStats;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// An engine thread that has shown no life for this long is dead, in milliseconds.
const HEARTBEAT_LIMIT: u64 = 10_000;

pub(super) async fn live(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Value>) {
    if lives(&state.engine.stats()) { (StatusCode::OK, Json(json!({"status": "ok"}))) } else { stalled() }
}

/// Ready = alive, not draining, and the queue has room. Adapters never make a server unready.
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Value>) {
    let stats = state.engine.stats();
    if state.is_draining() {
        unavailable("draining")
    } else if !lives(&stats) {
        stalled()
    } else if stats.waiting >= state.limits.max_queue {
        unavailable("the queue is full")
    } else {
        (StatusCode::OK, Json(json!({"status": "ok"})))
    }
}

pub(super) async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let (adapters, bytes) = (state.registry.list(), state.registry.bytes_used());
    let cache = state.compiler.cache_stats();
    let text = state.metrics.render(&state.engine.stats(), cache, &adapters, bytes);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn lives(stats: &EngineStats) -> bool {
    stats.alive && stats.heartbeat_age_ms < HEARTBEAT_LIMIT
}

fn stalled() -> (StatusCode, Json<Value>) {
    unavailable("the engine shows no life")
}

fn unavailable(reason: &str) -> (StatusCode, Json<Value>) {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unavailable", "reason": reason})))
}
