//! A running answer: its choices' event streams, merged, checked and measured.
//!
//! Owns everything that must end with the request: dropping it cancels the generation and releases lease and permit.

use super::AppState;
use super::error::ApiError;
use super::rules::TurnRules;
use super::turn::{Turn, coalesce};
use super::wire::response::{self, Head, Spoken, Usage};
use crate::chat::dialect::Delta;
use crate::engine::{Event, FinishReason, TokenEvent};
use crate::metrics::RequestTimer;
use serde_json::Value;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

/// One of the answers to a request.
pub(super) struct Choice {
    /// `None` once the choice is over.
    pub(super) events: Option<UnboundedReceiver<Event>>,
    pub(super) turn: Turn,
    pub(super) finish: Option<&'static str>,
}

/// What an event brought.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) choice: usize,
    pub(super) deltas: Vec<Delta>,
    pub(super) finish: Option<&'static str>,
}

/// All choices of a request while they are generated.
pub(super) struct Answer {
    pub(super) state: Arc<AppState>,
    pub(super) head: Head,
    pub(super) rules: TurnRules,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Usage,
    pub(super) timer: RequestTimer,
    pub(super) logprobs: bool,
    /// Given back when the last choice is over, however slowly the client reads.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// What happened next; `None` when every choice is over. After an error nothing more comes.
    pub(super) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        let (choice, event) = next_event(&mut self.choices).await?;
        let over = matches!(event, Some(Event::Finished(_) | Event::Failed(_)) | None);
        let update = match event {
            Some(Event::Tokens(tokens)) => self.tokens(choice, &tokens),
            Some(Event::Finished(reason)) => self.finished(choice, reason),
            Some(Event::Failed(error)) => Err(error.into()),
            None => Err(ApiError::internal("the engine dropped the request")),
        };
        if update.is_err() {
            self.choices.iter_mut().for_each(|choice| choice.events = None);
            self.timer.finish("error");
        }
        if over && self.choices.iter().all(|choice| choice.events.is_none()) {
            self.permit = None;
        }
        Some(update)
    }

    /// What a choice has said so far.
    pub(super) fn spoken(&self, choice: usize) -> &Spoken {
        self.choices[choice].turn.spoken()
    }

    /// The logprob entries of a choice that have not been taken yet.
    pub(super) fn take_logprobs(&mut self, choice: usize) -> Vec<Value> {
        self.choices[choice].turn.take_logprobs()
    }

    /// The whole response, once [`Self::next`] has returned `None`.
    pub(super) fn completion(&self) -> Value {
        let logprobs = self.logprobs;
        let choice = |(index, choice): (usize, &Choice)| {
            response::choice(index, choice.turn.spoken(), choice.finish.unwrap_or("stop"), logprobs)
        };
        let choices: Vec<Value> = self.choices.iter().enumerate().map(choice).collect();
        response::completion(&self.head, &choices, self.usage())
    }

    /// The tokens so far.
    pub(super) fn usage(&self) -> Usage {
        let thoughts = self.choices.iter().map(|choice| choice.turn.spoken().thought_tokens).sum();
        Usage { thoughts, ..self.usage }
    }

    fn tokens(&mut self, index: usize, tokens: &[TokenEvent]) -> Result<Update, ApiError> {
        self.usage.completion += tokens.len();
        self.timer.tokens(tokens.len());
        let choice = &mut self.choices[index];
        let deltas = tokens.iter().flat_map(|token| choice.turn.push(token)).collect();
        let finish = choice.turn.is_stopped().then(|| choice.close("stop"));
        self.update(index, deltas, finish)
    }

    fn finished(&mut self, index: usize, reason: FinishReason) -> Result<Update, ApiError> {
        let choice = &mut self.choices[index];
        let deltas = choice.turn.finish();
        let spoken = choice.turn.spoken();
        let finish = match reason {
            // A stop string found in the held-back end cuts the text; the rest is not to be checked.
            _ if choice.turn.is_stopped() => "stop",
            FinishReason::Length => "length",
            FinishReason::Stop => {
                self.rules.check_turn(spoken).map_err(|cause| self.state.violation(&cause))?;
                if spoken.calls.iter().any(|call| call.complete) { "tool_calls" } else { "stop" }
            }
        };
        let finish = choice.close(finish);
        self.update(index, deltas, Some(finish))
    }

    fn update(&mut self, choice: usize, deltas: Vec<Delta>, finish: Option<&'static str>) -> Result<Update, ApiError> {
        for delta in &deltas {
            if let Delta::CallEnd { index } = delta
                && let Some(call) = self.spoken(choice).calls.get(*index)
            {
                self.rules.check_call(call).map_err(|cause| self.state.violation(&cause))?;
            }
        }
        if let (Some(finish), true) = (finish, self.choices.iter().all(|choice| choice.events.is_none())) {
            self.timer.finish(finish);
        }
        Ok(Update { choice, deltas: coalesce(deltas), finish })
    }
}

impl Choice {
    /// Ends the choice; dropping the receiver cancels what may still run.
    fn close(&mut self, finish: &'static str) -> &'static str {
        self.events = None;
        self.finish = Some(finish);
        finish
    }
}

/// The next event of any open choice (`None` inside: its sender is gone), or `None` when all are over.
async fn next_event(choices: &mut [Choice]) -> Option<(usize, Option<Event>)> {
    poll_fn(|context| {
        let mut open = false;
        for (index, choice) in choices.iter_mut().enumerate() {
            if let Some(events) = &mut choice.events {
                open = true;
                if let Poll::Ready(event) = events.poll_recv(context) {
                    return Poll::Ready(Some((index, event)));
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(None) }
    })
    .await
}
