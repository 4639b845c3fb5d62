//! Typed reads of JSON fields with OpenAI's error codes; `null` counts as absent.
//!
//! Written by hand instead of serde's derive, because every refusal must carry the exact path and code.

use crate::api::error::{ApiError, Kind, echo};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The fields of one JSON object, and where that object stands in the request.
#[derive(Clone)]
pub(in crate::api) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

/// The bounds of a decimal field; `above` makes the lower bound exclusive.
#[derive(Clone, Copy)]
pub(in crate::api) struct Decimal {
    pub(in crate::api) min: f64,
    pub(in crate::api) max: f64,
    pub(in crate::api) above: bool,
}

impl<'a> Fields<'a> {
    /// The request body itself.
    pub(in crate::api) fn root(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// The object at `path`.
    pub(in crate::api) fn of(value: &'a Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other => Err(wrong_type(&path, "an object", other)),
        }
    }

    /// The path of the field `key`.
    pub(in crate::api) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The names that are present.
    pub(in crate::api) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// The value of `key` unless absent or null.
    pub(in crate::api) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key`, which must be there.
    pub(in crate::api) fn required(&self, key: &str) -> Result<&'a Value, ApiError> {
        self.get(key).ok_or_else(|| missing(&self.path(key)))
    }

    pub(in crate::api) fn string(&self, key: &str) -> Result<Option<&'a str>, ApiError> {
        self.get(key).map(|value| string(value, &self.path(key))).transpose()
    }

    pub(in crate::api) fn required_string(&self, key: &str) -> Result<&'a str, ApiError> {
        string(self.required(key)?, &self.path(key))
    }

    pub(in crate::api) fn boolean(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(&self.path(key), "a boolean", other)),
        }
    }

    pub(in crate::api) fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        self.get(key).map(|value| integer(value, &self.path(key), range)).transpose()
    }

    pub(in crate::api) fn decimal(&self, key: &str, bounds: Decimal) -> Result<Option<f32>, ApiError> {
        self.get(key).map(|value| decimal(value, &self.path(key), &bounds)).transpose()
    }

    /// The elements of an array with their paths, `key[0]`, `key[1]`…
    pub(in crate::api) fn array(&self, key: &str) -> Result<Option<Vec<(&'a Value, String)>>, ApiError> {
        self.get(key).map(|value| array(value, &self.path(key))).transpose()
    }

    pub(in crate::api) fn object(&self, key: &str) -> Result<Option<Self>, ApiError> {
        self.get(key).map(|value| Self::of(value, self.path(key))).transpose()
    }

    pub(in crate::api) fn required_object(&self, key: &str) -> Result<Self, ApiError> {
        Self::of(self.required(key)?, self.path(key))
    }
}

pub(in crate::api) fn string<'a>(value: &'a Value, path: &str) -> Result<&'a str, ApiError> {
    value.as_str().ok_or_else(|| wrong_type(path, "a string", value))
}

/// The elements of an array, each with its path.
pub(in crate::api) fn array<'a>(value: &'a Value, path: &str) -> Result<Vec<(&'a Value, String)>, ApiError> {
    let items = value.as_array().ok_or_else(|| wrong_type(path, "an array", value))?;
    Ok(items.iter().enumerate().map(|(index, item)| (item, format!("{path}[{index}]"))).collect())
}

pub(in crate::api) fn integer(value: &Value, path: &str, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
    // Larger than i64 is above any maximum.
    let number = match value.as_i64() {
        Some(number) => number,
        None if value.is_u64() => i64::MAX,
        None => return Err(wrong_type(path, "an integer", value)),
    };
    if number > *range.end() {
        return Err(bound(Kind::IntegerAboveMax, path, "maximum", &format!("<= {}", range.end()), value));
    }
    if number < *range.start() {
        return Err(bound(Kind::IntegerBelowMin, path, "minimum", &format!(">= {}", range.start()), value));
    }
    Ok(number)
}

pub(in crate::api) fn decimal(value: &Value, path: &str, bounds: &Decimal) -> Result<f32, ApiError> {
    let number = value.as_f64().ok_or_else(|| wrong_type(path, "a decimal", value))?;
    if number > bounds.max {
        return Err(bound(Kind::DecimalAboveMax, path, "maximum", &format!("<= {}", bounds.max), value));
    }
    if number < bounds.min || (bounds.above && number <= bounds.min) {
        let sign = if bounds.above { ">" } else { ">=" };
        return Err(bound(Kind::DecimalBelowMin, path, "minimum", &format!("{sign} {}", bounds.min), value));
    }
    Ok(number as f32)
}

fn bound(kind: Kind, path: &str, name: &str, expected: &str, found: &Value) -> ApiError {
    let side = if name == "maximum" { "above maximum" } else { "below minimum" };
    let found = echo(&found.to_string());
    let message =
        format!("Invalid '{}': {side} value. Expected a value {expected}, but got {found} instead.", echo(path));
    ApiError::at(kind, path, message)
}

/// The field at `path` has another JSON type than `expected`.
pub(in crate::api) fn wrong_type(path: &str, expected: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let message = format!("Invalid type for '{}': expected {expected}, but got {found} instead.", echo(path));
    ApiError::at(Kind::InvalidType, path, message)
}

/// The required field at `path` is not there.
pub(in crate::api) fn missing(path: &str) -> ApiError {
    ApiError::at(Kind::MissingParameter, path, format!("Missing required parameter: '{}'.", echo(path)))
}

/// The field at `path` has a value outside its set; `expected` lists the set.
pub(in crate::api) fn wrong_value(path: &str, found: &str, expected: &str) -> ApiError {
    let message = format!("Invalid value: '{}'. {expected}", echo(found));
    ApiError::at(Kind::InvalidValue, path, message)
}

/// An array at `path` that must not be empty is.
pub(in crate::api) fn empty_array(path: &str) -> ApiError {
    let message = format!("Invalid '{path}': empty array. Expected an array with minimum length 1.");
    ApiError::at(Kind::EmptyArray, path, message)
}
