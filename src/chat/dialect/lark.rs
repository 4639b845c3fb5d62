//! The grammar of one turn, as Lark text: words, thoughts and calls as a [`Description`] writes them. Knows no schema rules
//! and of the tokenizer only which texts are control tokens, which Lark can name by id alone.

use super::super::json::JsonStyle;
use super::super::messages::ToolChoice;
use super::super::reasoning;
use super::description::{Description, Gap, ID_LENGTH, Words};
use super::{ControlTokens, TurnSpec};
use serde_json::{Value, json};
use std::fmt::Write;

/// Calls in one turn at the most.
const MAX_CALLS: usize = 16;
/// The rule of a turn that has a demanded form unless it calls.
pub(super) const ANSWER_OR_CALLS: &str = "answer_or_calls";
const SPACE: &str = "[ \\t\\r\\n]";

/// The Lark text of a whole turn.
pub(super) fn grammar(description: &Description, turn: &TurnSpec<'_>) -> String {
    let start = start_rule(turn);
    let mut lark = reasoning::start(turn.reasoning, start);
    let writer = Writer { description, turn, trigger: Trigger::of(description, turn.control) };
    lark.push_str(&match start {
        "calls" => String::new(),
        ANSWER_OR_CALLS => answer_or_calls(turn),
        _ => writer.words(start),
    });
    if start != "words" {
        lark.push_str(&writer.calls());
    }
    lark
}

/// Rules for a turn that is an answer of the demanded form, or calls.
pub(super) fn answer_or_calls(turn: &TurnSpec<'_>) -> String {
    format!("{ANSWER_OR_CALLS}: answer | calls\n{}", turn.answer.unwrap_or_default())
}

/// `words` (no call possible), `words_or_calls`, `answer_or_calls` or `calls`.
pub(super) fn start_rule(turn: &TurnSpec<'_>) -> &'static str {
    match turn.choice {
        ToolChoice::None => "words",
        ToolChoice::Auto if turn.tools.is_empty() => "words",
        ToolChoice::Auto if turn.answer.is_some() => ANSWER_OR_CALLS,
        ToolChoice::Auto => "words_or_calls",
        ToolChoice::Required | ToolChoice::Named(_) => "calls",
    }
}

/// The text that tells calls from words: it opens the first call.
#[derive(Debug)]
struct Trigger {
    text: String,
    /// It is one control token.
    is_control: bool,
}

impl Trigger {
    fn of(description: &Description, control: &ControlTokens) -> Self {
        let start = description.start();
        let token = control.keys().filter(|token| start.starts_with(token.as_str())).max_by_key(|token| token.len());
        match token {
            Some(token) => Self { text: token.clone(), is_control: true },
            None => Self { text: trigger(description).to_owned(), is_control: false },
        }
    }
}

/// What the first call starts with: a tag, else a run without white space, braces and quotes, else one character.
pub(super) fn trigger(description: &Description) -> &str {
    let start = description.start();
    let run = start.find(|c: char| crate::chat::SPACE.contains(&c) || c == '{' || c == '"').unwrap_or(start.len());
    let tag = start[..run].find(['>', ']']).map_or(run, |close| close + 1);
    let first = start.chars().next().map_or(0, char::len_utf8);
    &start[..tag.max(first)]
}

struct Writer<'a> {
    description: &'a Description,
    turn: &'a TurnSpec<'a>,
    trigger: Trigger,
}

impl Writer<'_> {
    /// The rules `words` or `words_or_calls`. Words can never look like a call, so that no call can be broken.
    fn words(&self, start: &str) -> String {
        let pattern = match self.description.words {
            Words::Before => self.no_trigger_inside(),
            Words::Instead if start == "words" => self.no_call_at_start(),
            Words::Instead => self.no_opening_character(),
        };
        let thoughts = reasoning::excluded_start(self.turn.reasoning);
        let words = format!("WORDS: {pattern}{thoughts}\n");
        if start == "words" {
            return format!("words: WORDS\n{words}");
        }
        let calls = match self.description.words {
            Words::Instead => "calls".to_owned(),
            Words::Before if self.trigger.is_control => "WORDS? calls".to_owned(),
            Words::Before => {
                let tag = escape(&self.trigger.text);
                let lead = format!("LEAD: /(.|\\n)*{tag}/ & ~/(.|\\n)*{tag}(.|\\n)+/{thoughts}\n");
                return format!("words_or_calls: WORDS | LEAD rest\n{words}{lead}");
            }
        };
        format!("words_or_calls: WORDS | {calls}\n{words}")
    }

    /// Where the trigger is a control token, words could still spell it out.
    fn no_trigger_inside(&self) -> String {
        format!("/(.|\\n)+/ & ~/(.|\\n)*{}(.|\\n)*/", escape(&self.trigger.text))
    }

    /// Words that do not begin as a whole opening would.
    fn no_call_at_start(&self) -> String {
        let tokens = super::parser::tokens(&self.description.opening());
        format!("/(.|\\n)+/ & {}", not_starting_with(&tokens[..tokens.len().min(2)]))
    }

    /// Words that do not begin with the character of an opening. Where a call may begin, neither may what leads to it.
    fn no_opening_character(&self) -> String {
        let lead = super::parser::tokens(&self.description.lead);
        let lead = if lead.is_empty() { String::new() } else { format!(" & {}", not_starting_with(&lead)) };
        let first = self.trigger.text.chars().next().map(|first| escape(&first.to_string())).unwrap_or_default();
        format!("/[ \\t\\r\\n]{{0,4}}[^{first} \\t\\r\\n](.|\\n)*/{lead}")
    }

    /// `calls` and `rest` (what follows the trigger of the first call).
    fn calls(&self) -> String {
        let description = self.description;
        let trigger = self.literal(&self.trigger.text);
        let lead = if description.lead.is_empty() {
            String::new()
        } else {
            format!("({})? ", self.literal(&description.lead))
        };
        let begins_with_call = description.begin.is_empty();
        let begin = if begins_with_call { "" } else { &description.begin[self.trigger.text.len()..] };
        let (begin, end) = (self.literal(begin), self.literal(&description.end));
        let single = !self.turn.parallel || matches!(self.turn.choice, ToolChoice::Named(_));
        let mut lark = match &description.between {
            Some(between) if !single => {
                let again = if begins_with_call { trigger.as_str() } else { "" };
                let most = MAX_CALLS - 1;
                let between = self.literal(between);
                format!("rest: {begin} call more{{0,{most}}} {end}\nmore: {between} {again} call\n")
            }
            _ => format!("rest: {begin} call {end}\n"),
        };
        lark.push_str(&format!("calls: {lead}{trigger} rest\n"));
        lark.push_str(&self.functions(if begins_with_call { self.trigger.text.len() } else { 0 }));
        lark
    }

    /// One alternative per function that may be called; `skip` bytes of each call's head stand elsewhere.
    fn functions(&self, skip: usize) -> String {
        let description = self.description;
        let callable: Vec<_> = self.turn.callable().collect();
        let mut lark = format!("call: {}\n", alternatives("call", callable.len()));
        for (index, (name, schema)) in callable.into_iter().enumerate() {
            let before = self.gap(&format!("{}{name}", &description.head[skip..]), &description.middle);
            let after = self.gap("", &description.tail);
            let schema = styled(schema, &description.json);
            writeln!(lark, "call{index}: {before} args{index} {after}\nargs{index}: %json {schema}")
                .expect("writing into a string cannot fail");
        }
        if description.writes_ids() {
            let _ = writeln!(lark, "ID: /[a-zA-Z0-9]{{{ID_LENGTH}}}/");
        }
        lark
    }

    fn gap(&self, start: &str, gap: &Gap) -> String {
        let before = self.literal(&format!("{start}{}", gap.before));
        let Some([open, close]) = &gap.id else { return before };
        let id = format!("({} ID {})?", self.literal(open), self.literal(close));
        format!("{before} {id} {}", self.literal(&gap.after))
    }

    fn literal(&self, text: &str) -> String {
        literal(text, self.turn.control)
    }
}

/// The rules `{name}0` to `{name}{count - 1}`, one of which a call is. Where a call is demanded and there is nothing to call,
/// an undefined rule makes the compiler refuse the turn.
pub(super) fn alternatives(name: &str, count: usize) -> String {
    let rules: Vec<String> = (0..count).map(|index| format!("{name}{index}")).collect();
    if rules.is_empty() { "no_such_function".to_owned() } else { rules.join(" | ") }
}

/// Texts that do not begin with these, whatever white space stands between them.
fn not_starting_with(tokens: &[String]) -> String {
    let tokens: Vec<String> = tokens.iter().map(|token| escape(token)).collect();
    format!("~/{SPACE}*{}(.|\\n)*/", tokens.join(&format!("{SPACE}*")))
}

/// A sequence of Lark strings and token ids that is exactly `text`; empty for no text.
fn literal(text: &str, control: &ControlTokens) -> String {
    let mut sequence = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (at, token) = first_control(rest, control).unwrap_or((rest.len(), ""));
        if at > 0 {
            sequence.push(Value::from(&rest[..at]).to_string());
        }
        if let Some(id) = control.get(token) {
            sequence.push(format!("<[{id}]>"));
        }
        rest = &rest[at + token.len()..];
    }
    sequence.join(" ")
}

/// The first control token in a text, the longest of those that begin there.
fn first_control<'a>(text: &str, control: &'a ControlTokens) -> Option<(usize, &'a str)> {
    let found = control.keys().filter_map(|token| Some((text.find(token.as_str())?, token.as_str())));
    found.min_by_key(|(at, token)| (*at, usize::MAX - token.len()))
}

/// A text as part of a Lark regular expression.
pub(in crate::chat) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            c if "\\.+*?()|[]{}^$#&-~/".contains(c) => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
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
