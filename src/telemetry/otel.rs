//! Spans → OpenTelemetry, over OTLP with HTTP and protobuf. Knows no span by name.

use super::TRACES;
use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Sends spans in batches from a thread of its own; what is left goes out on drop.
pub(super) struct Exporter(SdkTracerProvider);

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// The exporter and the layer that feeds it; neither if the endpoint cannot be used.
pub(super) fn start<S>(endpoint: &str) -> (Option<Exporter>, Option<impl Layer<S>>)
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    crate::tls::install();
    let traces = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter =
        SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_endpoint(traces).build();
    match exporter {
        Ok(exporter) => {
            let resource = Resource::builder().with_service_name("callsmith").build();
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("callsmith"));
            (Some(Exporter(provider)), Some(layer.with_filter(filter_fn(|meta| meta.target() == TRACES))))
        }
        Err(error) => {
            // The log has not started yet.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("callsmith: no traces are sent to {endpoint}: {error}\n"),
            );
            (None, None)
        }
    }
}

/// Makes the span a part of the trace that the caller's headers name (W3C Trace Context).
pub(super) fn continue_trace(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    // Without a parent, or without a listener, the span stands alone.
    let _ = span.set_parent(context);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
