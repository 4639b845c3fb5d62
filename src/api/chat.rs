//! `POST /v1/chat/completions`: a conversation → the model's next turn.

use super::error::{ApiError, Kind};
use super::generation::{self, AdmittedTools, Ask, Plan, TurnRules};
use super::voice::Voice;
use super::wire::{ChatRequest, parse_chat};
use super::{AppState, body, stream};
use crate::chat::ChatError;
use crate::chat::template::Segment;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

pub(super) async fn create(State(state): State<Arc<AppState>>, request: Request) -> Result<Response, ApiError> {
    let entered = generation::enter(&state, request).await?;
    let parse = |state: &AppState, body: &[u8]| parse_chat(&body::parse_object(body)?, state.wire_limits());
    let (request, answer) = generation::begin(state, entered, parse).await?;
    if request.stream { Ok(stream::events(answer, &request)) } else { stream::whole(answer, &request).await }
}

impl Ask for ChatRequest {
    fn model(&self) -> &str {
        &self.model
    }

    /// Schemas, template, tokens.
    fn plan(&mut self, state: &AppState, voice: &Voice) -> Result<Plan, ApiError> {
        let tools = AdmittedTools::admit(self)?;
        let callable = std::mem::take(&mut self.callable);
        let mut index = 0..;
        // Tools outside `allowed_tools` are not shown either.
        self.conversation.tools.retain(|_| index.next().is_some_and(|index| callable.contains(&index)));
        let template = voice.template(self.thoughts);
        let segments = template.render(&self.conversation, true).map_err(|error| template_refused(&error))?;
        state.check_prompt_bytes(segments.iter().map(segment_bytes).sum())?;
        let prompt = state.tokenizer.encode(&segments).map_err(|error| template_refused(&error))?;
        let rules = TurnRules::new(voice.turn(template.reasoning_after(&segments)), self, tools)?;
        state.room_after(prompt.len(), 0)?;
        Ok(Plan {
            prompts: vec![prompt],
            n: self.n,
            rules,
            params: self.params.clone(),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            keep_tokens: self.params.logprobs.is_some() || self.return_tokens,
        })
    }
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
