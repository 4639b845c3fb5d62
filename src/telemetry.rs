//! Logs, to standard error as text or as JSON lines, filtered by `CALLSMITH_LOG`; and traces, where they are built in.
//!
//! The spans of traces have a target of their own, so that logs and traces do not get into each other.

#[cfg(feature = "otel")]
mod otel;

use crate::settings::LogFormat;
use crate::settings::Telemetry;
use axum::http::HeaderMap;
use tracing::Span;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// The target of spans that are traces.
pub const TRACES: &str = "callsmith::traces";

/// What must be told to whoever listens before the process ends; on drop.
#[derive(Default)]
pub struct Guard {
    #[cfg(feature = "otel")]
    _exporter: Option<otel::Exporter>,
}

/// Starts logging, and sending traces if the settings say where to. A second call has no effect.
pub fn start(settings: &Telemetry) -> Guard {
    let filter = EnvFilter::try_from_env("CALLSMITH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.and(filter_fn(|meta| meta.target() != TRACES));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log: Box<dyn Layer<Registry> + Send + Sync> = match settings.log {
        LogFormat::Text => layer.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    };
    #[cfg(feature = "otel")]
    if let Some(endpoint) = &settings.otlp_endpoint {
        let (exporter, traces) = otel::start(endpoint);
        // Only tests start twice; the first subscriber stays.
        drop(tracing_subscriber::registry().with(log).with(traces).try_init());
        return Guard { _exporter: exporter };
    }
    drop(tracing_subscriber::registry().with(log).try_init());
    Guard::default()
}

/// The span of one HTTP request, continuing the caller's trace if it names one. Free of cost where nobody listens.
pub fn request_span(method: &str, path: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: "callsmith::traces", "request", otel.kind = "server", otel.name = format!("{method} {path}"),
        http.request.method = method, url.path = path, http.response.status_code = tracing::field::Empty,
    );
    #[cfg(feature = "otel")]
    otel::continue_trace(&span, headers);
    #[cfg(not(feature = "otel"))]
    let _ = headers;
    span
}

/// The span of one generation; its empty fields are recorded when it ends.
pub fn generation_span(model: &str, prompt_tokens: usize) -> Span {
    tracing::info_span!(
        target: "callsmith::traces", "generation", gen_ai.request.model = model,
        gen_ai.usage.input_tokens = prompt_tokens as i64, gen_ai.usage.output_tokens = tracing::field::Empty,
        gen_ai.response.finish_reasons = tracing::field::Empty,
    )
}
