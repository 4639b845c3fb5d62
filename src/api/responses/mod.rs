//! OpenAI's Responses API: create a response, whole or streamed.

mod items;
mod kept;
mod store;

pub(super) use kept::{delete, input_items, show};
pub use store::ResponseStore;

use super::auth::Caller;
use super::error::{ApiError, Kind, echo};
use super::generation::{self, Answer, Ask, Plan, Update};
use super::sse::{self, Script};
use super::voice::Voice;
use super::wire::{ResponsesRequest, parse_responses};
use super::{AppState, body, ids, scored, unix_seconds};
use crate::chat::dialect::Delta;
use crate::chat::{Message, Role, ToolCall};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use items::{Event, Items};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Kept, Owner};

/// `POST /v1/responses`
pub(super) async fn create(
    State(state): State<Arc<AppState>>,
    Extension(Caller { owner, .. }): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let entered = generation::enter(&state, request).await?;
    let parse = move |state: &AppState, body: &[u8]| parse(state, body, owner);
    let (job, answer) = generation::begin(state, entered, parse).await.map_err(in_own_words)?;
    let stream = job.request.chat.stream;
    let mut progress = Progress::new(job, answer, owner);
    if stream {
        return Ok(sse::response(progress));
    }
    while let Some(update) = progress.answer.next().await {
        progress.take(&update?);
    }
    Ok(Json(progress.finish().1).into_response())
}

/// A request with its conversation.
struct Job {
    request: ResponsesRequest,
    /// The conversation before the response, without instructions.
    messages: Vec<Message>,
}

fn parse(state: &AppState, body: &[u8], owner: Owner) -> Result<Job, ApiError> {
    let mut request = parse_responses(&body::parse_object(body)?, state.wire_limits())?;
    let before = request.previous.as_ref().map(|id| {
        let message = format!("Previous response with id '{}' not found.", echo(id));
        let unknown = || ApiError::at(Kind::PreviousResponseNotFound, "previous_response_id", message);
        state.responses.get(id, owner).ok_or_else(unknown)
    });
    let before = before.transpose()?;
    let messages = request.converse(before.as_ref().map_or(&[], |kept| &kept.messages))?;
    Ok(Job { request, messages })
}

impl Ask for Job {
    fn model(&self) -> &str {
        &self.request.chat.model
    }

    fn plan(&mut self, state: &AppState, voice: &Voice) -> Result<Plan, ApiError> {
        self.request.chat.plan(state, voice)
    }
}

/// Names fields as they stand in a request for a response, not for a chat completion.
fn in_own_words(error: ApiError) -> ApiError {
    error.rename_param(|param| match param {
        "messages" => Some("input".to_owned()),
        "response_format" => Some("text.format".to_owned()),
        _ => param.strip_suffix(".function.parameters").map(|tool| format!("{tool}.parameters")),
    })
}

/// A response while it is generated.
struct Progress {
    answer: Answer,
    job: Job,
    items: Items,
    head: Value,
    owner: Owner,
    sequence: u64,
    /// Frames that are ready to be sent.
    ready: String,
}

impl Progress {
    fn new(job: Job, answer: Answer, owner: Owner) -> Self {
        let head = head(&job);
        let (items, ready) = (Items::default(), String::new());
        let mut progress = Self { answer, job, items, head, owner, sequence: 0, ready };
        for name in ["response.created", "response.in_progress"] {
            let event = (name, json!({"response": progress.object("in_progress")}));
            progress.send(event);
        }
        progress
    }

    fn send(&mut self, (name, mut fields): Event) {
        if !self.job.request.chat.stream {
            return;
        }
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.ready.push_str(&sse::event(name, &fields));
    }

    fn take(&mut self, update: &Update) {
        // Tokens that have shown nothing yet wait for those that complete their text.
        let entries = if update.deltas.is_empty() { Vec::new() } else { self.logprobs() };
        let mut entries = entries.as_slice();
        for delta in &update.deltas {
            // A step's tokens are told once, with its first text.
            let told = if matches!(delta, Delta::Text(_)) { std::mem::take(&mut entries) } else { &[] };
            for event in self.items.push(delta, self.answer.spoken(update.choice), told) {
                self.send(event);
            }
        }
    }

    /// The log-probabilities of the tokens since the last time, if they are wanted.
    fn logprobs(&mut self) -> Vec<Value> {
        let Some(top) = self.job.request.chat.params.logprobs else { return Vec::new() };
        let tokens = self.answer.take_tokens(0);
        tokens.iter().map(|token| scored::entry(&self.answer.voice.tokenizer, token, top)).collect()
    }

    /// Closes and keeps the response: its last event.
    fn finish(&mut self) -> (&'static str, Value) {
        let cut = self.answer.choices[0].finish == Some("length");
        let (name, status) =
            if cut { ("response.incomplete", "incomplete") } else { ("response.completed", "completed") };
        let rest = self.logprobs();
        for event in self.items.finish(status, &rest) {
            self.send(event);
        }
        let mut object = self.object(status);
        object["usage"] = self.usage();
        object["completed_at"] = if cut { Value::Null } else { unix_seconds().into() };
        if cut {
            object["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        if self.job.request.store {
            self.keep(&object);
        }
        (name, object)
    }

    fn keep(&mut self, object: &Value) {
        let mut messages = std::mem::take(&mut self.job.messages);
        messages.push(self.said());
        let input = self.job.request.input.items.drain(..).map(|item| item.to_string()).collect();
        let kept = Kept { owner: self.owner, object: object.to_string(), input, messages };
        self.answer.state.responses.put(object["id"].as_str().unwrap_or_default(), kept);
    }

    /// The answer as a message of the conversation. A call that was cut is none.
    fn said(&self) -> Message {
        let spoken = self.answer.spoken(0);
        let call = |call: &generation::Call| {
            let arguments = serde_json::from_str(&call.arguments).ok()?;
            Some(ToolCall { id: call.id.clone(), name: call.name.clone(), arguments })
        };
        Message {
            tool_calls: spoken.calls.iter().filter(|call| call.complete).filter_map(call).collect(),
            reasoning: Some(spoken.thoughts.clone()).filter(|thoughts| !thoughts.is_empty()),
            ..Message::text(Role::Assistant, spoken.content.clone())
        }
    }

    fn object(&self, status: &str) -> Value {
        let mut object = self.head.clone();
        object["status"] = status.into();
        object["output"] = self.items.output();
        object
    }

    fn usage(&self) -> Value {
        let usage = self.answer.usage();
        json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": usage.thoughts},
            "total_tokens": usage.prompt + usage.completion,
        })
    }

    fn failed(&self, error: &ApiError) -> Value {
        let mut object = self.object("failed");
        object["error"] = json!({"code": "server_error", "message": error.to_string()});
        object
    }

    /// The last event, and what was still to be sent before it.
    fn last(&mut self, (name, object): (&'static str, Value)) -> String {
        self.send((name, json!({"response": object})));
        std::mem::take(&mut self.ready)
    }
}

impl Script for Progress {
    fn answer(&mut self) -> &mut Answer {
        &mut self.answer
    }

    fn opening(&mut self) -> String {
        std::mem::take(&mut self.ready)
    }

    fn update(&mut self, update: &Update) -> String {
        self.take(update);
        std::mem::take(&mut self.ready)
    }

    fn end(&mut self) -> String {
        let finished = self.finish();
        self.last(finished)
    }

    fn failure(&mut self, error: ApiError) -> String {
        let object = self.failed(&error);
        self.last(("response.failed", object))
    }
}

/// What every state of a response object repeats.
fn head(job: &Job) -> Value {
    let mut object = json!({
        "id": ids::item("resp"), "object": "response", "created_at": unix_seconds(), "status": "in_progress",
        "background": false, "error": null, "incomplete_details": null, "model": job.request.chat.model, "output": [],
        "reasoning": {"effort": null, "summary": null}, "service_tier": "default", "usage": null,
    });
    if let Value::Object(map) = &mut object {
        map.extend(job.request.repeated.clone());
    }
    object
}
