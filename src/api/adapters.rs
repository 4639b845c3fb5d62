//! Loading, replacing, pinning and unloading adapters while requests run.

use super::AppState;
use super::body;
use super::error::{ApiError, Kind};
use super::wire::Fields;
use crate::adapter::AdapterError;
use crate::adapter::registry::{Lease, Listed, LoadOptions};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// `POST /v1/load_lora_adapter {lora_name, lora_path, load_inplace?, pinned?, expected_generation?}`
pub(super) async fn load(State(state): State<Arc<AppState>>, request: Request) -> Result<String, ApiError> {
    state.check_accepting()?;
    check_enabled(&state, "lora_path")?;
    let body = body::json_object(request).await?;
    let fields = Fields::root(&body);
    let name = fields.required_string("lora_name")?.to_owned();
    let path = fields.required_string("lora_path")?.to_owned();
    let options = LoadOptions {
        replace: fields.boolean("load_inplace")?.unwrap_or(false),
        pinned: fields.boolean("pinned")?.unwrap_or(false),
        expected: fields.string("expected_generation")?.map(str::to_owned),
        automatic: false,
    };
    let reply = format!("Success: LoRA adapter '{name}' added successfully.");
    state.load_adapter(move |state| state.registry.load(&name, &path, &options)).await?;
    Ok(reply)
}

/// `POST /v1/unload_lora_adapter {lora_name, expected_generation?}`
pub(super) async fn unload(State(state): State<Arc<AppState>>, request: Request) -> Result<String, ApiError> {
    check_enabled(&state, "lora_name")?;
    let body = body::json_object(request).await?;
    let fields = Fields::root(&body);
    let name = fields.required_string("lora_name")?;
    remove(&state, name, fields.string("expected_generation")?)?;
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

/// `POST /v1/pin_lora_adapter {lora_name, pinned}`
pub(super) async fn pin(State(state): State<Arc<AppState>>, request: Request) -> Result<String, ApiError> {
    check_enabled(&state, "lora_name")?;
    let body = body::json_object(request).await?;
    let fields = Fields::root(&body);
    let name = fields.required_string("lora_name")?;
    let pinned = fields.boolean("pinned")?.unwrap_or(true);
    state.registry.pin(name, pinned)?;
    Ok(format!("Success: LoRA adapter '{name}' {}.", if pinned { "pinned" } else { "unpinned" }))
}

/// `GET /v1/lora_adapters`
pub(super) async fn list(State(state): State<Arc<AppState>>) -> Json<Value> {
    let entry = |Listed { lease, pinned }: Listed| {
        json!({
            "name": lease.name,
            "generation": lease.id,
            "kind": lease.kind(),
            "dialect": state.voices.dialect_of(lease.chat_template.as_deref()),
            "rank": lease.rank,
            "virtual_tokens": lease.weights.virtual_tokens(),
            "bytes": lease.bytes,
            "in_flight": state.metrics.in_flight(&lease.name),
            "pinned": pinned,
            "path": lease.path,
            "created": lease.created,
        })
    };
    let adapters: Vec<Value> = state.registry.list().into_iter().map(entry).collect();
    Json(json!({
        "object": "list",
        "data": adapters,
        "used_bytes": state.registry.bytes_used(),
        "budget_bytes": state.registry.byte_budget(),
    }))
}

/// `DELETE /v1/models/{id}`, OpenAI's way to remove a fine-tuned model.
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|_| ApiError::model_not_found("?"))?;
    if name == state.model.name {
        return Err(ApiError::at(Kind::InvalidValue, "model", "The base model cannot be deleted."));
    }
    check_enabled(&state, "model")?;
    remove(&state, &name, None).map_err(|error| match error.kind() {
        Kind::LoraNotFound => ApiError::model_not_found(&name),
        _ => error,
    })?;
    Ok(Json(json!({"id": name, "object": "model", "deleted": true})))
}

/// Takes an adapter away.
pub(super) fn remove(state: &AppState, name: &str, expected: Option<&str>) -> Result<(), ApiError> {
    state.registry.unload(name, expected)?;
    tracing::info!(adapter = name, "adapter unloaded");
    Ok(())
}

impl AppState {
    /// Runs a load off the async threads, among a bounded number of them.
    pub(super) async fn load_adapter(
        self: &Arc<Self>,
        load: impl FnOnce(&Self) -> Result<Lease, AdapterError> + Send + 'static,
    ) -> Result<Lease, ApiError> {
        let (state, place) = (Arc::clone(self), self.gate.load()?);
        let loading = move || {
            // Kept by the thread: a client that goes away does not end its load.
            let _place = place;
            let started = Instant::now();
            let outcome = load(&state);
            state.metrics.adapter_loaded(started.elapsed(), outcome.is_ok());
            outcome
        };
        let lease = tokio::task::spawn_blocking(loading).await.map_err(ApiError::internal)??;
        tracing::info!(adapter = lease.name, generation = lease.id, bytes = lease.bytes, "adapter loaded");
        Ok(lease)
    }

    /// Whether the name is an adapter's, loaded or not.
    pub(super) fn knows_adapter(&self, name: &str) -> bool {
        self.registry.in_flight(name).is_some() || self.registry.may_resolve(name)
    }

    /// Loads an adapter that a request names and the root or an eviction knows. To the caller it is broken, or not available
    /// at present.
    pub(super) async fn load_by_name(self: &Arc<Self>, name: &str) -> Result<Lease, ApiError> {
        let wanted = name.to_owned();
        // One after another, so that those who administrate still find a place.
        let _turn = self.gate.first_uses.acquire().await.map_err(ApiError::internal)?;
        if let Some(lease) = self.registry.lease(name) {
            return Ok(lease);
        }
        self.load_adapter(move |state| state.registry.resolve(&wanted)).await.map_err(|error| match error.kind() {
            Kind::LoraNotFound => ApiError::model_not_found(name),
            kind => {
                tracing::warn!(adapter = name, %error, "adapter cannot be loaded");
                match kind {
                    Kind::InvalidLora | Kind::LoraRankLimit | Kind::LoraFileTooLarge | Kind::AdapterFileForbidden => {
                        ApiError::adapter_broken(name, &error)
                    }
                    _ => ApiError::adapter_unavailable(name),
                }
            }
        })
    }
}

/// Refuses changes where the operator has not allowed them.
pub(super) fn check_enabled(state: &AppState, param: &str) -> Result<(), ApiError> {
    if state.limits.runtime_adapters {
        return Ok(());
    }
    let message = "Adapters cannot be changed at run time: start the server with --adapter-root DIR to allow it.";
    Err(ApiError::at(Kind::AdapterFileForbidden, param, message))
}
