//! `POST /tokenize` and `POST /detokenize`, in vLLM's shapes: what a prompt is to the model, and back.

use super::error::{ApiError, Kind};
use super::generation::Refused;
use super::wire::{Fields, parse_chat, token_ids};
use super::{AppState, body, generation};
use crate::chat::ChatError;
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Tokenises `prompt`, or `messages` as the chat template of the model shows them.
pub(super) async fn tokenize(State(state): State<Arc<AppState>>, request: Request) -> Result<Json<Value>, ApiError> {
    let _permits = generation::permits(&state, &request)?;
    let bytes = body::json_bytes(request).await?;
    let work = Arc::new(move |state: &AppState| tokens_of(state, body::parse_object(&bytes)?));
    generation::with_adapter(&state, &work).await.map(Json)
}

fn tokens_of(state: &AppState, body: Map<String, Value>) -> Result<Value, Refused> {
    let fields = Fields::root(&body);
    check_model(state, &fields)?;
    let strings = fields.boolean("return_token_strs")?.unwrap_or(false);
    let ids = if fields.get("messages").is_some() { of_messages(state, body)? } else { of_prompt(state, &fields)? };
    let texts: Option<Vec<String>> =
        strings.then(|| ids.iter().map(|id| state.tokenizer.decode_all(std::slice::from_ref(id))).collect());
    Ok(json!({
        "count": ids.len(),
        "max_model_len": state.model.context_length,
        "tokens": ids,
        "token_strs": texts,
    }))
}

fn of_prompt(state: &AppState, fields: &Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let text = fields.required_string("prompt")?;
    state.check_prompt_bytes(text.len())?;
    let add_special_tokens = fields.boolean("add_special_tokens")?.unwrap_or(true);
    state.encode_prompt(text, add_special_tokens).map_err(|error| refused("prompt", &error))
}

fn of_messages(state: &AppState, mut body: Map<String, Value>) -> Result<Vec<u32>, Refused> {
    let opens_turn = Fields::root(&body).boolean("add_generation_prompt")?.unwrap_or(true);
    ["add_generation_prompt", "return_token_strs", "add_special_tokens"].iter().for_each(|key| drop(body.remove(*key)));
    if body.get("model").is_none_or(Value::is_null) {
        body.insert("model".to_owned(), json!(state.model.name));
    }
    let request = parse_chat(&body, state.wire_limits())?;
    let (_, voice) = generation::speaker(state, &request.model)?;
    let segments = voice.template(request.thoughts).render(&request.conversation, opens_turn);
    Ok(segments.and_then(|segments| state.tokenizer.encode(&segments)).map_err(|error| refused("messages", &error))?)
}

fn refused(param: &str, error: &ChatError) -> ApiError {
    ApiError::at(Kind::InvalidValue, param, format!("'{param}' cannot be tokenised: {error}"))
}

/// The text of token ids, control tokens included.
pub(super) async fn detokenize(State(state): State<Arc<AppState>>, request: Request) -> Result<Json<Value>, ApiError> {
    let _permits = generation::permits(&state, &request)?;
    let bytes = body::json_bytes(request).await?;
    let worker = Arc::clone(&state);
    state.gate.prepare(move || text_of(&worker, &body::parse_object(&bytes)?)).await?.map(Json)
}

fn text_of(state: &AppState, body: &Map<String, Value>) -> Result<Value, ApiError> {
    let fields = Fields::root(body);
    check_model(state, &fields)?;
    let ids = token_ids(fields.required("tokens")?, "tokens", state.wire_limits())?;
    Ok(json!({"prompt": state.tokenizer.decode_all(&ids)}))
}

/// Adapters share the base's tokenizer; a name that is neither is a mistake.
fn check_model(state: &AppState, fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.string("model")? {
        Some(name) if name != state.model.name && !state.knows_adapter(name) => Err(ApiError::model_not_found(name)),
        _ => Ok(()),
    }
}
