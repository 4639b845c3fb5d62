//! What a dialect's file says: the fixed text around calls, and how tools and results are shown. Checked here, used by
//! `lark` (grammar), `parser` and `prompt`. Knows no turn and no tokenizer.

use super::super::json::JsonStyle;
use super::super::{ChatError, SPACE};
use serde::Deserialize;

/// Length of a call id that the model itself writes.
pub(super) const ID_LENGTH: usize = 9;
const NAME: &str = "$NAME";
const ARGUMENTS: &str = "$ARGUMENTS";
const CALL_ID: &str = "$CALL_ID";
const ID: &str = "$ID";
/// Longest fixed text between two slots.
const MAX_TEXT: usize = 1_000;

/// A dialect file as it is written; README.md in `grammars/` documents the keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    detect: Vec<String>,
    words: Words,
    json: Spelling,
    #[serde(default)]
    lead: String,
    #[serde(default)]
    begin: String,
    call: String,
    #[serde(default)]
    call_id: String,
    between: Option<String>,
    #[serde(default)]
    end: String,
    prompt: PromptFile,
}

/// Jinja templates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromptFile {
    pub(super) system: String,
    pub(super) results: String,
}

/// Where words may stand in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Words {
    /// Before the first call.
    Before,
    /// In a turn without calls alone.
    Instead,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spelling {
    Compact,
    Spaced,
}

/// A dialect of calls that are a name and a JSON object in fixed text.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) name: String,
    /// A chat template that contains one of these speaks this dialect.
    pub(super) detect: Vec<String>,
    pub(super) words: Words,
    /// How the arguments are spelled.
    pub(super) json: JsonStyle,
    /// May stand before everything else.
    pub(super) lead: String,
    /// Before the first call and after the last.
    pub(super) begin: String,
    pub(super) end: String,
    /// From the start of a call to its function's name.
    pub(super) head: String,
    /// The name is a JSON string, whose quotes are in `head` and `middle`.
    pub(super) quoted: bool,
    /// From the name to the arguments.
    pub(super) middle: Gap,
    /// After the arguments.
    pub(super) tail: Gap,
    /// Between two calls; `None` = one call a turn.
    pub(super) between: Option<String>,
}

/// Fixed text, in which a call id may stand.
#[derive(Debug, Default)]
pub(super) struct Gap {
    pub(super) before: String,
    /// The text around the id.
    pub(super) id: Option<[String; 2]>,
    /// Empty when there is no id.
    pub(super) after: String,
}

impl Gap {
    /// The text, with an id in it where there is a place for one.
    pub(super) fn text(&self, id: Option<&str>) -> String {
        let id = self.id.as_ref().zip(id).map(|([open, close], id)| format!("{open}{id}{close}"));
        format!("{}{}{}", self.before, id.unwrap_or_default(), self.after)
    }

    /// All fixed text in it.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let id = self.id.iter().flatten().map(String::as_str);
        [self.before.as_str(), self.after.as_str()].into_iter().chain(id)
    }
}

impl Description {
    /// Reads a dialect's file; the error names the key and what it must be.
    pub(super) fn parse(source: &str) -> Result<(Self, PromptFile), ChatError> {
        let file: File = toml::from_str(source).map_err(|error| ChatError::Dialect(error.to_string()))?;
        let fail = |message: String| ChatError::Dialect(format!("dialect `{}`: {message}", file.name));
        check_name(&file.name).map_err(fail)?;
        let (head, rest) = split(&file.call, NAME).map_err(fail)?;
        let (middle, tail) = split(rest, ARGUMENTS).map_err(fail)?;
        let quoted = quotes(head) % 2 == 1;
        let description = Self {
            detect: file.detect,
            words: file.words,
            json: match file.json {
                Spelling::Compact => JsonStyle::compact(),
                Spelling::Spaced => JsonStyle::spaced(),
            },
            head: head.to_owned(),
            quoted,
            middle: gap(middle, &file.call_id).map_err(fail)?,
            tail: gap(tail, &file.call_id).map_err(fail)?,
            lead: file.lead,
            begin: file.begin,
            end: file.end,
            between: file.between,
            name: file.name.clone(),
        };
        description.check(&file.call_id).map_err(fail)?;
        Ok((description, file.prompt))
    }

    fn check(&self, call_id: &str) -> Result<(), String> {
        let ids = usize::from(self.middle.id.is_some()) + usize::from(self.tail.id.is_some());
        if !call_id.is_empty() && ids != 1 {
            return Err(format!("`call` must have {CALL_ID} once, where `call_id` may stand"));
        }
        if self.quoted && !self.middle.before.starts_with('"') {
            return Err(format!("`call`: the quote before {NAME} must be closed right after it"));
        }
        if !self.quoted && self.middle.text(None).starts_with(is_name) {
            return Err(format!(
                "`call`: a letter, digit, `_`, `-` or `.` right after {NAME} would belong to the name"
            ));
        }
        if !self.quoted && self.middle.text(Some("")).starts_with(is_name) {
            return Err("`call_id`: its first character would belong to the name before it".to_owned());
        }
        if self.start().is_empty() || self.start().starts_with(SPACE) {
            let message = "must start with text (no white space), so that calls can be told from words";
            return Err(format!("`begin`, or else `call`, {message}"));
        }
        if self.words == Words::Before && !self.lead.is_empty() {
            return Err("`lead` needs `words = \"instead\"`".to_owned());
        }
        if self.lead.starts_with(SPACE) {
            return Err("`lead` must not start with white space".to_owned());
        }
        match self.texts().find(|text| text.len() > MAX_TEXT || text.contains('$')) {
            Some(text) if text.contains('$') => Err(format!("`{text}`: unknown slot, or a slot in the wrong place")),
            Some(_) => Err(format!("a fixed text is longer than {MAX_TEXT} bytes")),
            None => Ok(()),
        }
    }

    /// What the first call starts with.
    pub(super) fn start(&self) -> &str {
        if self.begin.is_empty() { &self.head } else { &self.begin }
    }

    /// The text that opens the first call, up to its name.
    pub(super) fn opening(&self) -> String {
        format!("{}{}", self.begin, self.head)
    }

    /// Every fixed text; control tokens in it are the model's way to write it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let own = [&self.lead, &self.begin, &self.head, &self.end].into_iter().map(String::as_str);
        own.chain(self.between.as_deref()).chain(self.middle.texts()).chain(self.tail.texts())
    }

    /// A call's text up to its arguments.
    pub(super) fn before_arguments(&self, name: &str, id: Option<&str>) -> String {
        format!("{}{name}{}", self.head, self.middle.text(id))
    }

    /// The model itself writes ids, of [`ID_LENGTH`] letters and digits.
    pub(super) fn writes_ids(&self) -> bool {
        self.middle.id.is_some() || self.tail.id.is_some()
    }
}

/// A character of a function's name.
pub(super) fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

fn check_name(name: &str) -> Result<(), String> {
    let good = !name.is_empty() && name.len() <= 64 && name.chars().all(is_name);
    if good { Ok(()) } else { Err("`name` must be 1 to 64 letters, digits, `_`, `-` or `.`".to_owned()) }
}

fn split<'a>(call: &'a str, slot: &str) -> Result<(&'a str, &'a str), String> {
    call.split_once(slot).ok_or_else(|| format!("`call` must have {NAME} and then {ARGUMENTS}"))
}

/// Fixed text that may contain the slot of an id.
fn gap(text: &str, call_id: &str) -> Result<Gap, String> {
    let Some((before, after)) = text.split_once(CALL_ID) else {
        return Ok(Gap { before: text.to_owned(), ..Gap::default() });
    };
    let (open, close) =
        call_id.split_once(ID).ok_or_else(|| format!("`call_id` must have {ID}, since `call` has {CALL_ID}"))?;
    Ok(Gap { before: before.to_owned(), id: Some([open.to_owned(), close.to_owned()]), after: after.to_owned() })
}

fn quotes(text: &str) -> usize {
    text.matches('"').count()
}
