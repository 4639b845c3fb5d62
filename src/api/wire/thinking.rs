//! Whether a model that can think aloud shall do so: the ways in which clients say no. How much it thinks is its own affair, so
//! whatever asks for more or less of it is refused.

use super::fields::Fields;
use super::unsupported::unsupported;
use crate::api::error::ApiError;
use serde_json::Value;

/// What a field says of thoughts.
enum Wish {
    Nothing,
    Yes,
    No,
}

/// `false` = the model shall answer without thoughts.
///
/// # Errors
/// When a field asks for something else than thoughts or none.
pub(super) fn wanted(fields: &Fields<'_>) -> Result<bool, ApiError> {
    let mut wanted = true;
    for (key, read) in FIELDS {
        let Some(value) = fields.get(key) else { continue };
        match read(value) {
            Some(Wish::No) => wanted = false,
            Some(Wish::Nothing | Wish::Yes) => {}
            None => return Err(unsupported(&fields.path(key))),
        }
    }
    Ok(wanted)
}

/// How each field says it; `None` = it says something else.
type Reader = fn(&Value) -> Option<Wish>;

/// Of OpenAI; of vLLM, and the same at the top; of Anthropic and others; of OpenRouter and the Responses API.
const FIELDS: [(&str, Reader); 7] = [
    ("reasoning_effort", effort),
    ("chat_template_kwargs", |value| members(value, &[("enable_thinking", flag), ("thinking", flag)])),
    ("enable_thinking", flag),
    ("thinking", |value| members(value, &[("type", kind)])),
    ("thinking_budget", budget),
    ("thinking_token_budget", budget),
    ("reasoning", |value| members(value, &[("effort", effort), ("enabled", flag)])),
];

fn flag(value: &Value) -> Option<Wish> {
    value.as_bool().map(|flag| if flag { Wish::Yes } else { Wish::No })
}

fn effort(value: &Value) -> Option<Wish> {
    (value == "none").then_some(Wish::No)
}

fn kind(value: &Value) -> Option<Wish> {
    match value.as_str()? {
        "enabled" => Some(Wish::Yes),
        "disabled" => Some(Wish::No),
        _ => None,
    }
}

fn budget(value: &Value) -> Option<Wish> {
    (value.as_f64() == Some(0.0)).then_some(Wish::No)
}

/// An object of these members, nulls aside.
fn members(value: &Value, readers: &[(&str, Reader)]) -> Option<Wish> {
    let mut wish = Wish::Nothing;
    for (key, value) in value.as_object()?.iter().filter(|(_, value)| !value.is_null()) {
        let (_, read) = readers.iter().find(|(name, _)| name == key)?;
        wish = match (read(value)?, wish) {
            (Wish::No, _) | (_, Wish::No) => Wish::No,
            (found, _) => found,
        };
    }
    Some(wish)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(key: &str, value: &Value) -> Option<bool> {
        let body = json!({key: value});
        wanted(&Fields::root(body.as_object().unwrap())).ok()
    }

    #[test]
    fn no_is_said_in_many_ways() {
        for (key, value) in [
            ("reasoning_effort", json!("none")),
            ("chat_template_kwargs", json!({"enable_thinking": false})),
            ("enable_thinking", json!(false)),
            ("thinking", json!({"type": "disabled"})),
            ("thinking_budget", json!(0)),
            ("reasoning", json!({"effort": "none", "summary": null})),
            ("reasoning", json!({"enabled": false})),
        ] {
            assert_eq!(read(key, &value), Some(false), "{key}: {value}");
        }
        for (key, value) in [
            ("chat_template_kwargs", json!({})),
            ("enable_thinking", json!(true)),
            ("thinking", json!({"type": "enabled"})),
            ("reasoning", json!({"effort": null})),
        ] {
            assert_eq!(read(key, &value), Some(true), "{key}: {value}");
        }
    }

    #[test]
    fn how_much_is_not_to_be_said() {
        for (key, value) in [
            ("reasoning_effort", json!("high")),
            ("chat_template_kwargs", json!({"chat_template": "x"})),
            ("chat_template_kwargs", json!("x")),
            ("thinking", json!({"type": "enabled", "budget_tokens": 100})),
            ("thinking_budget", json!(100)),
            ("reasoning", json!({"effort": "low"})),
        ] {
            assert_eq!(read(key, &value), None, "{key}: {value}");
        }
    }
}
