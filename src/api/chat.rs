//! `POST /v1/chat/completions`: from the request's bytes to a running [`Answer`].
//!
//! Everything that can be refused is refused before the first byte of the response: parsing, the model's name, schemas,
//! prompt length, compilation, the queue.

use super::AppState;
use super::answer::{Answer, Choice};
use super::error::{ApiError, Kind};
use super::rules::{TurnRules, admit_tools};
use super::turn::Turn;
use super::wire::response::{Head, Usage};
use super::wire::{ChatRequest, parse_chat};
use super::{body, ids, stream};
use crate::adapter::registry::Lease;
use crate::chat::ChatError;
use crate::chat::template::Segment;
use crate::engine::{Event, GenerateRequest, SamplingParams};
use crate::metrics::RequestTimer;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;

/// A request whose prompt and rules are ready.
struct Prepared {
    request: ChatRequest,
    rules: TurnRules,
    prompt: Vec<u32>,
    /// Most tokens that may be generated.
    max_tokens: usize,
}

/// A prepared request for a model that is there.
struct Accepted {
    lease: Option<Lease>,
    timer: RequestTimer,
    prepared: Prepared,
}

pub(super) async fn create(State(state): State<Arc<AppState>>, request: Request) -> Result<Response, ApiError> {
    state.check_accepting()?;
    let permit = state.permit()?;
    let body = body::json_bytes(request).await?;
    let (arrived, worker) = (Instant::now(), Arc::clone(&state));
    let accepted = state.gate.prepare(move || accept(&worker, &body, arrived)).await??;
    let Accepted { lease, mut timer, prepared } = accepted;
    let events = start(&state, &prepared, lease.as_ref()).await.inspect_err(|_| timer.finish("refused"))?;
    let Prepared { request, rules, prompt, .. } = prepared;
    let choices = events.into_iter().map(|events| choice(&state, &request, &rules, events)).collect();
    let answer = Answer {
        head: head(&request.model, lease.as_ref()),
        rules,
        choices,
        usage: Usage { prompt: prompt.len(), ..Usage::default() },
        timer,
        logprobs: request.params.logprobs.is_some(),
        permit: Some(permit),
        state,
    };
    if request.stream { Ok(stream::events(answer, request.include_usage)) } else { stream::whole(answer).await }
}

/// Everything before the grammar is compiled; takes as long as the body is large. The clock runs since the body `arrived`.
fn accept(state: &AppState, body: &[u8], arrived: Instant) -> Result<Accepted, ApiError> {
    let request = parse_chat(&body::parse_object(body)?, state.wire_limits())?;
    let lease = state.lease(&request.model)?;
    let mut timer = state.metrics.start_request(&request.model, lease.is_some(), arrived);
    let prepared = prepare(state, request).inspect_err(|_| timer.finish("refused"))?;
    Ok(Accepted { lease, timer, prepared })
}

/// Compiles and queues one generation per choice.
async fn start(
    state: &AppState,
    prepared: &Prepared,
    lease: Option<&Lease>,
) -> Result<Vec<UnboundedReceiver<Event>>, ApiError> {
    let mut generations = Vec::with_capacity(prepared.request.n);
    for index in 0..prepared.request.n {
        let constraint = prepared.rules.compile(state).await?;
        generations.push(GenerateRequest {
            prompt: prepared.prompt.clone(),
            params: params_of(&prepared.request.params, index),
            max_tokens: prepared.max_tokens,
            stop_token_ids: state.tokenizer.eos_token_ids().to_vec(),
            constraint,
            adapter: lease.cloned(),
        });
    }
    Ok(generations.into_iter().map(|generation| state.engine.submit(generation)).collect::<Result<_, _>>()?)
}

/// Schemas, template, tokens.
fn prepare(state: &AppState, mut request: ChatRequest) -> Result<Prepared, ApiError> {
    let tools = admit_tools(&request)?;
    let callable = std::mem::take(&mut request.callable);
    let mut index = 0..;
    // Tools outside `allowed_tools` are not shown either.
    request.conversation.tools.retain(|_| index.next().is_some_and(|index| callable.contains(&index)));
    let segments = state.template.render(&request.conversation, true).map_err(|error| template_refused(&error))?;
    let bytes: usize = segments.iter().map(segment_bytes).sum();
    state.check_prompt_bytes(bytes)?;
    let prompt = state.tokenizer.encode(&segments).map_err(|error| template_refused(&error))?;
    let rules = TurnRules::new(state.turn_context(state.template.reasoning_after(&segments)), &request, tools)?;
    let room = state.room_after(prompt.len())?;
    let max_tokens = request.max_tokens.unwrap_or(room).min(room);
    Ok(Prepared { request, rules, prompt, max_tokens })
}

fn segment_bytes(segment: &Segment) -> usize {
    match segment {
        Segment::Control(_) => 1,
        Segment::Text(text) => text.len(),
    }
}

/// Chat templates refuse conversations that their model cannot take (for example two user turns in a row).
fn template_refused(error: &ChatError) -> ApiError {
    ApiError::at(
        Kind::InvalidValue,
        "messages",
        format!("The conversation does not fit the model's chat template: {error}"),
    )
}

/// Each choice draws its own tokens, reproducibly when a seed is given.
fn params_of(params: &SamplingParams, index: usize) -> SamplingParams {
    SamplingParams { seed: params.seed.map(|seed| seed.wrapping_add(index as u64)), ..params.clone() }
}

fn choice(state: &AppState, request: &ChatRequest, rules: &TurnRules, events: UnboundedReceiver<Event>) -> Choice {
    let reader = rules.reader(state.dialect.as_ref());
    let turn = Turn::new(Arc::clone(&state.tokenizer), reader, request.stop.clone(), request.params.logprobs);
    Choice { events: Some(events), turn, finish: None }
}

fn head(model: &str, lease: Option<&Lease>) -> Head {
    let generation = lease.map_or("base", |lease| lease.id.as_str());
    Head {
        id: ids::completion(),
        created: super::unix_seconds(),
        model: model.to_owned(),
        fingerprint: format!("callsmith-{}-{generation}", env!("CARGO_PKG_VERSION")),
    }
}
