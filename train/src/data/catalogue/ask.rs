//! Requests for functions that others have described: the description as a command, the arguments by their names.
//!
//! Knows no class of dialogue.

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

/// Draws a call of the tool; nothing where its schema takes what cannot be made up.
pub(super) fn ask(tool: &Tool, dice: &mut Dice) -> Option<Asked> {
    let task = task(tool);
    let arguments = arguments(tool.parameters.as_ref()?, dice)?;
    let mut said = Vec::new();
    arguments.iter().for_each(|(name, value)| say(name, value, &mut said));
    let glue = dice.pick(&[" with ", " for ", ": ", ", using "]);
    let request = match said.split_last() {
        None => task.clone(),
        Some((last, [])) => format!("{task}{glue}{last}"),
        Some((last, first)) => format!("{task}{glue}{} and {last}", first.join(", ")),
    };
    let arguments = Json::Object(arguments);
    tool.parameters.as_ref().is_none_or(|schema| jsonschema::is_valid(schema, &arguments)).then_some(Asked {
        arguments,
        task,
        request,
    })
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
        Json::Bool(false) => said.push(format!("no {words}")),
        other => said.push(format!("{words} {other}")),
    }
}

/// Whether each single value of the arguments is said.
pub(super) fn is_grounded(name: &str, value: &Json, text: &str) -> bool {
    match value {
        Json::Object(fields) => fields.iter().all(|(name, value)| is_grounded(name, value, text)),
        Json::Array(items) => items.iter().all(|item| is_grounded(name, item, text)),
        Json::String(value) => text.contains(value.as_str()),
        Json::Bool(_) => text.contains(&words(name)),
        other => text.contains(&other.to_string()),
    }
}

/// `dueDate`, `due_date` → "due date".
fn words(name: &str) -> String {
    let mut words = String::new();
    let mut lower = false;
    for c in name.chars() {
        if c.is_uppercase() && lower || !c.is_alphanumeric() {
            words.push(' ');
        }
        if c.is_alphanumeric() {
            words.extend(c.to_lowercase());
        }
        lower = c.is_lowercase();
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first sentence of the description as a command: "Returns a pet." → "return a pet".
fn task(tool: &Tool) -> String {
    let about = tool.description.as_deref().unwrap_or_default();
    let sentence = about.split(['\n', '\r']).next().unwrap_or_default();
    let sentence = sentence.split(". ").next().unwrap_or_default().trim().trim_end_matches('.');
    let (first, rest) = sentence.split_once(' ').unwrap_or((sentence, ""));
    let is_acronym = first.chars().filter(|c| c.is_uppercase()).count() > 1;
    let first = if is_acronym { first.to_owned() } else { first.to_lowercase() };
    match sentence.is_empty() {
        true => words(&tool.name),
        false => format!("{} {rest}", command(&first)).trim().to_owned(),
    }
}

/// "returns" → "return", "searches" → "search", "modifies" → "modify".
fn command(verb: &str) -> String {
    let without = |end: &str| verb.strip_suffix(end);
    if let Some(stem) = without("ies").filter(|stem| stem.len() > 2) {
        return format!("{stem}y");
    }
    let hissing = ["sses", "shes", "ches", "xes"].iter().any(|end| verb.ends_with(end));
    match (hissing, without("s")) {
        (true, Some(_)) => verb[..verb.len() - 2].to_owned(),
        (false, Some(stem)) if !verb.ends_with("ss") && !verb.ends_with("us") && verb.len() > 3 => stem.to_owned(),
        _ => verb.to_owned(),
    }
}
