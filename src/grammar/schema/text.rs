//! Strings and constants: lengths, patterns, formats, and which literal values can be written as they are.

use super::document::{Document, Node};
use super::{GrammarError, complement, format, number, too_complex};
use serde_json::{Map, Value, json};

/// Strings within two lengths (in characters) that match all patterns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) minimum: u64,
    pub(super) maximum: Option<u64>,
    patterns: Vec<String>,
}

/// Characters of all strings that are excluded from one place.
const MAX_EXCLUDED: usize = 2_000;
/// Characters of one of them.
const MAX_EXCLUDED_LENGTH: usize = 100;

/// What the string keywords of all parts leave; `None` when nothing.
pub(super) fn merge<'a>(
    document: &Document<'a>,
    parts: &[Node<'a>],
    excluded: &[&Value],
) -> Result<Option<Text>, GrammarError> {
    let mut text = Text { minimum: 0, maximum: None, patterns: Vec::new() };
    for part in parts {
        let Some(map) = part.as_object() else { continue };
        let count = |keyword: &str| map.get(keyword).and_then(number::clamp_count);
        text.minimum = text.minimum.max(count("minLength").unwrap_or(0));
        text.maximum = [text.maximum, count("maxLength")].into_iter().flatten().min();
        if let Some(regex) = map.get("pattern").and_then(Value::as_str) {
            text.add(document.translate(regex, part, "pattern")?);
        }
        if let Some(regex) = map.get("format").and_then(Value::as_str).and_then(format::string_pattern) {
            text.add(regex.to_owned());
        }
    }
    let excluded: Vec<&str> = excluded.iter().filter_map(|value| value.as_str()).collect();
    if excluded.iter().map(|word| word.len()).sum::<usize>() > MAX_EXCLUDED
        || excluded.iter().any(|word| word.chars().count() > MAX_EXCLUDED_LENGTH)
    {
        let pointer = parts.first().map_or("", |part| document.pointer(part));
        let message = format!("strings to exclude are longer than {MAX_EXCLUDED_LENGTH} or {MAX_EXCLUDED} in all");
        return Err(too_complex(pointer, message));
    }
    if !excluded.is_empty() {
        text.add(complement::of(&excluded));
    }
    let possible = text.maximum.is_none_or(|maximum| text.minimum <= maximum);
    Ok(possible.then_some(text))
}

impl Text {
    fn add(&mut self, pattern: String) {
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
    }

    /// Whether no string can have both lengths.
    pub(super) fn misses(&self, map: &Map<String, Value>) -> bool {
        let count = |keyword: &str| map.get(keyword).and_then(super::keywords::count);
        count("maxLength").is_some_and(|maximum| self.minimum > maximum)
            || count("minLength").is_some_and(|minimum| self.maximum.is_some_and(|maximum| maximum < minimum))
    }

    /// The compiler's schema.
    pub(super) fn emit(&self) -> Value {
        let mut schema = json!({"type": "string"});
        if self.minimum > 0 {
            schema["minLength"] = json!(self.minimum);
        }
        if let Some(maximum) = self.maximum {
            schema["maxLength"] = json!(maximum);
        }
        match self.patterns.as_slice() {
            [] => {}
            [pattern] => schema["pattern"] = json!(pattern),
            patterns => {
                let all = patterns.iter().map(|pattern| json!({"type": "string", "pattern": pattern}));
                schema["allOf"] = Value::Array(all.collect());
            }
        }
        schema
    }
}

/// Refuses a constant that cannot be written exactly; the error completes the sentence "`const` …".
pub(super) fn check_constant(value: &Value) -> Result<(), String> {
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        match value {
            Value::Number(number) if !number::is_exact(number) => {
                return Err(format!("has the number {number}, which JSON readers do not keep exactly"));
            }
            Value::String(text) if text.chars().any(needs_code) => {
                return Err("has a string with control characters".into());
            }
            Value::Array(items) => stack.extend(items),
            Value::Object(map) => stack.extend(map.values()),
            _ => {}
        }
    }
    Ok(())
}

/// Control characters that JSON can write only as `\u00XX`, which answers never use.
fn needs_code(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\n' | '\r' | '\t' | '\x08' | '\x0c')
}
