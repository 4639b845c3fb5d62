//! Calls as the formats write them: `{"name", "arguments"}` as JSON or as the text of it, alone or in a list, perhaps wrapped
//! as `function`, `function_call`.

use super::dialogue::Call;
use super::literal;
use crate::data::rows::{Flaw, Reason};
use serde_json::{Map, Value as Json};

fn flaw(detail: impl Into<String>) -> Flaw {
    Flaw::new(Reason::Call, detail)
}

/// The calls in a text: one object or a list of them.
pub(super) fn in_text(text: &str) -> Result<Vec<Call>, Flaw> {
    list(&literal::read(text).map_err(|error| flaw(format!("{error} in `{text}`")))?)
}

/// One call or several; a text is read first.
pub(super) fn list(value: &Json) -> Result<Vec<Call>, Flaw> {
    match value {
        Json::String(text) => in_text(text),
        Json::Array(calls) if calls.is_empty() => Err(flaw("an empty list of calls")),
        Json::Array(calls) => calls.iter().map(one).collect(),
        call => Ok(vec![one(call)?]),
    }
}

/// One call.
pub(super) fn one(value: &Json) -> Result<Call, Flaw> {
    for wrapper in ["function", "function_call"] {
        if value[wrapper].is_object() {
            return one(&value[wrapper]);
        }
    }
    let name = value["name"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| flaw("`name` is missing"))?;
    let given = value.get("arguments").or_else(|| value.get("parameters"));
    Ok(Call { name: name.to_owned(), arguments: arguments(name, given)? })
}

fn arguments(name: &str, given: Option<&Json>) -> Result<Json, Flaw> {
    let wrong = |what: &str| flaw(format!("arguments of `{name}`: {what}"));
    match given {
        None | Some(Json::Null) => Ok(Json::Object(Map::new())),
        Some(Json::Object(map)) => Ok(Json::Object(map.clone())),
        Some(Json::String(text)) if text.trim().is_empty() => Ok(Json::Object(Map::new())),
        Some(Json::String(text)) => {
            let value = literal::read(text).map_err(|error| wrong(&error.to_string()))?;
            if value.is_object() { Ok(value) } else { Err(wrong("no object")) }
        }
        Some(_) => Err(wrong("no object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_found_in_every_wrapping() {
        let expected = vec![Call { name: "f".into(), arguments: json!({"a": 1}) }];
        for written in [
            json!({"name": "f", "arguments": {"a": 1}}),
            json!([{"name": "f", "parameters": {"a": 1}}]),
            json!({"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}),
            json!({"function_call": {"name": "f", "arguments": "{'a': 1}"}}),
            json!("{'name': 'f', 'arguments': {'a': 1}}"),
        ] {
            assert_eq!(list(&written).unwrap(), expected, "{written}");
        }
        assert_eq!(in_text(r#"{"name": "f"}"#).unwrap()[0].arguments, json!({}));
    }

    #[test]
    fn what_is_no_call_says_why() {
        let why = |value: Json| list(&value).unwrap_err().to_string();
        assert_eq!(why(json!({"arguments": {}})), "unreadable call: `name` is missing");
        assert_eq!(why(json!({"name": "f", "arguments": [1]})), "unreadable call: arguments of `f`: no object");
        assert!(why(json!({"name": "f", "arguments": "{\"a\":"})).contains("arguments of `f`: EOF"));
        assert!(why(json!([])).contains("empty list"));
        assert!(why(json!("no json")).contains("in `no json`"));
    }
}
