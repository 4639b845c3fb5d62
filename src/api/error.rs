//! Every refusal and failure of the HTTP surface: one table from kind to status, type, code and retry headers.
//!
//! Bodies have OpenAI's shape with all four keys, stay under 4 KiB and never repeat more than 200 characters of the
//! request. Internal causes go to the log, not to the client.

use crate::adapter::AdapterError;
use crate::engine::EngineError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Longest stretch of a caller's text that an error repeats, in characters.
const MAX_ECHO: usize = 200;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 450;

/// What kind of refusal or failure it is; one table says how each looks on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    InvalidJson,
    InvalidContentType,
    IncompleteBody,
    MissingParameter,
    InvalidType,
    InvalidValue,
    IntegerAboveMax,
    IntegerBelowMin,
    DecimalAboveMax,
    DecimalBelowMin,
    StringTooLong,
    EmptyString,
    ArrayTooLong,
    EmptyArray,
    ObjectTooLarge,
    ToolChoiceWithoutTools,
    InvalidFunctionParameters,
    InvalidJsonSchema,
    InvalidGrammar,
    UnsupportedParameter,
    /// A field of another route.
    MisplacedParameter,
    UnsupportedValue,
    ParameterCombination,
    ContextLengthExceeded,
    ModelNotFound,
    RouteNotFound,
    ResponseNotFound,
    PreviousResponseNotFound,
    InvalidApiKey,
    InsufficientPermissions,
    KeyLimit,
    MethodNotAllowed,
    RequestTooLarge,
    HeadTooLarge,
    Overloaded,
    ShuttingDown,
    ModelOutputInvalid,
    Timeout,
    Internal,
    InvalidLoraName,
    AdapterFileForbidden,
    AdapterFileNotFound,
    LoraNotFound,
    LoraAlreadyLoaded,
    LoraByteLimit,
    LoraGenerationMismatch,
    LoraRankLimit,
    LoraLoadBusy,
    AdapterFileChanged,
    AdapterUnavailable,
    LoraDeviceLoadFailed,
    LoraFileTooLarge,
    InvalidLora,
    LoraStorageUnavailable,
}

/// How a [`Kind`] looks on the wire.
struct Row {
    status: u16,
    code: Option<&'static str>,
    /// Seconds for `retry-after`.
    retry_after: Option<u32>,
    /// `x-should-retry`, where the status alone would mislead an SDK.
    should_retry: Option<bool>,
}

const fn row(status: u16, code: &'static str) -> Row {
    Row { status, code: Some(code), retry_after: None, should_retry: None }
}

impl Kind {
    fn row(self) -> Row {
        match self {
            Self::InvalidJson => row(400, "invalid_json"),
            Self::InvalidContentType => row(400, "invalid_content_type"),
            Self::IncompleteBody => row(400, "incomplete_body"),
            Self::MissingParameter => row(400, "missing_required_parameter"),
            Self::InvalidType => row(400, "invalid_type"),
            Self::InvalidValue => row(400, "invalid_value"),
            Self::IntegerAboveMax => row(400, "integer_above_max_value"),
            Self::IntegerBelowMin => row(400, "integer_below_min_value"),
            Self::DecimalAboveMax => row(400, "decimal_above_max_value"),
            Self::DecimalBelowMin => row(400, "decimal_below_min_value"),
            Self::StringTooLong => row(400, "string_above_max_length"),
            Self::EmptyString => row(400, "empty_string"),
            Self::ArrayTooLong => row(400, "array_above_max_length"),
            Self::EmptyArray => row(400, "empty_array"),
            Self::ObjectTooLarge => row(400, "object_above_max_properties"),
            // OpenAI sends no code here.
            Self::ToolChoiceWithoutTools => Row { status: 400, code: None, retry_after: None, should_retry: None },
            Self::InvalidFunctionParameters => row(400, "invalid_function_parameters"),
            Self::InvalidJsonSchema => row(400, "invalid_json_schema"),
            Self::InvalidGrammar => row(400, "invalid_grammar"),
            Self::UnsupportedParameter | Self::MisplacedParameter => row(400, "unsupported_parameter"),
            Self::UnsupportedValue => row(400, "unsupported_value"),
            Self::ParameterCombination => row(400, "invalid_parameter_combination"),
            Self::ContextLengthExceeded => row(400, "context_length_exceeded"),
            Self::ModelNotFound => row(404, "model_not_found"),
            Self::ResponseNotFound => row(404, "response_not_found"),
            Self::PreviousResponseNotFound => row(400, "previous_response_not_found"),
            Self::InvalidApiKey => row(401, "invalid_api_key"),
            Self::InsufficientPermissions => row(403, "insufficient_permissions"),
            Self::KeyLimit => Row { retry_after: Some(1), ..row(429, "rate_limit_exceeded") },
            Self::RouteNotFound => row(404, "unknown_url"),
            Self::MethodNotAllowed => row(405, "method_not_allowed"),
            Self::HeadTooLarge => row(431, "request_header_fields_too_large"),
            Self::RequestTooLarge => row(413, "request_too_large"),
            Self::Overloaded => Row { retry_after: Some(2), ..row(503, "server_overloaded") },
            Self::ShuttingDown => Row { retry_after: Some(5), ..row(503, "server_shutting_down") },
            Self::ModelOutputInvalid => row(500, "model_output_invalid"),
            // Sent again, it would take as long again.
            Self::Timeout => Row { should_retry: Some(false), ..row(504, "request_timeout") },
            Self::Internal => row(500, "internal_error"),
            Self::InvalidLoraName => row(400, "invalid_lora_name"),
            Self::AdapterFileForbidden => row(403, "adapter_file_forbidden"),
            Self::AdapterFileNotFound => row(404, "adapter_file_not_found"),
            Self::LoraNotFound => row(404, "lora_adapter_not_found"),
            // SDKs retry every 409; these do not heal by themselves.
            Self::LoraAlreadyLoaded => Row { should_retry: Some(false), ..row(409, "lora_adapter_already_loaded") },
            Self::LoraByteLimit => Row { should_retry: Some(false), ..row(409, "lora_byte_limit_exceeded") },
            Self::LoraGenerationMismatch => Row { should_retry: Some(false), ..row(409, "lora_generation_mismatch") },
            Self::LoraRankLimit => Row { should_retry: Some(false), ..row(409, "lora_rank_limit_exceeded") },
            // The next attempt may find the writer gone.
            Self::AdapterFileChanged => row(409, "adapter_file_changed"),
            Self::LoraLoadBusy => Row { retry_after: Some(1), ..row(429, "lora_load_busy") },
            Self::LoraDeviceLoadFailed => row(503, "lora_device_load_failed"),
            Self::AdapterUnavailable => Row { retry_after: Some(5), ..row(503, "adapter_unavailable") },
            Self::LoraFileTooLarge => row(413, "lora_adapter_file_too_large"),
            Self::InvalidLora => row(422, "invalid_lora_adapter"),
            Self::LoraStorageUnavailable => Row { retry_after: Some(5), ..row(503, "lora_storage_unavailable") },
        }
    }

    /// The `code` of the error body; `None` where OpenAI sends none.
    pub fn code(self) -> Option<&'static str> {
        self.row().code
    }
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    kind: Kind,
    message: String,
    param: Option<String>,
}

impl ApiError {
    /// An error that concerns no single field.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None }
    }

    /// An error about the field at `param`, for example `messages[2].content`.
    pub fn at(kind: Kind, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: Some(param.into()) }
    }

    /// A failure of ours: the cause is logged, the client gets a fixed text.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(Kind::Internal, "The server had an error while processing your request.")
    }

    /// The model named in a request is neither the base nor a loaded adapter.
    pub fn model_not_found(name: &str) -> Self {
        let message = format!("The model `{}` does not exist or you do not have access to it.", echo(name));
        Self::at(Kind::ModelNotFound, "model", message)
    }

    /// The same error under the name that `rename` gives its field, if it gives one. Misplaced fields keep theirs.
    #[must_use]
    pub fn rename_param(mut self, rename: impl FnOnce(&str) -> Option<String>) -> Self {
        if self.kind != Kind::MisplacedParameter
            && let Some(name) = self.param.as_deref().and_then(rename)
        {
            self.param = Some(name);
        }
        self
    }

    /// What became of the request, as metrics call it: our own failures are no refusals.
    pub(super) fn outcome(&self) -> &'static str {
        if matches!(self.kind.row().status, 500 | 504) { "error" } else { "refused" }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The body: `{"error":{message,type,param,code}}`.
    pub fn body(&self) -> Value {
        let row = self.kind.row();
        let kind = match row.status {
            500.. => "server_error",
            429 => "requests",
            _ => "invalid_request_error",
        };
        let message = shorten(&self.message, MAX_MESSAGE);
        let param = self.param.as_deref().map(echo);
        json!({"error": {"message": message, "type": kind, "param": param, "code": row.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let row = self.kind.row();
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = row.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(retry) = row.should_retry {
            headers.insert("x-should-retry", HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
        if self.kind == Kind::ShuttingDown {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if row.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Overloaded { .. } => {
                Self::new(Kind::Overloaded, format!("The server is overloaded: {message}. Try again later."))
            }
            EngineError::ShuttingDown => Self::shutting_down(),
            EngineError::ContextExceeded { .. } | EngineError::CacheTooSmall { .. } => {
                Self::at(Kind::ContextLengthExceeded, "messages", message)
            }
            EngineError::InvalidOutput(cause) => Self::output_invalid(cause),
            EngineError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl ApiError {
    /// The server is draining.
    pub fn shutting_down() -> Self {
        Self::new(Kind::ShuttingDown, "The server is shutting down. Try again.")
    }

    /// Others were in the way for too long.
    pub(super) fn waited_too_long() -> Self {
        Self::new(Kind::Overloaded, "The server is overloaded: the request waited too long. Try again later.")
    }

    /// The adapter is known, but cannot be used now.
    pub(super) fn adapter_unavailable(name: &str) -> Self {
        let message = format!("The adapter `{}` cannot be loaded at present.", echo(name));
        Self::at(Kind::AdapterUnavailable, "model", message)
    }

    /// The adapter is known, and no later attempt will find it better.
    pub(super) fn adapter_broken(name: &str, cause: &Self) -> Self {
        Self::at(Kind::InvalidLora, "model", format!("The adapter `{}` cannot be loaded: {cause}.", echo(name)))
    }

    /// The model produced something that must not be passed on.
    pub fn output_invalid(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "model output invalid");
        Self::new(Kind::ModelOutputInvalid, "The model produced an invalid output.")
    }
}

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        let message = error.to_string();
        let (kind, param) = match &error {
            AdapterError::Name { .. } => (Kind::InvalidLoraName, "lora_name"),
            AdapterError::Forbidden { .. } => (Kind::AdapterFileForbidden, "lora_path"),
            AdapterError::FileNotFound { .. } => (Kind::AdapterFileNotFound, "lora_path"),
            AdapterError::NotFound(_) => (Kind::LoraNotFound, "lora_name"),
            AdapterError::AlreadyLoaded(_) => (Kind::LoraAlreadyLoaded, "lora_name"),
            AdapterError::Generation { .. } => (Kind::LoraGenerationMismatch, "expected_generation"),
            AdapterError::Invalid(_) => (Kind::InvalidLora, "lora_path"),
            AdapterError::TooLarge { .. } => (Kind::LoraFileTooLarge, "lora_path"),
            AdapterError::Budget { .. } => (Kind::LoraByteLimit, "lora_path"),
            AdapterError::Io { .. } => {
                tracing::error!(cause = %message, "adapter storage failed");
                return Self::at(Kind::LoraStorageUnavailable, "lora_path", "The adapter's files could not be read.");
            }
            AdapterError::Rank { .. } => (Kind::LoraRankLimit, "lora_path"),
            AdapterError::Changed(_) => (Kind::AdapterFileChanged, "lora_path"),
            AdapterError::Tensor(_) => {
                tracing::error!(cause = %message, "adapter cannot be put on the device");
                return Self::at(
                    Kind::LoraDeviceLoadFailed,
                    "lora_path",
                    "The adapter could not be put on the device.",
                );
            }
        };
        Self::at(kind, param, message)
    }
}

/// At most [`MAX_ECHO`] characters of a caller's text.
pub(super) fn echo(text: &str) -> String {
    shorten(text, MAX_ECHO)
}

fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_is_small_whatever_the_caller_sent() {
        let huge = "\u{1F600}\0".repeat(100_000);
        let error = ApiError::at(Kind::InvalidValue, huge.clone(), format!("bad: {huge}"));
        assert!(error.body().to_string().len() <= 4096);
        assert!(ApiError::model_not_found(&huge).body().to_string().len() <= 4096);
    }

    #[test]
    fn a_conflict_that_will_not_heal_says_so() {
        let response = ApiError::from(AdapterError::AlreadyLoaded("a".into())).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()["x-should-retry"], "false");
    }

    #[test]
    fn an_internal_cause_stays_inside() {
        let body = ApiError::internal("/secret/path: panic at line 3").body().to_string();
        assert!(!body.contains("secret"), "{body}");
    }

    #[test]
    fn draining_closes_the_connection_and_asks_to_retry() {
        let response = ApiError::shutting_down().into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONNECTION], "close");
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
}
