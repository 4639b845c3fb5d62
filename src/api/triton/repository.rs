//! The model repository: the base is always there; adapters of `--adapter-root` are loaded and unloaded by their name.

use super::{Named, Refusal, VERSION};
use crate::api::adapters::{check_enabled, remove};
use crate::api::error::{ApiError, Kind};
use crate::api::wire::Fields;
use crate::api::{AppState, body};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Every model, loaded or not; `{"ready": true}` asks for the loaded ones.
pub(super) async fn index(State(state): State<Arc<AppState>>, request: Request) -> Result<Json<Value>, Refusal> {
    let body = optional(request).await?;
    let ready_only = Fields::root(&body).boolean("ready")?.unwrap_or(false);
    let ready = |name: &str| json!({"name": name, "version": VERSION, "state": "READY", "reason": ""});
    let mut models = vec![ready(&state.model.name)];
    models.extend(state.registry.list().iter().map(|listed| ready(&listed.lease.name)));
    if !ready_only {
        let worker = Arc::clone(&state);
        let loadable = tokio::task::spawn_blocking(move || worker.registry.loadable()).await;
        let absent = |(name, unloaded): (String, bool)| json!({"name": name, "state": "UNAVAILABLE", "reason": if unloaded { "unloaded" } else { "not loaded" }});
        models.extend(loadable.map_err(ApiError::internal)?.into_iter().map(absent));
    }
    Ok(Json(Value::Array(models)))
}

/// Loads an adapter from where it came from, or from the directory of this name; again if that has changed.
pub(super) async fn load(
    State(state): State<Arc<AppState>>,
    Named { id, .. }: Named,
    request: Request,
) -> Result<StatusCode, Refusal> {
    state.check_accepting()?;
    let body = optional(request).await?;
    if let Some(parameters) = Fields::root(&body).object("parameters")?
        && let Some(key) = parameters.keys().next()
    {
        let message = "Models are loaded as they are in --adapter-root: configurations and files cannot be sent.";
        return Err(ApiError::at(Kind::UnsupportedParameter, parameters.path(key), message).into());
    }
    if id == state.model.name {
        return Ok(StatusCode::OK);
    }
    check_allowed(&state)?;
    state.load_adapter(move |state| state.registry.reload(&id)).await.map_err(|error| own_words(&error))?;
    Ok(StatusCode::OK)
}

/// Unloads an adapter; its running requests finish.
pub(super) async fn unload(
    State(state): State<Arc<AppState>>,
    Named { id, .. }: Named,
    request: Request,
) -> Result<StatusCode, Refusal> {
    // `unload_dependents` says nothing here: nothing depends on an adapter.
    optional(request).await?;
    if id == state.model.name {
        return Err(ApiError::new(Kind::InvalidValue, "The base model cannot be unloaded.").into());
    }
    check_allowed(&state)?;
    remove(&state, &id, None).map_err(|error| own_words(&error))?;
    Ok(StatusCode::OK)
}

fn check_allowed(state: &AppState) -> Result<(), ApiError> {
    check_enabled(state, "").map_err(|error| own_words(&error))
}

/// Without naming the field of another protocol.
fn own_words(error: &ApiError) -> ApiError {
    ApiError::new(error.kind(), error.to_string())
}

/// A body that may be left out.
async fn optional(request: Request) -> Result<Map<String, Value>, ApiError> {
    let bytes = body::bytes(request).await?;
    if bytes.is_empty() { Ok(Map::new()) } else { body::parse_object(&bytes) }
}
