//! A running answer: its choices' event streams, merged, checked and measured.
//!
//! Owns everything that must end with the request: dropping it cancels the generation and releases lease and permit.

use super::Permits;
use super::rules::TurnRules;
use super::spoken::{Spoken, SpokenToken, Usage};
use super::turn::{Turn, coalesce};
use crate::api::AppState;
use crate::api::error::ApiError;
use crate::chat::dialect::Delta;
use crate::engine::{Event, FinishReason, TokenEvent};
use crate::metrics::RequestTimer;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::mpsc::UnboundedReceiver;

/// One of the answers to a request.
pub(in crate::api) struct Choice {
    /// `None` once the choice is over.
    pub(in crate::api) events: Option<UnboundedReceiver<Event>>,
    pub(in crate::api) turn: Turn,
    pub(in crate::api) finish: Option<&'static str>,
}

/// What an event brought.
#[derive(Debug, Default)]
pub(in crate::api) struct Update {
    pub(in crate::api) choice: usize,
    pub(in crate::api) deltas: Vec<Delta>,
    pub(in crate::api) finish: Option<&'static str>,
}

/// All choices of a request while they are generated.
pub(in crate::api) struct Answer {
    pub(in crate::api) state: Arc<AppState>,
    /// The adapter generation that answers, or `base`.
    pub(in crate::api) generation: String,
    pub(in crate::api) rules: TurnRules,
    pub(in crate::api) choices: Vec<Choice>,
    pub(in crate::api) usage: Usage,
    pub(in crate::api) timer: RequestTimer,
    /// Given back when the last choice is over, however slowly the client reads.
    pub(in crate::api) permits: Option<Permits>,
}

impl Answer {
    /// What happened next; `None` when every choice is over. After an error nothing more comes.
    pub(in crate::api) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
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
            self.permits = None;
        }
        Some(update)
    }

    /// What a choice has said so far.
    pub(in crate::api) fn spoken(&self, choice: usize) -> &Spoken {
        self.choices[choice].turn.spoken()
    }

    /// A stop string ended the choice.
    pub(in crate::api) fn is_stopped(&self, choice: usize) -> bool {
        self.choices[choice].turn.is_stopped()
    }

    /// The tokens of a choice that have not been taken yet.
    pub(in crate::api) fn take_tokens(&mut self, choice: usize) -> Vec<SpokenToken> {
        self.choices[choice].turn.take_tokens()
    }

    /// Runs to the end. Dropping the future cancels the generation.
    pub(in crate::api) async fn finish(&mut self) -> Result<(), ApiError> {
        while let Some(update) = self.next().await {
            update?;
        }
        Ok(())
    }

    /// The tokens so far.
    pub(in crate::api) fn usage(&self) -> Usage {
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
