//! What there is: server and model metadata, configuration, health and statistics.

use super::{INPUT, Named, OUTPUT, Refusal, SAMPLING, VERSION};
use crate::api::error::{ApiError, Kind};
use crate::api::{AppState, health};
use crate::metrics::Totals;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const PLATFORM: &str = "callsmith";

pub(super) async fn server() -> Json<Value> {
    let extensions = [
        "model_repository",
        "model_repository(unload_dependents)",
        "model_configuration",
        "statistics",
        "binary_tensor_data",
        "generate",
    ];
    Json(json!({"name": "callsmith", "version": env!("CARGO_PKG_VERSION"), "extensions": extensions}))
}

pub(super) async fn live(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Value>) {
    let live = health::is_alive(&state);
    (status(live), Json(json!({"live": live})))
}

pub(super) async fn ready(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Value>) {
    let ready = health::unready(&state).is_none();
    (status(ready), Json(json!({"ready": ready})))
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

/// The name, if it is the base's or a resident adapter's.
pub(super) fn resident(state: &AppState, named: Named) -> Result<String, Refusal> {
    let name = named.model()?;
    if name == state.model.name || state.registry.in_flight(&name).is_some() {
        return Ok(name);
    }
    Err(ApiError::model_not_found(&name).into())
}

pub(super) async fn metadata(State(state): State<Arc<AppState>>, named: Named) -> Result<Json<Value>, Refusal> {
    let tensor = |name: &str| json!({"name": name, "datatype": "BYTES", "shape": [1]});
    Ok(Json(json!({
        "name": resident(&state, named)?,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [tensor(INPUT), tensor(SAMPLING)],
        "outputs": [tensor(OUTPUT)],
    })))
}

pub(super) async fn model_ready(State(state): State<Arc<AppState>>, named: Named) -> Result<Json<Value>, Refusal> {
    let not_ready = |cause: &str| Refusal(ApiError::new(Kind::InvalidValue, cause));
    let name = resident(&state, named).map_err(|_| not_ready("Model version not ready"))?;
    match health::unready(&state) {
        None => Ok(Json(json!({"name": name, "ready": true}))),
        Some(reason) => Err(not_ready(&format!("Model version not ready: {reason}"))),
    }
}

pub(super) async fn config(State(state): State<Arc<AppState>>, named: Named) -> Result<Json<Value>, Refusal> {
    let tensor = |name: &str, optional: bool| json!({"name": name, "data_type": "TYPE_STRING", "dims": [1], "optional": optional});
    let name = resident(&state, named)?;
    let template = state.registry.card(&name).and_then(|card| card.chat_template);
    Ok(Json(json!({
        "name": name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [tensor(INPUT, false), tensor(SAMPLING, true)],
        "output": [{"name": OUTPUT, "data_type": "TYPE_STRING", "dims": [1]}],
        "model_transaction_policy": {"decoupled": false},
        "parameters": {
            "dialect": {"string_value": state.voices.dialect_of(template.as_deref())},
            "context_length": {"string_value": state.model.context_length.to_string()},
        },
    })))
}

pub(super) async fn statistics(State(state): State<Arc<AppState>>, named: Named) -> Result<Json<Value>, Refusal> {
    let name = resident(&state, named)?;
    Ok(Json(json!({"model_stats": [model_statistics(&state, &name)]})))
}

pub(super) async fn all_statistics(State(state): State<Arc<AppState>>) -> Json<Value> {
    let adapters = state.registry.list().into_iter().map(|listed| listed.lease.name.clone());
    let names = std::iter::once(state.model.name.clone()).chain(adapters);
    let models: Vec<Value> = names.map(|name| model_statistics(&state, &name)).collect();
    Json(json!({"model_stats": models}))
}

fn model_statistics(state: &AppState, name: &str) -> Value {
    let Totals { last_ms, success, failure, queue, first_token } = state.metrics.totals(name);
    let duration = |(count, ns): (u64, u64)| json!({"count": count, "ns": ns});
    let none = duration((0, 0));
    let compute = success.1.saturating_sub(first_token.1);
    json!({
        "name": name,
        "version": VERSION,
        "last_inference": last_ms,
        "inference_count": success.0,
        "execution_count": success.0,
        "inference_stats": {
            "success": duration(success),
            "fail": duration(failure),
            // Up to the start of the computation: preparation and waiting.
            "queue": duration(queue),
            // Then up to the first token: the prompt.
            "compute_input": duration((first_token.0, first_token.1.saturating_sub(queue.1))),
            "compute_infer": duration((success.0, compute)),
            "compute_output": none,
            "cache_hit": none,
            "cache_miss": none,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    })
}
