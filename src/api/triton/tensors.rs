//! Tensors of text: in JSON, or after it in binary (each element with its length before it). Knows no model.

use crate::api::error::{ApiError, Kind};
use crate::api::wire::Fields;
use axum::http::HeaderMap;
use serde_json::{Map, Value};

/// The header that says where the JSON ends and the binary data begins.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

/// A request's JSON and what follows it.
pub(super) struct Parts {
    pub(super) json: Map<String, Value>,
    binary: Vec<u8>,
}

impl Parts {
    pub(super) fn read(length: Option<usize>, body: &[u8]) -> Result<Self, ApiError> {
        let length = length.unwrap_or(body.len());
        let Some((json, binary)) = body.split_at_checked(length) else {
            let message = format!("'{HEADER_LENGTH}' is {length}, but the body has {} bytes.", body.len());
            return Err(ApiError::at(Kind::InvalidValue, HEADER_LENGTH, message));
        };
        Ok(Self { json: crate::api::body::parse_object(json)?, binary: binary.to_vec() })
    }

    /// The inputs by name, each of one text.
    pub(super) fn inputs(&self) -> Result<Vec<(String, String)>, ApiError> {
        let fields = Fields::root(&self.json);
        let items = fields.array("inputs")?.ok_or_else(|| crate::api::wire::fields::missing("inputs"))?;
        let mut rest = self.binary.as_slice();
        let mut inputs = Vec::with_capacity(items.len());
        for (item, path) in items {
            let input = Fields::of(item, path)?;
            let name = input.required_string("name")?.to_owned();
            inputs.push((name, text(&input, &mut rest)?));
        }
        if rest.is_empty() {
            return Ok(inputs);
        }
        let message = format!("{} bytes of binary data belong to no input.", rest.len());
        Err(ApiError::at(Kind::InvalidValue, "inputs", message))
    }
}

/// What the header says; `None` = the whole body is JSON.
pub(super) fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || ApiError::at(Kind::InvalidValue, HEADER_LENGTH, format!("'{HEADER_LENGTH}' must be a number."));
    length.map(Some).ok_or_else(wrong)
}

/// The one element of a tensor; its binary data is taken from the start of `rest`.
fn text(input: &Fields<'_>, rest: &mut &[u8]) -> Result<String, ApiError> {
    let wrong = |key: &str, message: &str| Err(ApiError::at(Kind::InvalidValue, input.path(key), message));
    match input.required_string("datatype")? {
        "BYTES" => {}
        _ => return wrong("datatype", "Only the datatype BYTES is supported."),
    }
    let shape = crate::api::wire::fields::array(input.required("shape")?, &input.path("shape"))?;
    if shape.is_empty() || shape.iter().any(|(size, _)| size.as_u64() != Some(1)) {
        return wrong("shape", "Only tensors of one element are supported: [1] or [1, 1].");
    }
    if let Some(parameters) = input.object("parameters")? {
        refuse_extensions(&parameters)?;
        match parameters.integer("binary_data_size", 0..=i64::MAX)? {
            Some(_) if input.get("data").is_some() => {
                return wrong("data", "The tensor is binary: leave 'data' out, or 'binary_data_size'.");
            }
            Some(size) => return binary_text(input, size as usize, rest),
            None => {}
        }
    }
    match element(input.required("data")?) {
        Some(text) => Ok(text.to_owned()),
        None => wrong("data", "A tensor of text is an array of one string."),
    }
}

/// Parameters of extensions that this server does not have, and that change where data are or what comes back.
pub(super) fn refuse_extensions(parameters: &Fields<'_>) -> Result<(), ApiError> {
    let asked = |key: &str| parameters.get(key).is_some_and(|value| key != "classification" || value != 0);
    match ["classification", "shared_memory_region"].into_iter().find(|key| asked(key)) {
        None => Ok(()),
        Some(key) => {
            let message = format!("The extension behind '{key}' is not supported. Remove it.");
            Err(ApiError::at(Kind::UnsupportedParameter, parameters.path(key), message))
        }
    }
}

/// The string inside an array, however deep.
fn element(data: &Value) -> Option<&str> {
    match data {
        Value::String(text) => Some(text),
        Value::Array(items) if items.len() == 1 => element(&items[0]),
        _ => None,
    }
}

fn binary_text(input: &Fields<'_>, size: usize, rest: &mut &[u8]) -> Result<String, ApiError> {
    let wrong = |message: &str| ApiError::at(Kind::InvalidValue, input.path("parameters.binary_data_size"), message);
    let (bytes, after) = rest.split_at_checked(size).ok_or_else(|| wrong("The body has fewer bytes than that."))?;
    *rest = after;
    let (length, text) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong("The element's length is missing."))?;
    if u32::from_le_bytes(*length) as usize != text.len() {
        return Err(wrong("The element's length and the tensor's do not agree: one element is expected."));
    }
    String::from_utf8(text.to_vec()).map_err(|_| wrong("The text is not UTF-8."))
}

/// A text as one element of binary data.
pub(super) fn encode(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(inputs: &Value, binary: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
        let json = json!({"inputs": inputs}).to_string();
        let body = [json.as_bytes(), binary].concat();
        Parts::read(Some(json.len()), &body)?.inputs()
    }

    fn input(extra: &Value) -> Value {
        let mut input = json!({"name": "text_input", "shape": [1], "datatype": "BYTES"});
        input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        input
    }

    #[test]
    fn text_is_read_from_json_and_from_binary() {
        let from_json = read(&json!([input(&json!({"data": ["häh"], "shape": [1, 1]}))]), b"").unwrap();
        assert_eq!(from_json, [("text_input".to_owned(), "häh".to_owned())]);
        let two = json!([
            input(&json!({"parameters": {"binary_data_size": 6}})),
            input(&json!({"parameters": {"binary_data_size": 5}, "name": "b"})),
        ]);
        let from_binary = read(&two, &[encode("ab"), encode("c")].concat()).unwrap();
        assert_eq!(from_binary, [("text_input".to_owned(), "ab".to_owned()), ("b".to_owned(), "c".to_owned())]);
    }

    #[test]
    fn lying_lengths_and_odd_tensors_are_refused() {
        let sized = |size: u64| json!([input(&json!({"parameters": {"binary_data_size": size}}))]);
        for (inputs, binary) in [
            (sized(6), &b"\x02\0\0\0a"[..]),
            (sized(5), b"\x02\0\0\0a"),
            (sized(2), b"\x02\0"),
            (sized(5), b"\x01\0\0\0\xff"),
            (sized(u64::MAX), b""),
            (sized(5), b"\x01\0\0\0abc"),
            (json!([input(&json!({"data": ["a", "b"]}))]), b""),
            (json!([input(&json!({"data": ["a"], "shape": [2]}))]), b""),
            (json!([input(&json!({"data": [1], "datatype": "INT32"}))]), b""),
            (json!("x"), b""),
        ] {
            assert!(read(&inputs, binary).is_err(), "{inputs}");
        }
        assert!(Parts::read(Some(10), b"{}").is_err());
    }
}
