//! Settings → a running server: load, start the engine, listen, drain on a signal.

mod background;
mod listener;
mod load;
mod phase;
mod progress;

pub(crate) use background::Background;
pub use load::load;

use crate::adapter::AdapterError;
use crate::adapter::registry::Lease;
use crate::adapter::watch::Watcher;
use crate::api::{self, AppState};
use crate::chat::ChatError;
use crate::engine::EngineError;
use crate::grammar::GrammarError;
use crate::model::ModelError;
use crate::settings::Settings;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why a server did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot load the model: {0}")]
    Model(#[from] ModelError),
    #[error("cannot load the built-in model: {0}")]
    Embedded(String),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error("cannot start the engine: {0}")]
    Engine(#[from] EngineError),
    #[error("cannot start the grammar compiler: {0}")]
    Grammar(#[from] GrammarError),
    #[error("cannot load adapter `{name}`: {source}")]
    Adapter { name: String, source: AdapterError },
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    /// Too many of its steps failed; it does not come back.
    #[error("the engine has stopped")]
    EngineStopped,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Loads everything and serves until a signal; returns when drained.
pub async fn run(settings: Settings) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let drain = settings.drain;
    let loaded = tokio::select! {
        loaded = Loaded::new(settings) => loaded?,
        () = signals.next() => return Ok(()),
    };
    announce(&loaded.summary, loaded.address, &loaded.state)?;
    serve(loaded.server, loaded.state, signals, drain).await
}

/// A server that listens and has loaded everything, and answers from [`Self::accept`] on.
pub struct Loaded {
    server: listener::Server,
    state: Arc<AppState>,
    /// Where it listens.
    pub address: SocketAddr,
    /// A line that says what was loaded.
    pub summary: String,
}

impl Loaded {
    /// Binds and loads.
    pub async fn new(settings: Settings) -> Result<Self, ServeError> {
        let address = (settings.host.clone(), settings.port);
        let (poll, origins) = (settings.adapter_poll, settings.cors_origins.clone());
        // Bind first: a taken port is told before a long load, and connections wait instead of failing.
        let listener = TcpListener::bind(&address).await.map_err(|source| {
            let address = format!("{}:{}", address.0, address.1);
            ServeError::Listen { address, source }
        })?;
        let address = listener.local_addr()?;
        let loading = tokio::task::spawn_blocking(move || load(&settings));
        let (state, summary) = loading.await.map_err(std::io::Error::other)??;
        if let Some(poll) = poll {
            tokio::spawn(watch_adapters(Arc::clone(&state), poll));
        }
        let router = api::cors(api::router(Arc::clone(&state)), origins);
        Ok(Self { server: listener::Server::new(listener, router), state, address, summary })
    }

    /// Answers for as long as the future is kept, whatever signals come.
    pub async fn accept(mut self) {
        self.server.accept().await;
    }
}

/// Accepts until a signal; then refuses new requests, waits for the running ones up to `drain`, and closes.
///
/// # Errors
/// When the engine stops for good: who watches the process shall start it anew.
async fn serve(
    mut server: listener::Server,
    state: Arc<AppState>,
    mut signals: Signals,
    drain: Duration,
) -> Result<(), ServeError> {
    tokio::select! {
        () = server.accept() => {}
        () = signals.next() => {}
        () = state.engine.stopped() => {
            // Its last requests are being told.
            let _ = tokio::time::timeout(Duration::from_secs(1), server.close()).await;
            return Err(ServeError::EngineStopped);
        }
    }
    let deadline = tokio::time::Instant::now() + drain;
    tracing::info!(seconds = drain.as_secs(), "draining");
    state.start_draining();
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("second signal: leaving at once");
        std::process::exit(130);
    });
    // New connections are still answered, with 503, until the engine is empty.
    tokio::select! {
        () = server.accept() => {}
        () = state.engine.drain(drain) => {}
    }
    // What the engine has said must still reach its clients.
    let rest = deadline.saturating_duration_since(tokio::time::Instant::now()).max(Duration::from_secs(1));
    if tokio::time::timeout(rest, server.close()).await.is_err() {
        tracing::warn!("some connections did not close in time");
    }
    Ok(())
}

/// Loads adapters whose files have changed, again and again.
async fn watch_adapters(state: Arc<AppState>, poll: Duration) {
    let mut watcher = Watcher::default();
    loop {
        tokio::time::sleep(poll).await;
        let state = Arc::clone(&state);
        let look = move || {
            let changes = watcher.look(&state.registry);
            changes.iter().for_each(|(name, outcome)| tell_change(name, outcome));
            watcher
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(back) => watcher = back,
            Err(error) => {
                tracing::error!(%error, "adapter files are no longer watched");
                return;
            }
        }
    }
}

fn tell_change(name: &str, outcome: &Result<Lease, AdapterError>) {
    match outcome {
        Ok(lease) => tracing::info!(adapter = name, generation = lease.id, "changed adapter loaded"),
        Err(error) => tracing::warn!(adapter = name, %error, "changed adapter refused; the old one goes on"),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells on standard output what was loaded, where it listens, and a command to try.
fn announce(summary: &str, address: SocketAddr, state: &AppState) -> std::io::Result<()> {
    let body = serde_json::json!({
        "model": state.model.name,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [{"type": "function", "function": {
            "name": "get_weather",
            "description": "Current weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }}],
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{summary}")?;
    writeln!(out, "listening on http://{address}")?;
    writeln!(out, "try: curl http://{address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'")?;
    out.flush()
}
