//! The routes of responses that are kept: get one, list its input, delete it.

use super::store::{Kept, Owner};
use crate::api::AppState;
use crate::api::auth::Caller;
use crate::api::error::{ApiError, Kind, echo};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Items of a page, unless the caller says otherwise, and at the most.
const PAGE: usize = 20;
const LONGEST_PAGE: usize = 100;

/// What follows a route's `?`. Numbers and flags are read by us, so that an error names them.
#[derive(Deserialize)]
pub(in crate::api) struct Options {
    stream: Option<String>,
    after: Option<String>,
    limit: Option<String>,
    order: Option<String>,
}

type Id = Result<Path<String>, PathRejection>;
type Asked = (State<Arc<AppState>>, Extension<Caller>, Id);

/// `GET /v1/responses/{id}`
pub(in crate::api) async fn show(
    (State(state), caller, id): Asked,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    if read_options(options)?.stream.is_some_and(|value| value != "false") {
        let message = "A finished response cannot be streamed again. Get it without `stream`.";
        return Err(ApiError::at(Kind::UnsupportedParameter, "stream", message));
    }
    Ok(Json(read(&find(&state, id, caller.owner)?.object)))
}

/// `GET /v1/responses/{id}/input_items?order=desc&limit=20&after=ITEM`
pub(in crate::api) async fn input_items(
    (State(state), caller, id): Asked,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let options = read_options(options)?;
    let (limit, newest_first) = (options.limit()?, options.newest_first()?);
    let kept = find(&state, id, caller.owner)?;
    let mut items: Vec<Value> = kept.input.iter().enumerate().map(item).collect();
    if newest_first {
        items.reverse();
    }
    let mut rest = items.split_off(start(&items, options.after.as_deref())?);
    let has_more = rest.len() > limit;
    rest.truncate(limit);
    let id_of = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (id_of(rest.first()), id_of(rest.last()));
    Ok(Json(json!({"object": "list", "data": rest, "first_id": first, "last_id": last, "has_more": has_more})))
}

/// `DELETE /v1/responses/{id}`
pub(in crate::api) async fn delete((State(state), caller, id): Asked) -> Result<Json<Value>, ApiError> {
    let id = text(id);
    if !state.responses.delete(&id, caller.owner) {
        return Err(not_found(&id));
    }
    Ok(Json(json!({"id": id, "object": "response", "deleted": true})))
}

impl Options {
    fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = &self.limit else { return Ok(PAGE) };
        let limit = text.parse().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
        limit.ok_or_else(|| wrong("limit", format!("'limit' must be an integer from 1 to {LONGEST_PAGE}.")))
    }

    fn newest_first(&self) -> Result<bool, ApiError> {
        match self.order.as_deref() {
            None | Some("desc") => Ok(true),
            Some("asc") => Ok(false),
            Some(_) => Err(wrong("order", "'order' must be 'asc' or 'desc'.".to_owned())),
        }
    }
}

fn read_options(options: Result<Query<Options>, QueryRejection>) -> Result<Options, ApiError> {
    let Query(options) =
        options.map_err(|_| ApiError::new(Kind::InvalidValue, "What follows '?' in the URL cannot be read."))?;
    Ok(options)
}

fn wrong(param: &str, message: String) -> ApiError {
    ApiError::at(Kind::InvalidValue, param, message)
}

/// An input item with an id, its own or that of its place.
fn item((index, text): (usize, &String)) -> Value {
    let mut item = read(text);
    if item.get("id").is_none_or(Value::is_null) {
        item["id"] = format!("item_{index}").into();
    }
    item
}

/// Where the page behind the item `after` begins.
fn start(items: &[Value], after: Option<&str>) -> Result<usize, ApiError> {
    let Some(after) = after else { return Ok(0) };
    let position = items.iter().position(|item| item["id"] == after);
    let unknown = || wrong("after", format!("No input item has the id '{}'.", echo(after)));
    position.map(|position| position + 1).ok_or_else(unknown)
}

fn find(state: &AppState, id: Id, owner: Owner) -> Result<Arc<Kept>, ApiError> {
    let id = text(id);
    state.responses.get(&id, owner).ok_or_else(|| not_found(&id))
}

/// An id that is not even text is nobody's.
fn text(id: Id) -> String {
    id.map_or_else(|_| "?".to_owned(), |Path(id)| id)
}

fn not_found(id: &str) -> ApiError {
    let message = format!("Response with id '{}' not found.", echo(id));
    ApiError::at(Kind::ResponseNotFound, "response_id", message)
}

/// What was kept as JSON text.
fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}
