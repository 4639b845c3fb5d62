//! The KServe v2 / Triton protocol: the base and every adapter are models of one text input and one text output.
//!
//! Requests become chat requests and are answered by the same code; what comes back is the turn as the model wrote it,
//! in its dialect. Errors have Triton's shape, `{"error": "text"}`.

mod generate;
mod infer;
mod models;
mod orca;
mod prompt;
mod repository;
mod tensors;

use super::AppState;
use super::auth::Access::{self, Admin, Inference, Open};
use super::error::{ApiError, Kind};
use axum::Json;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};
use std::sync::Arc;

/// The one version that every model has.
const VERSION: &str = "1";
const INPUT: &str = "text_input";
const OUTPUT: &str = "text_output";
/// Parameters as JSON, as Triton's vLLM backend takes them.
const SAMPLING: &str = "sampling_parameters";

/// The protocol's routes; where a model or a repository is named, the version or the repository's name may be left out.
pub(super) fn routes() -> Vec<(&'static str, Access, MethodRouter<Arc<AppState>>)> {
    vec![
        ("/v2", Inference, get(models::server)),
        ("/v2/health/live", Open, get(models::live)),
        ("/v2/health/ready", Open, get(models::ready)),
        ("/v2/models/stats", Inference, get(models::all_statistics)),
        ("/v2/models/{id}", Inference, get(models::metadata)),
        ("/v2/models/{id}/versions/{version}", Inference, get(models::metadata)),
        ("/v2/models/{id}/ready", Inference, get(models::model_ready)),
        ("/v2/models/{id}/versions/{version}/ready", Inference, get(models::model_ready)),
        ("/v2/models/{id}/config", Inference, get(models::config)),
        ("/v2/models/{id}/versions/{version}/config", Inference, get(models::config)),
        ("/v2/models/{id}/stats", Inference, get(models::statistics)),
        ("/v2/models/{id}/versions/{version}/stats", Inference, get(models::statistics)),
        ("/v2/models/{id}/infer", Inference, post(infer::infer)),
        ("/v2/models/{id}/versions/{version}/infer", Inference, post(infer::infer)),
        ("/v2/models/{id}/generate", Inference, post(generate::whole)),
        ("/v2/models/{id}/versions/{version}/generate", Inference, post(generate::whole)),
        ("/v2/models/{id}/generate_stream", Inference, post(generate::stream)),
        ("/v2/models/{id}/versions/{version}/generate_stream", Inference, post(generate::stream)),
        ("/v2/repository/index", Inference, post(repository::index)),
        ("/v2/repository/{repository}/index", Inference, post(repository::index)),
        ("/v2/repository/models/{id}/load", Admin, post(repository::load)),
        ("/v2/repository/{repository}/models/{id}/load", Admin, post(repository::load)),
        ("/v2/repository/models/{id}/unload", Admin, post(repository::unload)),
        ("/v2/repository/{repository}/models/{id}/unload", Admin, post(repository::unload)),
    ]
}

/// What a path names.
#[derive(serde::Deserialize)]
struct Named {
    id: String,
    version: Option<String>,
}

impl FromRequestParts<Arc<AppState>> for Named {
    type Rejection = Refusal;

    /// A path that is not even text names nothing that exists.
    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Refusal> {
        let path = Path::<Self>::from_request_parts(parts, state).await;
        path.map(|Path(named)| named).map_err(|_| ApiError::model_not_found("?").into())
    }
}

impl Named {
    /// The model's name, if it has the version.
    fn model(self) -> Result<String, Refusal> {
        match self.version.as_deref() {
            None | Some(VERSION) => Ok(self.id),
            Some(_) => Err(ApiError::new(Kind::ModelNotFound, "Models have the version `1` alone.").into()),
        }
    }
}

/// The response to a request that failed outside this module.
pub(super) fn refuse(error: ApiError) -> Response {
    Refusal(error).into_response()
}

/// An error in the protocol's shape.
struct Refusal(ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl Refusal {
    fn body(&self) -> Value {
        let error = &self.0.body()["error"];
        let message = error["message"].as_str().unwrap_or_default();
        json!({"error": match error["param"].as_str() {
            Some(param) if !message.contains(param) => format!("{param}: {message}"),
            _ => message.to_owned(),
        }})
    }
}

impl IntoResponse for Refusal {
    /// Triton knows 400, 404, 500, 501 and 503; keys are not its affair.
    fn into_response(self) -> Response {
        let body = self.body();
        let mut response = self.0.into_response();
        *response.status_mut() = match response.status().as_u16() {
            keep @ (401 | 403 | 404 | 405 | 413 | 429 | 431 | 500 | 503 | 504) => {
                StatusCode::from_u16(keep).unwrap_or(StatusCode::BAD_REQUEST)
            }
            _ => StatusCode::BAD_REQUEST,
        };
        let (parts, _) = response.into_parts();
        let mut whole = Json(body).into_response();
        *whole.status_mut() = parts.status;
        for (name, value) in &parts.headers {
            if name != axum::http::header::CONTENT_LENGTH && name != axum::http::header::CONTENT_TYPE {
                whole.headers_mut().insert(name, value.clone());
            }
        }
        *whole.extensions_mut() = parts.extensions;
        whole
    }
}
