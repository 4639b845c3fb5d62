//! Requests for functions that others have described: the description as a command, the arguments by their names.
//!
//! Knows no class of dialogue.

use super::command::{begins_with_verb, command, words};
use super::values::draw;
use crate::data::synth::dice::Dice;
use callsmith::chat::Tool;
use serde_json::{Map, Value as Json};

/// A call and the words that ask for it.
pub(super) struct Asked {
    pub(super) arguments: Json,
    /// What is to be done, without any value.
    pub(super) task: String,
    pub(super) request: String,
}

/// Draws a call of the tool; nothing where its schema takes what cannot be made up, or is none.
pub(super) fn ask(tool: &Tool, dice: &mut Dice) -> Option<Asked> {
    let task = command(tool);
    let schema = tool.parameters.as_ref()?;
    let arguments = arguments(schema, dice)?;
    let mut said = Vec::new();
    arguments.iter().for_each(|(name, value)| say(name, value, &mut said));
    let glue = dice.pick(&[" with ", " for ", ": ", ", using "]);
    let request = match said.split_last() {
        None => task.clone(),
        Some((last, [])) => format!("{task}{glue}{last}"),
        Some((last, first)) => format!("{task}{glue}{} and {last}", first.join(", ")),
    };
    let arguments = Json::Object(arguments);
    let is_valid = jsonschema::validator_for(schema).ok()?.is_valid(&arguments);
    is_valid.then_some(Asked { arguments, task, request })
}

fn arguments(schema: &Json, dice: &mut Dice) -> Option<Map<String, Json>> {
    let mut arguments = Map::new();
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let value = draw(name, property, dice, 0);
        match (required(name), value) {
            (true, None) => return None,
            (wanted, Some(value)) if wanted || dice.chance(0.3) => drop(arguments.insert(name.clone(), value)),
            _ => {}
        }
    }
    Some(arguments)
}

/// "city Paris", "street 12 Oak Street", "urgent": each single value after its name.
fn say(name: &str, value: &Json, said: &mut Vec<String>) {
    let words = words(name);
    match value {
        Json::Object(fields) => fields.iter().for_each(|(name, value)| say(name, value, said)),
        Json::Array(items) => items.iter().for_each(|item| say(name, item, said)),
        Json::String(text) => said.push(format!("{words} {text}")),
        Json::Bool(true) => said.push(words),
        Json::Bool(false) => said.push(negative(&words)),
        other => said.push(format!("{words} {other}")),
    }
}

/// Whether each single value of the arguments is said.
pub(super) fn is_grounded(name: &str, value: &Json, text: &str) -> bool {
    match value {
        Json::Object(fields) => fields.iter().all(|(name, value)| is_grounded(name, value, text)),
        Json::Array(items) => items.iter().all(|item| is_grounded(name, item, text)),
        Json::String(value) => text.contains(value.as_str()),
        Json::Bool(true) => text.replace(&negative(&words(name)), "").contains(&words(name)),
        Json::Bool(false) => text.contains(&negative(&words(name))),
        other => text.contains(&other.to_string()),
    }
}

/// How a flag that is not set is said: "not urgent", "is not active", "has no fee", "do not include tax".
fn negative(words: &str) -> String {
    match words.split_once(' ') {
        Some(("is", rest)) => format!("is not {rest}"),
        Some(("has", rest)) => format!("has no {rest}"),
        _ if begins_with_verb(words) => format!("do not {words}"),
        _ => format!("not {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flag_is_said_whether_it_is_set_or_not() {
        for (name, set, unset) in [
            ("urgent", "urgent", "not urgent"),
            ("isActive", "is active", "is not active"),
            ("has_fee", "has fee", "has no fee"),
            ("includeTax", "include tax", "do not include tax"),
        ] {
            for (value, text, other) in [(true, set, unset), (false, unset, set)] {
                let mut said = Vec::new();
                say(name, &json!(value), &mut said);
                assert_eq!(said, [text]);
                assert!(is_grounded(name, &json!(value), text) && !is_grounded(name, &json!(value), other), "{text}");
            }
        }
    }
}
