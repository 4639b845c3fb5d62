//! The HTTP surface: OpenAI's chat completions, models, adapter management, probes.
//!
//! Parses wire JSON into domain types, asks the other modules, and writes what comes back. Knows no tensors.

mod adapters;
pub mod auth;
mod body;
mod chat;
mod completions;
pub mod error;
mod generation;
mod health;
mod ids;
pub mod layers;
mod models;
pub mod pages;
mod reply;
mod responses;
mod scored;
mod sse;
mod stream;
mod tokens;
mod triton;
pub mod voice;
mod wire;

pub use generation::{TurnContext, read_turn, turn_grammar};
pub use responses::ResponseStore;

use crate::adapter::registry::Registry;
use crate::chat::tokenizer::ChatTokenizer;
use crate::engine::EngineHandle;
use crate::grammar::GrammarCompiler;
use crate::metrics::Metrics;
use crate::priority;
use auth::{Access, Keys};
use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};
use error::{ApiError, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, CorsLayer};
use voice::Voices;
use wire::WireLimits;

/// The base model as clients see it.
#[derive(Debug, Clone)]
pub struct ModelCard {
    pub name: String,
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// Width of the logits (token ids are below it).
    pub logits_width: usize,
    /// Unix seconds of start-up.
    pub created: u64,
}

/// How long requests may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// In the queue.
    pub queue: Duration,
    /// Altogether.
    pub total: Duration,
    /// Between two tokens.
    pub silence: Duration,
}

/// What the surface allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that may be inside the server at once (running, waiting or being prepared).
    pub max_requests: usize,
    /// Requests that may wait in the engine.
    pub max_queue: usize,
    /// Adapters may be loaded and unloaded over HTTP.
    pub runtime_adapters: bool,
    pub deadlines: Deadlines,
}

/// Everything a request may need, shared by all of them.
pub struct AppState {
    pub engine: EngineHandle,
    pub registry: Registry,
    pub compiler: GrammarCompiler,
    /// What all models share; how each of them shows its tokens is its voice's affair.
    pub tokenizer: Arc<ChatTokenizer>,
    pub voices: Arc<Voices>,
    pub metrics: Arc<Metrics>,
    pub model: ModelCard,
    pub limits: Limits,
    /// Longest token in bytes: a text of more than `context × this` cannot fit.
    pub longest_token: usize,
    pub gate: Gate,
    pub keys: Keys,
    /// Sites whose pages may call the server.
    pub origins: Vec<HeaderValue>,
    /// Finished responses of the Responses API.
    pub responses: ResponseStore,
}

/// Adapter loads that may be under way or wait for each other; each holds a thread.
pub const MAX_LOADS: usize = 16;

/// Lets requests in: a bounded number of them, and none while the server drains.
pub struct Gate {
    draining: AtomicBool,
    permits: Arc<Semaphore>,
    loads: Arc<Semaphore>,
    desks: Arc<Semaphore>,
    /// Adapters that requests have named are loaded one at a time.
    first_uses: Semaphore,
}

impl Gate {
    pub fn new(max_requests: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (permits, loads) = (places(max_requests), places(MAX_LOADS));
        Self {
            draining: AtomicBool::new(false),
            permits,
            loads,
            desks: places(priority::background_threads()),
            first_uses: Semaphore::new(1),
        }
    }

    /// Does a request's CPU work off the async threads and beside the engine: few at a time, in order of arrival.
    async fn prepare<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let desk = Arc::clone(&self.desks).acquire_owned().await.map_err(ApiError::internal)?;
        let working = tokio::task::spawn_blocking(move || {
            let done = priority::in_background(work);
            drop(desk);
            done
        });
        working.await.map_err(ApiError::internal)
    }

    /// A place among the adapter loads. Apart from the requests' places: a busy server can still change its adapters.
    pub fn load(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let busy = "As many adapters are being loaded as can be. Try again when one is done.";
        Arc::clone(&self.loads).try_acquire_owned().map_err(|_| ApiError::new(Kind::LoraLoadBusy, busy))
    }
}

impl AppState {
    /// From now on new requests are refused and the server is not ready.
    pub fn start_draining(&self) {
        self.gate.draining.store(true, Ordering::SeqCst);
    }

    pub fn is_draining(&self) -> bool {
        self.gate.draining.load(Ordering::SeqCst)
    }

    fn check_accepting(&self) -> Result<(), ApiError> {
        if self.is_draining() { Err(ApiError::shutting_down()) } else { Ok(()) }
    }

    /// A place inside the server; taken before the body is read, so that shedding load is cheap.
    fn permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.gate.permits).try_acquire_owned().map_err(|_| {
            let most = self.limits.max_requests;
            ApiError::new(Kind::Overloaded, format!("The server is overloaded: {most} requests are in progress."))
        })
    }

    fn wire_limits(&self) -> WireLimits {
        WireLimits { logits_width: self.model.logits_width }
    }
}

/// Every route: its path, what it needs, and what answers there.
fn routes() -> Vec<(&'static str, Access, MethodRouter<Arc<AppState>>)> {
    use Access::{Admin, Inference, Metrics, Open};
    let mut routes = vec![
        ("/v1/chat/completions", Inference, post(chat::create)),
        ("/v1/completions", Inference, post(completions::create)),
        ("/v1/responses", Inference, post(responses::create)),
        ("/v1/responses/{id}", Inference, get(responses::show).delete(responses::delete)),
        ("/v1/responses/{id}/input_items", Inference, get(responses::input_items)),
        ("/tokenize", Inference, post(tokens::tokenize)),
        ("/detokenize", Inference, post(tokens::detokenize)),
        ("/v1/models", Inference, get(models::list)),
        ("/v1/models/{*id}", Inference, get(models::show)),
        ("/v1/models/{*id}", Admin, delete(adapters::delete)),
        ("/v1/lora_adapters", Admin, get(adapters::list)),
        ("/v1/load_lora_adapter", Admin, post(adapters::load)),
        ("/v1/unload_lora_adapter", Admin, post(adapters::unload)),
        ("/v1/pin_lora_adapter", Admin, post(adapters::pin)),
        ("/", Open, get(pages::console)),
        ("/docs", Open, get(pages::docs)),
        ("/openapi.json", Open, get(pages::openapi)),
        ("/livez", Open, get(health::live)),
        ("/readyz", Open, get(health::ready)),
        ("/health", Open, get(health::ready)),
        ("/metrics", Metrics, get(health::metrics)),
    ];
    routes.extend(triton::routes());
    routes
}

/// The path of every route and what it needs, so that a test of all routes misses none.
pub fn paths() -> impl Iterator<Item = (String, Access)> {
    // A name may hold slashes; whoever describes the route need not say so.
    routes().into_iter().map(|(path, access, _)| (path.replace("{*", "{"), access))
}

/// Lets web pages of these origins call; without any, browsers allow none but the server's own.
pub fn cors(router: Router, origins: Vec<HeaderValue>) -> Router {
    if origins.is_empty() {
        return router;
    }
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // SDKs send headers of their own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([layers::REQUEST_ID, header::RETRY_AFTER, HeaderName::from_static("x-should-retry")]);
    router.layer(layer)
}

/// All routes over one state.
pub fn router(state: Arc<AppState>) -> Router {
    let guarded = |access, methods: MethodRouter<Arc<AppState>>| {
        methods.route_layer(from_fn_with_state((Arc::clone(&state), access), auth::check))
    };
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, access, methods)| router.route(path, guarded(access, methods)))
        .fallback(layers::unknown_route)
        .method_not_allowed_fallback(layers::wrong_method)
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(Arc::clone(&state), layers::observe))
        .with_state(state)
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
