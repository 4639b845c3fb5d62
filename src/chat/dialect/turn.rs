//! Fills a dialect's Lark envelope for one turn. Knows no schema rules and no tokenizer.

use super::super::json::JsonStyle;
use super::super::messages::ToolChoice;
use super::TurnSpec;
use serde_json::{Value, json};
use std::fmt::Write;

/// Separates what every turn needs from what only a turn with calls needs.
const CALLS_MARK: &str = "// --- calls ---\n";
/// Calls in one turn at the most, less the first.
const MORE_CALLS: &str = "more{0,15}";

/// How a dialect lays out a call.
pub(super) struct Layout {
    /// The text of `grammars/NAME.lark`.
    pub(super) envelope: &'static str,
    /// The text before a call's arguments, given the function's name.
    pub(super) before_arguments: fn(&str) -> String,
    /// The text after them.
    pub(super) after_arguments: &'static str,
    /// How the arguments are spelled.
    pub(super) style: JsonStyle,
}

/// The Lark text of a whole turn.
pub(super) fn grammar(layout: &Layout, turn: &TurnSpec<'_>) -> String {
    let (words, calls) = layout.envelope.split_once(CALLS_MARK).unwrap_or((layout.envelope, ""));
    let start = match turn.choice {
        ToolChoice::None => "words",
        ToolChoice::Auto if turn.tools.is_empty() => "words",
        ToolChoice::Auto => "words_or_calls",
        ToolChoice::Required | ToolChoice::Named(_) => "calls",
    };
    let mut lark = words.replace("$START", start);
    if start != "words" {
        lark.push_str(&with_calls(layout, calls, turn));
    }
    lark
}

fn with_calls(layout: &Layout, envelope: &str, turn: &TurnSpec<'_>) -> String {
    let callable: Vec<_> = turn.tools.iter().filter(|(name, _)| may_call(turn.choice, name)).collect();
    let single = !turn.parallel || matches!(turn.choice, ToolChoice::Named(_));
    let more = if single { "" } else { MORE_CALLS };
    let mut alternatives: Vec<_> = (0..callable.len()).map(|index| format!("call{index}")).collect();
    if alternatives.is_empty() {
        // A call is demanded and there is nothing to call: the undefined rule makes the compiler refuse the turn.
        alternatives.push("no_such_function".to_owned());
    }
    let mut lark = envelope.replace("$MORE", more).replace("$CALLS", &alternatives.join(" | "));
    for (index, (name, schema)) in callable.into_iter().enumerate() {
        let before = literal(&(layout.before_arguments)(name));
        let after = literal(layout.after_arguments);
        let schema = styled(schema, &layout.style);
        writeln!(lark, "call{index}: {before} args{index} {after}\nargs{index}: %json {schema}")
            .expect("writing into a string cannot fail");
    }
    lark
}

fn may_call(choice: &ToolChoice, name: &str) -> bool {
    match choice {
        ToolChoice::Named(wanted) => wanted == name,
        _ => true,
    }
}

/// A Lark string, which is spelled like a JSON string.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The schema, told to spell its JSON as the dialect does.
fn styled(schema: &Value, style: &JsonStyle) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        let mut options = json!({"whitespace_flexible": false});
        if let (Some(options), Some(given)) = (options.as_object_mut(), map.remove("x-guidance")) {
            options.extend(given.as_object().cloned().unwrap_or_default());
        }
        options["item_separator"] = style.item_separator.clone().into();
        options["key_separator"] = style.key_separator.clone().into();
        map.insert("x-guidance".to_owned(), options);
    }
    schema
}
