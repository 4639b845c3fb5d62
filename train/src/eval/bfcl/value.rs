//! BFCL's rules for one argument: of which type it must be, and which values it may have.
//!
//! The types are Python's, in which the gold answers are written. Knows no function and no call.

use crate::eval::score::same;
use serde_json::{Map, Value};

/// A Python type, as far as JSON can hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Text,
    Integer,
    Float,
    Boolean,
    List,
    Dict,
    None,
}

impl Type {
    /// The type that a schema calls so; `any` is text.
    pub fn named(name: &Value) -> Option<Self> {
        Some(match name.as_str()? {
            "string" | "any" => Self::Text,
            "integer" => Self::Integer,
            "float" | "number" => Self::Float,
            "boolean" => Self::Boolean,
            "array" | "tuple" => Self::List,
            "dict" | "object" => Self::Dict,
            _ => return None,
        })
    }

    /// The type of a value. A number with a point is a float, also `5.0`.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::Text,
            Value::Number(number) if number.is_f64() => Self::Float,
            Value::Number(_) => Self::Integer,
            Value::Bool(_) => Self::Boolean,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Dict,
            Value::Null => Self::None,
        }
    }
}

/// What is wrong with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Type,
    Value,
}

/// Checks an argument against its schema and the values that are allowed for it, of which `""` means that it may be left out.
/// No value at all stands for the empty list: two answers of `live_simple` mean it so, which the leaderboard's own checker never
/// finds right.
///
/// # Errors
/// What is wrong with it.
pub fn check(value: &Value, allowed: &[Value], schema: &Value) -> Result<(), Wrong> {
    if allowed.is_empty() {
        return if value.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(Wrong::Value) };
    }
    let expected = Type::named(&schema["type"]).unwrap_or(Type::Text);
    let inner = if expected == Type::List { Type::named(&schema["items"]["type"]) } else { None };
    let widened = if expected == Type::Float { widened(value) } else { value.clone() };
    let variable = type_fits(&widened, allowed, expected, inner).ok_or(Wrong::Type)?;
    let fits = match (&widened, expected) {
        _ if variable => is_among(&widened, allowed),
        (Value::String(text), Type::Text) => among_standard(text, allowed),
        (Value::Object(dict), Type::Dict) => allowed.iter().any(|one| dict_fits(dict, one)),
        (Value::Array(list), Type::List) if inner == Some(Type::Dict) => allowed.iter().any(|one| dicts_fit(list, one)),
        (Value::Array(list), Type::List) => allowed.iter().any(|one| list_fits(list, one)),
        _ => is_among(&widened, allowed),
    };
    if fits { Ok(()) } else { Err(Wrong::Value) }
}

/// A whole number where a float is expected.
fn widened(value: &Value) -> Value {
    value.as_i64().map_or_else(|| value.clone(), |whole| Value::from(whole as f64))
}

/// Whether the type is the expected one, or that of the gold value; `Some(true)` when the gold value's type is another than the
/// schema's: then it stands for a variable, and nothing is made the same before it is compared.
fn type_fits(value: &Value, allowed: &[Value], expected: Type, inner: Option<Type>) -> Option<bool> {
    let gold = allowed.iter().find(|one| **one != "").map(Type::of);
    if Type::of(value) != expected {
        return (gold == Some(Type::of(value))).then_some(true);
    }
    let variable = gold.is_some_and(|gold| gold != expected);
    let (Some(inner), Value::Array(items)) = (inner, value) else { return Some(variable) };
    // One level deep: a list must have the types of one of the allowed lists.
    let typed = |one: &Value| {
        let same_types = |list: &Vec<Value>| items.iter().all(|item| type_fits(item, list, inner, None).is_some());
        one.as_array().is_none_or(same_types)
    };
    allowed.iter().any(typed).then_some(variable)
}

fn is_among(value: &Value, allowed: &[Value]) -> bool {
    allowed.iter().any(|one| same(value, one))
}

fn among_standard(text: &str, allowed: &[Value]) -> bool {
    allowed.iter().filter_map(Value::as_str).any(|one| standard(one) == standard(text))
}

/// A text without spaces, signs and capitals, for comparing.
fn standard(text: &str) -> String {
    let kept = text.chars().filter(|character| !" ,./-_*^".contains(*character));
    kept.collect::<String>().to_lowercase().replace('\'', "\"")
}

fn standard_value(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| Value::from(standard(text)))
}

/// The same items in the same order. The allowed text `""` is an empty list.
fn list_fits(list: &[Value], allowed: &Value) -> bool {
    let allowed = allowed.as_array().map(Vec::as_slice).unwrap_or_default();
    list.len() == allowed.len()
        && list.iter().zip(allowed).all(|(item, one)| same(&standard_value(item), &standard_value(one)))
}

/// Every member has one of its allowed values, and what is missing may be.
fn dict_fits(dict: &Map<String, Value>, allowed: &Value) -> bool {
    let Some(allowed) = allowed.as_object() else { return false };
    let value = |(name, value): (&String, &Value)| {
        let among = |values: &Vec<Value>| values.iter().any(|one| same(&standard_value(one), &standard_value(value)));
        allowed.get(name).and_then(Value::as_array).is_some_and(among)
    };
    let optional = |values: &Value| values.as_array().is_some_and(|values| values.iter().any(|one| one == ""));
    dict.iter().all(value) && allowed.iter().all(|(name, values)| dict.contains_key(name) || optional(values))
}

/// As many, in the same order. The allowed text `""` is an empty list here too.
fn dicts_fit(list: &[Value], allowed: &Value) -> bool {
    let allowed = allowed.as_array().map(Vec::as_slice).unwrap_or_default();
    let fits = |(item, one): (&Value, &Value)| item.as_object().is_some_and(|dict| dict_fits(dict, one));
    list.len() == allowed.len() && list.iter().zip(allowed).all(fits)
}

#[cfg(test)]
mod tests;
