//! `POST /v1/completions`: text → how it goes on. No chat template, no tools; whole or as server-sent events.

use super::error::{ApiError, Kind};
use super::generation::{self, Answer, Ask, Plan, Spoken, SpokenToken, TurnRules, Update};
use super::reply::{Head, usage};
use super::sse::{self, Script, data};
use super::voice::Voice;
use super::wire::{CompletionRequest, Prompt, parse_completion};
use super::{AppState, body, scored};
use crate::chat::ChatError;
use crate::chat::dialect::Delta;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) async fn create(State(state): State<Arc<AppState>>, request: Request) -> Result<Response, ApiError> {
    let entered = generation::enter(&state, request).await?;
    let parse = |state: &AppState, body: &[u8]| parse_completion(&body::parse_object(body)?, state.wire_limits());
    let begun = generation::begin(state, entered, parse).await;
    let own_words = |error: ApiError| error.rename_param(|param| (param == "messages").then(|| "prompt".to_owned()));
    let (request, mut answer) = begun.map_err(own_words)?;
    let form = Form::new(request, &answer);
    if form.request.stream {
        return Ok(sse::response(Transcript { answer, form }));
    }
    answer.finish().await?;
    Ok(Json(form.completion(&answer)).into_response())
}

impl Ask for CompletionRequest {
    fn model(&self) -> &str {
        &self.model
    }

    fn plan(&mut self, state: &AppState, _: &Voice) -> Result<Plan, ApiError> {
        let encode = |prompt: &Prompt| encode(state, prompt, self.add_special_tokens);
        Ok(Plan {
            prompts: self.prompts.iter().map(encode).collect::<Result<_, _>>()?,
            n: self.n,
            rules: TurnRules::of_text(&self.format)?,
            params: self.params.clone(),
            max_tokens: Some(self.max_tokens),
            stop: self.stop.clone(),
            keep_tokens: self.params.logprobs.is_some(),
        })
    }
}

fn encode(state: &AppState, prompt: &Prompt, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let ids = match prompt {
        Prompt::Tokens(ids) => ids.clone(),
        Prompt::Text(text) => {
            state.check_prompt_bytes(text.len())?;
            state.encode_prompt(text, add_special_tokens).map_err(|error| {
                ApiError::at(Kind::InvalidValue, "prompt", format!("The prompt cannot be tokenised: {error}"))
            })?
        }
    };
    state.room_after(ids.len(), 0)?;
    Ok(ids)
}

impl AppState {
    /// The tokens of a prompt that the caller has written out; texts of control tokens become these.
    pub(super) fn encode_prompt(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, ChatError> {
        let mut ids = if add_special_tokens { self.tokenizer.lead()? } else { Vec::new() };
        let written = self.tokenizer.encode(&self.voices.base().template(true).written_out(text))?;
        // Who has written the beginning does not want it twice.
        if written.starts_with(&ids) {
            ids.clear();
        }
        ids.extend(written);
        Ok(ids)
    }
}

/// Formats the answers to one request.
struct Form {
    request: CompletionRequest,
    head: Head,
    /// What each prompt reads like, when it is to be repeated.
    echoes: Vec<String>,
}

impl Form {
    fn new(request: CompletionRequest, answer: &Answer) -> Self {
        let text = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(ids) => answer.voice.tokenizer.decode_all(ids),
        };
        let echoes = if request.echo { request.prompts.iter().map(text).collect() } else { Vec::new() };
        Self { head: Head::new("cmpl", &request.model, answer), request, echoes }
    }

    fn echo(&self, index: usize) -> &str {
        self.echoes.get(index / self.request.n).map_or("", String::as_str)
    }

    fn completion(&self, answer: &Answer) -> Value {
        let choice = |index: usize| {
            let Spoken { content, tokens, .. } = answer.spoken(index);
            let text = format!("{}{content}", self.echo(index));
            self.choice(answer, index, &text, (tokens, answer.choices[index].finish))
        };
        let choices: Vec<Value> = (0..answer.choices.len()).map(choice).collect();
        let mut whole = self.envelope(choices);
        whole.insert("usage".to_owned(), usage(answer.usage()));
        Value::Object(whole)
    }

    fn choice(
        &self,
        answer: &Answer,
        index: usize,
        text: &str,
        (tokens, finish): (&[SpokenToken], Option<&str>),
    ) -> Value {
        let wanted = self.request.params.logprobs.filter(|_| !tokens.is_empty() || finish.is_some());
        let logprobs = wanted.map(|top| logprobs(answer, tokens, top));
        json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish})
    }

    fn chunk(&self, choice: Value) -> String {
        let mut chunk = self.envelope(vec![choice]);
        if self.request.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        data(&Value::Object(chunk))
    }

    fn envelope(&self, choices: Vec<Value>) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("id".to_owned(), json!(self.head.id));
        map.insert("object".to_owned(), json!("text_completion"));
        map.insert("created".to_owned(), json!(self.head.created));
        map.insert("model".to_owned(), json!(self.head.model));
        map.insert("choices".to_owned(), Value::Array(choices));
        map.insert("system_fingerprint".to_owned(), json!(self.head.fingerprint));
        map
    }
}

/// OpenAI's older form of logprobs: one list for each property of a token.
fn logprobs(answer: &Answer, tokens: &[SpokenToken], top: usize) -> Value {
    let tokenizer = &answer.voice.tokenizer;
    let (mut texts, mut values, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let (logprob, alternatives) = scored::logprobs(token, top);
        let text = |id| scored::text(tokenizer, id);
        texts.push(text(token.id));
        values.push(logprob);
        let mut best: Map<String, Value> =
            alternatives.into_iter().map(|(id, value)| (text(id), json!(value))).collect();
        // The token itself is always there.
        best.entry(text(token.id)).or_insert(json!(logprob));
        tops.push(best);
        offsets.push(token.offset);
    }
    json!({"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets})
}

struct Transcript {
    answer: Answer,
    form: Form,
}

impl Script for Transcript {
    fn answer(&mut self) -> &mut Answer {
        &mut self.answer
    }

    fn opening(&mut self) -> String {
        let choices = if self.form.request.echo { self.answer.choices.len() } else { 0 };
        (0..choices).map(|index| self.piece(index, self.form.echo(index), (&[], None))).collect()
    }

    fn update(&mut self, update: &Update) -> String {
        let text: String =
            update.deltas.iter().map(|delta| if let Delta::Text(text) = delta { text } else { "" }).collect();
        if text.is_empty() && update.finish.is_none() {
            return String::new();
        }
        let tokens = self.answer.take_tokens(update.choice);
        self.piece(update.choice, &text, (&tokens, update.finish))
    }

    fn end(&mut self) -> String {
        if !self.form.request.include_usage {
            return sse::DONE.to_owned();
        }
        let mut last = self.form.envelope(Vec::new());
        last.insert("usage".to_owned(), usage(self.answer.usage()));
        data(&Value::Object(last)) + sse::DONE
    }

    fn failure(&mut self, error: ApiError) -> String {
        data(&error.body())
    }
}

impl Transcript {
    fn piece(&self, index: usize, text: &str, said: (&[SpokenToken], Option<&str>)) -> String {
        self.form.chunk(self.form.choice(&self.answer, index, text, said))
    }
}
