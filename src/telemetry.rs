//! Logs: to standard error, as text or as JSON lines, filtered by `CALLSMITH_LOG`.

use crate::settings::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging. A second call has no effect.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("CALLSMITH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Only tests start twice; the first subscriber stays.
    drop(started);
}
