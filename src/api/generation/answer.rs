//! A running answer: its choices' event streams, merged, checked and measured.
//!
//! Owns everything that must end with the request: dropping it cancels the generation and releases lease and permit.

use super::Permits;
use super::rules::TurnRules;
use super::spoken::{Spoken, SpokenToken, Usage};
use super::turn::{Turn, coalesce};
use crate::api::AppState;
use crate::api::error::{ApiError, Kind};
use crate::api::voice::Voice;
use crate::chat::dialect::Delta;
use crate::engine::{Event, FinishReason, TokenEvent};
use crate::metrics::RequestTimer;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tracing::Span;

/// One of the answers to a request.
pub(in crate::api) struct Choice {
    /// `None` once the choice is over.
    pub(in crate::api) events: Option<UnboundedReceiver<Event>>,
    pub(in crate::api) turn: Turn,
    pub(in crate::api) finish: Option<&'static str>,
    /// The first of its prompt's choices: the others' prompt is counted with it.
    pub(in crate::api) leads: bool,
    /// It has said something.
    pub(in crate::api) spoke: bool,
}

/// What an event brought.
#[derive(Debug, Default)]
pub(in crate::api) struct Update {
    pub(in crate::api) choice: usize,
    pub(in crate::api) deltas: Vec<Delta>,
    pub(in crate::api) finish: Option<&'static str>,
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Clock {
    /// When it must have left the queue.
    pub(in crate::api) start_by: Instant,
    /// When it must be whole.
    pub(in crate::api) end_by: Instant,
    /// Longest time between two tokens.
    pub(in crate::api) silence: Duration,
}

/// All choices of a request while they are generated.
pub(in crate::api) struct Answer {
    pub(in crate::api) state: Arc<AppState>,
    /// How the model speaks that answers.
    pub(in crate::api) voice: Arc<Voice>,
    /// The adapter generation that answers, or `base`.
    pub(in crate::api) generation: String,
    pub(in crate::api) rules: TurnRules,
    pub(in crate::api) choices: Vec<Choice>,
    pub(in crate::api) usage: Usage,
    pub(in crate::api) timer: RequestTimer,
    pub(in crate::api) clock: Clock,
    /// Events that came while the answer waited for its start.
    pub(in crate::api) early: VecDeque<(usize, Option<Event>)>,
    /// The generation in a trace.
    pub(in crate::api) span: Span,
    /// Given back when the last choice is over; a client that stops reading loses its answer before long.
    pub(in crate::api) permits: Option<Permits>,
}

impl Answer {
    /// Waits until the first choice has left the queue.
    pub(in crate::api) async fn started(&mut self) -> Result<(), ApiError> {
        let first = tokio::time::timeout_at(self.clock.start_by, next_event(&mut self.choices));
        let first = first.await;
        self.timer.left_queue();
        match first.map_err(|_| ApiError::waited_too_long())? {
            Some((choice, Some(Event::Started { cached_tokens }))) => self.count_cached(choice, cached_tokens),
            Some((_, Some(Event::Failed(error)))) => return Err(self.rules.failure(error)),
            // What the grammar forces altogether never waits.
            other => self.early.extend(other),
        }
        Ok(())
    }

    /// What happened next; `None` when every choice is over. After an error nothing more comes.
    pub(in crate::api) async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        let (choice, event) = match self.next_in_time().await {
            Ok(event) => event?,
            Err(error) => return Some(Err(self.fail(error))),
        };
        let update = match event {
            Some(Event::Started { cached_tokens }) => {
                self.count_cached(choice, cached_tokens);
                Ok(Update { choice, ..Update::default() })
            }
            Some(Event::Tokens(tokens)) => self.tokens(choice, &tokens),
            Some(Event::Finished(reason)) => self.finished(choice, reason),
            Some(Event::Failed(error)) => Err(self.rules.failure(error)),
            None => Err(ApiError::internal("the engine dropped the request")),
        };
        let update = update.map_err(|error| self.fail(error));
        if self.choices.iter().all(|choice| choice.events.is_none()) {
            self.permits = None;
        }
        Some(update)
    }

    /// Ends all choices.
    fn fail(&mut self, error: ApiError) -> ApiError {
        self.choices.iter_mut().for_each(|choice| choice.events = None);
        self.permits = None;
        self.timer.finish("error");
        error
    }

    async fn next_in_time(&mut self) -> Result<Option<(usize, Option<Event>)>, ApiError> {
        if let Some(event) = self.early.pop_front() {
            return Ok(Some(event));
        }
        // A long prompt may take long; only then can there be silence between tokens.
        let speaking = self.choices.iter().filter(|choice| choice.events.is_some()).all(|choice| choice.spoke);
        let silent = if speaking { Instant::now() + self.clock.silence } else { self.clock.end_by };
        let until = silent.min(self.clock.end_by);
        tokio::time::timeout_at(until, next_event(&mut self.choices)).await.map_err(|_| {
            let message = if speaking && until == silent {
                "The model has not answered for too long."
            } else {
                "The answer took longer than the server allows. Ask for fewer tokens."
            };
            ApiError::new(Kind::Timeout, message)
        })
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

    fn count_cached(&mut self, choice: usize, tokens: usize) {
        if self.choices[choice].leads {
            self.usage.cached += tokens;
        }
    }

    fn tokens(&mut self, index: usize, tokens: &[TokenEvent]) -> Result<Update, ApiError> {
        self.usage.completion += tokens.len();
        self.timer.tokens(index, tokens.len());
        let choice = &mut self.choices[index];
        choice.spoke = true;
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

impl Drop for Answer {
    fn drop(&mut self) {
        self.span.record("gen_ai.usage.output_tokens", self.usage.completion as i64);
        let reasons: Vec<&str> = self.choices.iter().filter_map(|choice| choice.finish).collect();
        self.span.record("gen_ai.response.finish_reasons", reasons.join(","));
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
