//! `POST …/infer`: a tensor of text in, a tensor of text out, in JSON or with the binary extension.

use super::generate::text_of;
use super::prompt::{Prompt, unpack_sampling};
use super::tensors::{self, HEADER_LENGTH, Parts};
use super::{INPUT, Named, OUTPUT, Refusal, SAMPLING, VERSION};
use crate::api::AppState;
use crate::api::error::{ApiError, Kind};
use crate::api::generation::{self, Ask, Plan};
use crate::api::voice::Voice;
use crate::api::wire::{ChatRequest, Fields};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) async fn infer(
    State(state): State<Arc<AppState>>,
    named: Named,
    request: Request,
) -> Result<Response, Refusal> {
    let model = named.model()?;
    let length = tensors::header_length(request.headers())?;
    let entered = generation::enter_any(&state, request).await?;
    let parse = move |state: &AppState, body: &[u8]| parse(state, &model, &Parts::read(length, body)?);
    let (inference, mut answer) = generation::begin(state, entered, parse).await?;
    answer.finish().await?;
    Ok(inference.reply(&text_of(&answer)))
}

/// An inference request, checked.
struct Inference {
    chat: ChatRequest,
    id: Option<String>,
    /// The output tensor comes after the JSON.
    binary: bool,
}

impl Ask for Inference {
    fn model(&self) -> &str {
        self.chat.model()
    }

    fn plan(&mut self, state: &AppState, voice: &Voice) -> Result<Plan, ApiError> {
        self.chat.plan(state, voice)
    }
}

fn parse(state: &AppState, model: &str, parts: &Parts) -> Result<Inference, ApiError> {
    let fields = Fields::root(&parts.json);
    let mut parameters = match fields.get("parameters") {
        Some(Value::Object(map)) => map.clone(),
        Some(other) => return Err(crate::api::wire::fields::wrong_type("parameters", "an object", other)),
        None => Map::new(),
    };
    let binary = wants_binary(&fields)?;
    let (mut text, mut sampling) = (None, None);
    for (name, value) in parts.inputs()? {
        let tensor = match name.as_str() {
            INPUT => &mut text,
            SAMPLING => &mut sampling,
            _ => return Err(unknown("inputs", &name)),
        };
        if tensor.replace(value).is_some() {
            return Err(ApiError::at(Kind::InvalidValue, "inputs", format!("The input '{name}' is there twice.")));
        }
    }
    let text = text.ok_or_else(|| crate::api::wire::fields::missing(INPUT))?;
    parameters.extend(sampling.map(|text| (SAMPLING.to_owned(), text.into())));
    unpack_sampling(&mut parameters)?;
    let chat = Prompt { text, parameters }.chat(state, model)?;
    Ok(Inference { chat, id: fields.string("id")?.map(str::to_owned), binary })
}

/// What the wanted output says, else the request.
fn wants_binary(fields: &Fields<'_>) -> Result<bool, ApiError> {
    let all = fields.object("parameters")?.map(|parameters| parameters.boolean("binary_data_output")).transpose()?;
    let mut binary = all.flatten().unwrap_or(false);
    for (item, path) in fields.array("outputs")?.unwrap_or_default() {
        let output = Fields::of(item, path)?;
        match output.required_string("name")? {
            OUTPUT => {}
            other => return Err(unknown("outputs", other)),
        }
        if let Some(parameters) = output.object("parameters")? {
            tensors::refuse_extensions(&parameters)?;
            binary = parameters.boolean("binary_data")?.unwrap_or(binary);
        }
    }
    Ok(binary)
}

fn unknown(what: &str, name: &str) -> ApiError {
    let message = format!(
        "Unknown tensor '{}': the model has the input '{INPUT}' and the output '{OUTPUT}'.",
        crate::api::error::echo(name)
    );
    ApiError::at(Kind::InvalidValue, what, message)
}

impl Inference {
    fn reply(&self, text: &str) -> Response {
        let mut output = json!({"name": OUTPUT, "datatype": "BYTES", "shape": [1]});
        let bytes = tensors::encode(text);
        if self.binary {
            output["parameters"] = json!({"binary_data_size": bytes.len()});
        } else {
            output["data"] = json!([text]);
        }
        let mut reply = json!({"model_name": self.chat.model(), "model_version": VERSION, "outputs": [output]});
        if let Some(id) = &self.id {
            reply["id"] = json!(id);
        }
        if !self.binary {
            return Json(reply).into_response();
        }
        let json = reply.to_string().into_bytes();
        let length = HeaderValue::from(json.len());
        let mut response = [json, bytes].concat().into_response();
        response.headers_mut().insert(HEADER_LENGTH, length);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }
}
