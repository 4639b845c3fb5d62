//! Loading, replacing and unloading adapters while requests run.

use super::AppState;
use super::body;
use super::error::{ApiError, Kind};
use super::wire::Fields;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// `POST /v1/load_lora_adapter {lora_name, lora_path, load_inplace?}`
pub(super) async fn load(State(state): State<Arc<AppState>>, request: Request) -> Result<String, ApiError> {
    state.check_accepting()?;
    check_enabled(&state)?;
    let body = body::json_object(request).await?;
    let fields = Fields::root(&body);
    let name = fields.required_string("lora_name")?.to_owned();
    let path = fields.required_string("lora_path")?.to_owned();
    let replace = fields.boolean("load_inplace")?.unwrap_or(false);
    let reply = format!("Success: LoRA adapter '{name}' added successfully.");
    let place = state.gate.load()?;
    let loading = move || {
        // Kept by the thread: a client that goes away does not end its load.
        let _place = place;
        let started = Instant::now();
        let outcome = state.registry.load(&name, &path, replace);
        state.metrics.adapter_loaded(started.elapsed(), outcome.is_ok());
        outcome
    };
    let lease = tokio::task::spawn_blocking(loading).await.map_err(ApiError::internal)??;
    tracing::info!(adapter = lease.name, generation = lease.id, bytes = lease.bytes, "adapter loaded");
    Ok(reply)
}

/// `POST /v1/unload_lora_adapter {lora_name}`
pub(super) async fn unload(State(state): State<Arc<AppState>>, request: Request) -> Result<String, ApiError> {
    check_enabled(&state)?;
    let body = body::json_object(request).await?;
    let name = Fields::root(&body).required_string("lora_name")?;
    remove(&state, name)?;
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

/// `DELETE /v1/models/{id}`, OpenAI's way to remove a fine-tuned model.
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    check_enabled(&state)?;
    let Path(name) = name.map_err(|_| ApiError::model_not_found("?"))?;
    remove(&state, &name)?;
    Ok(Json(json!({"id": name, "object": "model", "deleted": true})))
}

fn remove(state: &AppState, name: &str) -> Result<(), ApiError> {
    state.registry.unload(name)?;
    tracing::info!(adapter = name, "adapter unloaded");
    Ok(())
}

fn check_enabled(state: &AppState) -> Result<(), ApiError> {
    if state.limits.runtime_adapters {
        return Ok(());
    }
    let message = "Adapters cannot be changed at run time: start the server with --adapter-root DIR to allow it.";
    Err(ApiError::at(Kind::AdapterFileForbidden, "lora_path", message))
}
