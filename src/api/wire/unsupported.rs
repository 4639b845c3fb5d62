//! Fields that are refused because ignoring them would change the output, and fields that are checked and ignored.

use super::fields::{Fields, string, wrong_value};
use crate::api::error::{ApiError, Kind};
use serde_json::Value;

/// The value of a refused field that changes nothing, and so is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Neutral {
    /// There is none.
    Nothing,
    /// `""`, `[]`, `{}`, or an object of nulls.
    Empty,
    Flag(bool),
    Number(f64),
    Text(&'static str),
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Empty, Value::String(text)) => text.is_empty(),
            (Self::Empty, Value::Array(items)) => items.is_empty(),
            (Self::Empty, Value::Object(map)) => map.values().all(Value::is_null),
            (Self::Flag(flag), Value::Bool(value)) => flag == *value,
            (Self::Number(number), value) => value.as_f64() == Some(number),
            (Self::Text(text), value) => value == text,
            _ => false,
        }
    }
}

/// Known to OpenAI or to other servers, and they change the output: refused rather than ignored.
const REFUSED: [(Neutral, &[&str]); 9] = [
    (
        Neutral::Nothing,
        &[
            "audio",
            "web_search_options",
            "prediction",
            "chat_template",
            "truncate_prompt_tokens",
            "guided_whitespace_pattern",
            "regex",
            "ebnf",
            "structural_tag",
            "conversation",
        ],
    ),
    (
        Neutral::Empty,
        &[
            "functions",
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "documents",
            "suffix",
            "stop_token_ids",
            "bad_words",
            "stop_words",
            "stop_sequences",
            "allowed_token_ids",
            "logits_processors",
            "grammar",
            "json_schema",
            "moderation",
            "context_management",
        ],
    ),
    (
        Neutral::Flag(false),
        &[
            "echo",
            "use_beam_search",
            "include_stop_str_in_output",
            "continue_final_message",
            "return_token_ids",
            "return_tokens_as_token_ids",
            "watermark",
            "background",
        ],
    ),
    (
        Neutral::Flag(true),
        &["add_generation_prompt", "skip_special_tokens", "spaces_between_special_tokens", "include_reasoning"],
    ),
    (
        Neutral::Number(0.0),
        &[
            "min_tokens",
            "prompt_logprobs",
            "min_new_tokens",
            "mirostat",
            "xtc_probability",
            "dry_multiplier",
            "top_a",
            "no_repeat_ngram_size",
            "dynatemp_range",
        ],
    ),
    (
        Neutral::Number(1.0),
        &["best_of", "beam_width", "num_beams", "length_penalty", "typical_p", "repeat_penalty", "tfs_z"],
    ),
    // No limit. Others bound the answer by it; what bounds it here is `max_tokens`.
    (Neutral::Number(-1.0), &["n_predict", "num_predict", "max_new_tokens"]),
    (Neutral::Text("medium"), &["verbosity"]),
    (Neutral::Text("none"), &["function_call"]),
];

/// A field of another route, and where this route has it; empty where it has nothing of the kind.
pub(in crate::api) type Elsewhere = (&'static str, &'static str);

/// Refuses what cannot be honoured; `known` are those of the fields that this route takes all the same, `elsewhere`
/// those that belong to other routes.
pub(super) fn refuse(fields: &Fields<'_>, known: &[&str], elsewhere: &[Elsewhere]) -> Result<(), ApiError> {
    for key in fields.keys() {
        let Some(value) = fields.get(key) else { continue };
        if !known.contains(&key) && neutral(key).is_some_and(|neutral| !neutral.is(value)) {
            return Err(unsupported(key));
        }
        let other = elsewhere.iter().find(|(field, _)| *field == key && !harmless(value));
        if let Some((_, remedy)) = other {
            return Err(misplaced(key, remedy));
        }
    }
    modalities(fields)
}

fn neutral(key: &str) -> Option<Neutral> {
    REFUSED.iter().find(|(_, keys)| keys.contains(&key)).map(|(neutral, _)| *neutral)
}

/// Clients send such values for fields that they do not use.
fn harmless(value: &Value) -> bool {
    [Neutral::Empty, Neutral::Flag(false), Neutral::Number(0.0), Neutral::Text("none")].iter().any(|one| one.is(value))
}

fn misplaced(key: &str, remedy: &str) -> ApiError {
    let remedy = if remedy.is_empty() { "Remove it.".to_owned() } else { format!("Use '{remedy}' instead.") };
    let message = format!("Unsupported parameter: '{key}' is not supported on this route. {remedy}");
    ApiError::at(Kind::MisplacedParameter, key, message)
}

/// The parameter exists elsewhere but is not supported here.
pub(super) fn unsupported(path: &str) -> ApiError {
    let message = format!("Unsupported parameter: '{path}' is not supported with this model. Remove it.");
    ApiError::at(Kind::UnsupportedParameter, path, message)
}

fn modalities(fields: &Fields<'_>) -> Result<(), ApiError> {
    for (item, path) in fields.array("modalities")?.unwrap_or_default() {
        if string(item, &path)? != "text" {
            let message = "Only the modality \"text\" is supported.";
            return Err(ApiError::at(Kind::UnsupportedValue, path, message));
        }
    }
    Ok(())
}

/// Checks the types of fields that have no effect here, but for those in `meant`, which have one on this route.
pub(super) fn check_ignored(fields: &Fields<'_>, meant: &[&str]) -> Result<(), ApiError> {
    for key in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
        fields.string(key)?;
    }
    if let Some(tier) = fields.string("service_tier")? {
        let known = ["auto", "default", "flex", "scale", "priority", "standard", "standard_only"];
        if !known.contains(&tier) {
            return Err(wrong_value("service_tier", tier, "Supported values are: 'auto' and 'default'."));
        }
    }
    if fields.boolean("store")? == Some(true) && !meant.contains(&"store") {
        let message = "Completions are not stored here: send \"store\": false or leave it out.";
        return Err(ApiError::at(Kind::UnsupportedValue, "store", message));
    }
    metadata(fields)
}

fn metadata(fields: &Fields<'_>) -> Result<(), ApiError> {
    let Some(metadata) = fields.object("metadata")? else { return Ok(()) };
    if metadata.keys().count() > 16 {
        let message = "Invalid 'metadata': too many properties. Expected an object with at most 16 properties.";
        return Err(ApiError::at(Kind::ObjectTooLarge, "metadata", message));
    }
    for key in metadata.keys() {
        metadata.string(key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::completion::NOT_COMPLETION;
    use super::super::request::NOT_CHAT;
    use super::super::responses::NOT_RESPONSE;
    use super::*;
    use serde_json::json;

    #[test]
    fn only_values_that_change_something_are_refused() {
        for (key, neutral, telling) in [
            ("functions", json!([]), json!([1])),
            ("min_tokens", json!(0.0), json!(1)),
            ("watermark", json!(false), json!(true)),
            ("skip_special_tokens", json!(true), json!(false)),
            ("length_penalty", json!(1), json!(0.5)),
            ("verbosity", json!("medium"), json!("low")),
            ("documents", json!({"a": null}), json!({"a": "b"})),
            ("regex", json!(null), json!("")),
        ] {
            let refused = |value: &Value| {
                let body = json!({key: value});
                refuse(&Fields::root(body.as_object().unwrap()), &[], &[]).is_err()
            };
            assert_eq!([refused(&neutral), refused(&telling)], [false, true], "{key}");
        }
    }

    #[test]
    fn the_description_of_the_api_names_the_same_fields_and_values() {
        let document: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
        let described = document["components"]["schemas"]["Refused"]["patternProperties"].as_object().unwrap();
        for (neutral, keys) in REFUSED {
            let keys: Vec<&str> = keys.iter().copied().filter(|key| !["echo", "best_of"].contains(key)).collect();
            let schema = &described[&format!("^({})$", keys.join("|"))];
            let validator = jsonschema::validator_for(schema).unwrap();
            for value in [
                json!(null),
                json!(""),
                json!([]),
                json!({}),
                json!({"a": null}),
                json!([1]),
                json!(true),
                json!(false),
                json!(0),
                json!(1),
                json!(2),
                json!("none"),
                json!("medium"),
                json!("x"),
            ] {
                assert_eq!(validator.is_valid(&value), value.is_null() || neutral.is(&value), "{keys:?} {value}");
            }
        }
        assert_eq!(described.len(), REFUSED.len());
        for (name, elsewhere) in
            [("NotChat", NOT_CHAT.as_slice()), ("NotCompletion", &NOT_COMPLETION), ("NotResponse", &NOT_RESPONSE)]
        {
            let described = document["components"]["schemas"][name]["properties"].as_object().unwrap();
            assert!(described.keys().eq(elsewhere.iter().map(|(key, _)| key)), "{name}");
        }
    }
}
