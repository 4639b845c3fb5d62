//! `GET /v1/models`: the base first, then the adapters that have been loaded.

use super::AppState;
use super::error::ApiError;
use crate::adapter::registry::Card;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn list(State(state): State<Arc<AppState>>) -> Json<Value> {
    let mut models = vec![base(&state)];
    models.extend(state.registry.cards().iter().map(|card| adapter(&state, card)));
    Json(json!({"object": "list", "data": models}))
}

pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    // A name that is not even text cannot exist.
    let Path(name) = name.map_err(|_| ApiError::model_not_found("?"))?;
    if name == state.model.name {
        return Ok(Json(base(&state)));
    }
    let card = state.registry.card(&name).ok_or_else(|| ApiError::model_not_found(&name))?;
    Ok(Json(adapter(&state, &card)))
}

fn base(state: &AppState) -> Value {
    let model = &state.model;
    json!({
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "callsmith",
        "root": model.name,
        "parent": null,
        "max_model_len": model.context_length,
        "dialect": state.voices.base().dialect.name(),
    })
}

fn adapter(state: &AppState, card: &Card) -> Value {
    json!({
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "callsmith",
        "root": card.path,
        "parent": state.model.name,
        "max_model_len": state.model.context_length.saturating_sub(card.virtual_tokens),
        "dialect": state.voices.dialect_of(card.chat_template.as_deref()),
        "generation": card.id,
    })
}
