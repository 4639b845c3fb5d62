//! From a request of any protocol to a running [`Answer`].
//!
//! Everything that can be refused is refused before the answer exists, and so before the first byte of a response: the
//! model's name, schemas, prompt length, compilation, the queue. Knows no wire format.

mod answer;
mod form;
mod parsers;
mod rules;
mod spoken;
mod stop;
mod tools;
mod turn;

pub(super) use answer::{Answer, Update};
pub(super) use rules::TurnRules;
pub use rules::{TurnContext, read_turn, turn_grammar};
pub(super) use spoken::{Call, Spoken, SpokenToken, Usage};
pub(super) use tools::AdmittedTools;

use super::auth::Caller;
use super::error::{ApiError, Kind};
use super::{AppState, Deadlines, body};
use crate::adapter::registry::Lease;
use crate::engine::{Event, GenerateRequest, SamplingParams};
use crate::metrics::RequestTimer;
use crate::telemetry;
use answer::{Choice, Clock};
use axum::extract::Request;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use turn::Turn;

/// A checked request of some protocol.
pub(super) trait Ask: Sized + Send + 'static {
    /// The base's name or an adapter's.
    fn model(&self) -> &str;
    /// What is to be generated. Takes as long as the request is large.
    fn plan(&mut self, state: &AppState) -> Result<Plan, ApiError>;
}

/// What is to be generated.
pub(super) struct Plan {
    pub(super) prompts: Vec<Vec<u32>>,
    /// Generations for each prompt.
    pub(super) n: usize,
    pub(super) rules: TurnRules,
    pub(super) params: SamplingParams,
    /// Most tokens of each generation; `None` = as many as there is room for.
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    /// Somebody wants to see the tokens.
    pub(super) keep_tokens: bool,
}

/// A request that is inside the server, and its body.
pub(super) struct Entered {
    pub(super) body: Vec<u8>,
    permits: Permits,
    tenant: Option<[u8; 32]>,
    arrived: Instant,
}

/// The request's places inside the server, and among those of its key.
pub(super) struct Permits {
    _server: OwnedSemaphorePermit,
    _key: Option<OwnedSemaphorePermit>,
}

/// Lets a request in and reads its body, which must say to be JSON.
pub(super) async fn enter(state: &AppState, request: Request) -> Result<Entered, ApiError> {
    enter_reading(state, request, body::json_bytes).await
}

/// The same for a body that need not say what it is, and may hold binary data.
pub(super) async fn enter_any(state: &AppState, request: Request) -> Result<Entered, ApiError> {
    enter_reading(state, request, body::bytes).await
}

async fn enter_reading<F>(
    state: &AppState,
    request: Request,
    read: impl FnOnce(Request) -> F,
) -> Result<Entered, ApiError>
where
    F: Future<Output = Result<Vec<u8>, ApiError>>,
{
    let (permits, tenant) = (permits(state, &request)?, tenant(&request));
    let body = read(request).await?;
    Ok(Entered { body, permits, tenant, arrived: Instant::now() })
}

/// Whose request it is. What one key's prompts have left in the cache is not for another's to find out.
fn tenant(request: &Request) -> Option<[u8; 32]> {
    request.extensions().get::<Caller>().and_then(|caller| caller.owner)
}

/// Taken before the body is read, so that shedding load is cheap.
pub(super) fn permits(state: &AppState, request: &Request) -> Result<Permits, ApiError> {
    state.check_accepting()?;
    let key = request.extensions().get::<Caller>().and_then(|caller| caller.places.clone());
    Ok(Permits { _key: key.map(key_permit).transpose()?, _server: state.permit()? })
}

fn key_permit(places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    let busy = "This API key has as many requests in progress as it may have. Try again when one is over.";
    places.try_acquire_owned().map_err(|_| ApiError::new(Kind::KeyLimit, busy))
}

/// A request for a model that is there.
struct Accepted<R> {
    request: R,
    lease: Option<Lease>,
    timer: RequestTimer,
    plan: Plan,
}

/// Makes the request out of its body, and starts what it asks for.
pub(super) async fn begin<R: Ask>(
    state: Arc<AppState>,
    entered: Entered,
    parse: impl Fn(&AppState, &[u8]) -> Result<R, ApiError> + Send + Sync + 'static,
) -> Result<(R, Answer), ApiError> {
    let Entered { body, permits, tenant, arrived } = entered;
    let clock = clock(&state, arrived);
    let work = Arc::new(move |state: &AppState| accept(state, parse(state, &body)?, arrived));
    let ready = async {
        let accepted = accepted(&state, &work).await?;
        let events = start(&state, &accepted, tenant).await;
        Ok::<_, ApiError>((accepted, events))
    };
    // Who waits too long for this waits for others, as in the queue.
    let ready = tokio::time::timeout_at(clock.start_by, ready).await.map_err(|_| ApiError::waited_too_long())?;
    let (Accepted { request, lease, mut timer, plan }, events) = ready?;
    let events = events.inspect_err(|error| timer.finish(error.outcome()))?;
    let choices = events.into_iter().enumerate().map(|(index, events)| choice(&state, &plan, index, events)).collect();
    let usage = Usage { prompt: plan.prompts.iter().map(Vec::len).sum(), ..Usage::default() };
    let generation = lease.map_or_else(|| "base".to_owned(), |lease| lease.id.clone());
    let (permits, early) = (Some(permits), VecDeque::new());
    let span = telemetry::generation_span(request.model(), usage.prompt);
    let mut answer =
        Answer { state, generation, rules: plan.rules, choices, usage, timer, clock, early, span, permits };
    answer.started().await.inspect_err(|error| answer.timer.finish(error.outcome()))?;
    Ok((request, answer))
}

fn clock(state: &AppState, arrived: Instant) -> Clock {
    let Deadlines { queue, total, silence } = state.limits.deadlines;
    let arrived = tokio::time::Instant::from_std(arrived);
    Clock { start_by: arrived + queue, end_by: arrived + total, silence }
}

/// Why a request did not get to its plan.
enum Refused {
    Error(ApiError),
    /// Its adapter is known and has to be loaded first.
    NotResident(String),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Error(error) => error,
            Refused::NotResident(name) => Self::adapter_unavailable(&name),
        }
    }
}

/// The request with its plan; an adapter that is known and not there is loaded first.
async fn accepted<R: Ask>(
    state: &Arc<AppState>,
    work: &Arc<impl Fn(&AppState) -> Result<Accepted<R>, Refused> + Send + Sync + 'static>,
) -> Result<Accepted<R>, ApiError> {
    let name = match at_a_desk(state, work).await {
        Err(Refused::NotResident(name)) => name,
        outcome => return outcome.map_err(ApiError::from),
    };
    // Held, so that nobody makes it go again before the request has its own lease.
    let _held = state.load_by_name(&name).await?;
    at_a_desk(state, work).await.map_err(ApiError::from)
}

type Work<R> = dyn Fn(&AppState) -> Result<Accepted<R>, Refused> + Send + Sync;

async fn at_a_desk<R: Ask>(
    state: &Arc<AppState>,
    work: &Arc<impl Fn(&AppState) -> Result<Accepted<R>, Refused> + Send + Sync + 'static>,
) -> Result<Accepted<R>, Refused> {
    let (worker, work) = (Arc::clone(state), Arc::clone(work) as Arc<Work<R>>);
    state.gate.prepare(move || work(&worker)).await?
}

/// Everything before the grammar is compiled. The clock runs since the body `arrived`.
fn accept<R: Ask>(state: &AppState, mut request: R, arrived: Instant) -> Result<Accepted<R>, Refused> {
    let lease = lease(state, request.model())?;
    let mut timer = state.metrics.start_request(request.model(), lease.is_some(), arrived);
    let plan = request.plan(state).inspect_err(|error| timer.finish(error.outcome()))?;
    Ok(Accepted { request, lease, timer, plan })
}

/// The adapter generation behind a model name; `None` = the base.
fn lease(state: &AppState, model: &str) -> Result<Option<Lease>, Refused> {
    if model == state.model.name {
        return Ok(None);
    }
    match state.registry.lease(model) {
        Some(lease) => Ok(Some(lease)),
        None if state.registry.may_resolve(model) => Err(Refused::NotResident(model.to_owned())),
        None => Err(ApiError::model_not_found(model).into()),
    }
}

/// Compiles and queues every generation of a plan: the first prompt's, the second's, and so on.
async fn start<R>(
    state: &AppState,
    Accepted { plan, lease, .. }: &Accepted<R>,
    tenant: Option<[u8; 32]>,
) -> Result<Vec<UnboundedReceiver<Event>>, ApiError> {
    let (count, most) = (plan.prompts.len() * plan.n, state.limits.max_requests);
    if count > most {
        let message = format!("This server can prepare {most} answers at a time, and {count} are asked for.");
        return Err(ApiError::at(Kind::IntegerAboveMax, "n", message));
    }
    if plan.params.ignore_eos && !plan.rules.are_none() {
        let message =
            "'ignore_eos' is for free text without 'tools': a call or a formatted answer ends where it is complete.";
        return Err(ApiError::at(Kind::ParameterCombination, "ignore_eos", message));
    }
    let mut generations = Vec::with_capacity(count);
    let virtual_tokens = lease.as_ref().map_or(0, |lease| lease.weights.virtual_tokens());
    for prompt in &plan.prompts {
        let room = state.room_after(prompt.len(), virtual_tokens)?;
        for index in 0..plan.n {
            generations.push(GenerateRequest {
                prompt: prompt.clone(),
                params: params_of(&plan.params, index),
                max_tokens: plan.max_tokens.unwrap_or(room).min(room),
                stop_token_ids: state.tokenizer.eos_token_ids().to_vec(),
                constraint: plan.rules.compile(state).await?,
                adapter: lease.clone(),
                tenant,
            });
        }
    }
    Ok(generations.into_iter().map(|generation| state.engine.submit(generation)).collect::<Result<_, _>>()?)
}

/// Each choice draws its own tokens, reproducibly when a seed is given.
fn params_of(params: &SamplingParams, index: usize) -> SamplingParams {
    SamplingParams { seed: params.seed.map(|seed| seed.wrapping_add(index as u64)), ..params.clone() }
}

fn choice(state: &AppState, plan: &Plan, index: usize, events: UnboundedReceiver<Event>) -> Choice {
    let reader = plan.rules.reader(state.dialect.as_ref());
    let turn = Turn::new(Arc::clone(&state.tokenizer), reader, plan.stop.clone(), plan.keep_tokens);
    Choice { events: Some(events), turn, finish: None, leads: index.is_multiple_of(plan.n), spoke: false }
}

impl AppState {
    /// Refuses, before tokenising, text that no tokenisation can fit into the context.
    pub(super) fn check_prompt_bytes(&self, bytes: usize) -> Result<(), ApiError> {
        let most = self.model.context_length.saturating_mul(self.longest_token);
        if bytes <= most { Ok(()) } else { Err(self.context_exceeded(&format!("{bytes} bytes of text"))) }
    }

    /// Tokens left for the answer after a prompt and what the adapter puts before it.
    pub(super) fn room_after(&self, prompt: usize, virtual_tokens: usize) -> Result<usize, ApiError> {
        match self.model.context_length.checked_sub(prompt + virtual_tokens) {
            Some(room) if room > 0 => Ok(room),
            _ if virtual_tokens == 0 => Err(self.context_exceeded(&format!("{prompt} tokens"))),
            _ => Err(self.context_exceeded(&format!("{prompt} tokens beside {virtual_tokens} of the soft prompt"))),
        }
    }

    fn context_exceeded(&self, size: &str) -> ApiError {
        let message = format!(
            "This model's maximum context length is {} tokens. However, your request resulted in {size}. Please reduce \
             its length.",
            self.model.context_length
        );
        ApiError::at(Kind::ContextLengthExceeded, "messages", message)
    }

    /// A finished answer breaks its own rules: our bug, never the client's.
    fn violation(&self, cause: &str) -> ApiError {
        self.metrics.constraint_violated();
        ApiError::output_invalid(cause)
    }
}
