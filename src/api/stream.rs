//! A chat completion as server-sent events, or folded into one response by the same code.

use super::error::ApiError;
use super::generation::{Answer, Update};
use super::reply::{self, Reply};
use super::sse::{self, Script, data};
use super::wire::ChatRequest;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Waits for the whole answer. Dropping the future cancels the generation.
pub(super) async fn whole(mut answer: Answer, request: &ChatRequest) -> Result<Response, ApiError> {
    answer.finish().await?;
    Ok(Json(Reply::new(request, &answer).completion(&answer)).into_response())
}

/// Streams the answer.
pub(super) fn events(answer: Answer, request: &ChatRequest) -> Response {
    let reply = Reply::new(request, &answer);
    sse::response(Transcript { answer, reply })
}

struct Transcript {
    answer: Answer,
    reply: Reply,
}

impl Script for Transcript {
    fn answer(&mut self) -> &mut Answer {
        &mut self.answer
    }

    fn opening(&mut self) -> String {
        (0..self.answer.choices.len()).map(|index| data(&self.reply.role(index))).collect()
    }

    fn update(&mut self, update: &Update) -> String {
        let choice = update.choice;
        let calls = &self.answer.spoken(choice).calls;
        let deltas: Vec<Value> = update.deltas.iter().filter_map(|piece| reply::delta(piece, calls)).collect();
        let mut text = String::new();
        for delta in deltas {
            // The step's tokens ride on its first chunk.
            let tokens = self.answer.take_tokens(choice);
            text.push_str(&data(&self.reply.delta(choice, &delta, &tokens)));
        }
        if let Some(reason) = update.finish {
            let tokens = self.answer.take_tokens(choice);
            text.push_str(&data(&self.reply.finish(choice, reason, &tokens)));
        }
        text
    }

    fn end(&mut self) -> String {
        let usage = self.reply.include_usage.then(|| data(&self.reply.last(self.answer.usage())));
        usage.unwrap_or_default() + sse::DONE
    }

    fn failure(&mut self, error: ApiError) -> String {
        data(&error.body())
    }
}
