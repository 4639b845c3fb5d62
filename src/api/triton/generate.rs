//! Triton's generate extension: text in, text out, whole or as server-sent events.

use super::orca;
use super::prompt::{Prompt, take_flag, unpack_sampling};
use super::{INPUT, Named, OUTPUT, Refusal, VERSION};
use crate::api::error::{ApiError, Kind};
use crate::api::generation::{self, Answer, SpokenToken, Update};
use crate::api::sse::{self, Script, data};
use crate::api::voice::Voice;
use crate::api::wire::{ChatRequest, fields};
use crate::api::{AppState, body, scored};
use crate::chat::dialect::Delta;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// `POST …/generate`
pub(super) async fn whole(
    State(state): State<Arc<AppState>>,
    named: Named,
    request: Request,
) -> Result<Response, Refusal> {
    let load = orca::Format::wanted(request.headers());
    let (form, mut answer) = begin(Arc::clone(&state), named.model()?, request, false).await?;
    answer.finish().await?;
    let mut reply = form.reply(&text_of(&answer));
    form.add_details(&mut reply, &answer);
    Ok(orca::tell(load, &state, Json(Value::Object(reply)).into_response()))
}

/// `POST …/generate_stream`
pub(super) async fn stream(
    State(state): State<Arc<AppState>>,
    named: Named,
    request: Request,
) -> Result<Response, Refusal> {
    let load = orca::Format::wanted(request.headers());
    let (form, answer) = begin(Arc::clone(&state), named.model()?, request, true).await?;
    Ok(orca::tell(load, &state, sse::response(Transcript { form, answer, raw_from: None, said: 0 })))
}

/// The turn as the model wrote it.
pub(super) fn text_of(answer: &Answer) -> String {
    let spoken = answer.spoken(0);
    // What a stop string has cut off is not shown.
    if answer.is_stopped(0) { spoken.content.clone() } else { spoken.raw.clone() }
}

/// What every reply to a request repeats.
#[derive(Clone)]
struct Form {
    model: String,
    id: Option<String>,
    /// The reply tells why the answer ended.
    details: bool,
    /// And how likely each token was.
    logprobs: bool,
}

impl Form {
    fn reply(&self, text: &str) -> Map<String, Value> {
        let mut reply = Map::new();
        if let Some(id) = &self.id {
            reply.insert("id".to_owned(), json!(id));
        }
        reply.insert("model_name".to_owned(), json!(self.model));
        reply.insert("model_version".to_owned(), json!(VERSION));
        reply.insert(OUTPUT.to_owned(), json!(text));
        reply
    }

    fn add_details(&self, reply: &mut Map<String, Value>, answer: &Answer) {
        if self.details {
            let reason = match answer.choices[0].finish {
                Some("length") => "length",
                _ if answer.spoken(0).calls.is_empty() && answer.is_stopped(0) => "stop_sequence",
                _ => "eos_token",
            };
            let usage = answer.usage();
            let mut details = json!({
                "finish_reason": reason, "input_tokens": usage.prompt, "output_tokens": usage.completion,
            });
            if self.logprobs {
                let tokenizer = &answer.voice.tokenizer;
                let entry = |token: &SpokenToken| json!({"id": token.id, "text": scored::text(tokenizer, token.id), "logprob": scored::logprobs(token, 0).0, "special": false});
                details["logprobs"] = answer.spoken(0).tokens.iter().map(entry).collect();
            }
            reply.insert("details".to_owned(), details);
        }
    }
}

async fn begin(
    state: Arc<AppState>,
    model: String,
    request: Request,
    streams: bool,
) -> Result<(Form, Answer), ApiError> {
    // Triton asks for no content type, and its users send none.
    let entered = generation::enter_any(&state, request).await?;
    let parse = move |state: &AppState, body: &[u8]| parse(state, &model, body, streams);
    let (asked, answer) = generation::begin(state, entered, parse).await?;
    Ok((asked.form, answer))
}

/// A chat request and how it is to be answered.
struct Asked {
    chat: ChatRequest,
    form: Form,
}

impl generation::Ask for Asked {
    fn model(&self) -> &str {
        self.chat.model()
    }

    fn plan(&mut self, state: &AppState, voice: &Voice) -> Result<generation::Plan, ApiError> {
        self.chat.plan(state, voice)
    }
}

fn parse(state: &AppState, model: &str, body: &[u8], streams: bool) -> Result<Asked, ApiError> {
    let mut body = body::parse_object(body)?;
    let text = match body.remove(INPUT) {
        Some(Value::String(text)) => text,
        None | Some(Value::Null) => return Err(fields::missing(INPUT)),
        Some(other) => return Err(fields::wrong_type(INPUT, "a string", &other)),
    };
    let id = match body.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(other) => return Err(fields::wrong_type("id", "a string", &other)),
    };
    // Other members of the body are parameters too.
    let mut parameters = match body.remove("parameters") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(fields::wrong_type("parameters", "an object", &other)),
    };
    parameters.extend(body.into_iter().filter(|(_, value)| !value.is_null()));
    unpack_sampling(&mut parameters)?;
    let details = take_flag(&mut parameters, "details")?.unwrap_or(false);
    if take_flag(&mut parameters, "stream")?.is_some_and(|stream| stream != streams) {
        let message = "'stream' must be true on generate_stream and false on generate.";
        return Err(ApiError::at(Kind::UnsupportedValue, "stream", message));
    }
    let logprobs = take_flag(&mut parameters, "logprobs")?.unwrap_or(false);
    if logprobs && !details {
        let message = "'logprobs' are among the details: send \"details\": true, or leave it out.";
        return Err(ApiError::at(Kind::UnsupportedValue, "logprobs", message));
    }
    let mut chat = Prompt { text, parameters }.chat(state, model)?;
    chat.params.logprobs = logprobs.then_some(0);
    Ok(Asked { chat, form: Form { model: model.to_owned(), id, details, logprobs } })
}

struct Transcript {
    form: Form,
    answer: Answer,
    /// Since the first call the text goes out as the model writes it; before, as words that a stop string may end.
    raw_from: Option<usize>,
    /// Bytes of words that were sent.
    said: usize,
}

impl Script for Transcript {
    fn answer(&mut self) -> &mut Answer {
        &mut self.answer
    }

    fn opening(&mut self) -> String {
        String::new()
    }

    fn update(&mut self, update: &Update) -> String {
        let text = self.text(update);
        if text.is_empty() { text } else { data(&Value::Object(self.form.reply(&text))) }
    }

    fn end(&mut self) -> String {
        let mut reply = self.form.reply("");
        self.form.add_details(&mut reply, &self.answer);
        if self.form.details { data(&Value::Object(reply)) } else { String::new() }
    }

    fn failure(&mut self, error: ApiError) -> String {
        data(&Refusal(error).body())
    }
}

impl Transcript {
    /// What an update adds to the text.
    fn text(&mut self, update: &Update) -> String {
        let mut text = String::new();
        for delta in &update.deltas {
            match delta {
                Delta::Text(words) if self.raw_from.is_none() => {
                    text.push_str(words);
                    self.said += words.len();
                }
                Delta::CallStart { .. } => {
                    self.raw_from.get_or_insert(self.said);
                }
                _ => {}
            }
        }
        if update.finish.is_some() && !self.answer.is_stopped(update.choice) {
            // The beginning of a call that was cut is nobody's words, but it is text.
            self.raw_from.get_or_insert(self.said);
        }
        if let Some(from) = &mut self.raw_from {
            let raw = &self.answer.spoken(update.choice).raw;
            text.push_str(&raw[*from..]);
            *from = raw.len();
        }
        text
    }
}
