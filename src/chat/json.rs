//! How JSON is spelled: compact, or with the spaces of Python's `json.dumps`, which is what most chat templates print.
//!
//! Knows no schema and no dialect. Never escapes for HTML.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;
use std::io::{self, Write};

/// The spelling of a JSON text.
#[derive(Debug, Clone)]
pub(super) struct JsonStyle {
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    /// Spaces per level; `None` = one line.
    pub(super) indent: Option<usize>,
    /// Non-ASCII characters as `\uXXXX`.
    pub(super) ascii: bool,
}

impl JsonStyle {
    /// `{"a":1,"b":2}`
    pub(super) fn compact() -> Self {
        Self { item_separator: ",".into(), key_separator: ":".into(), indent: None, ascii: false }
    }

    /// `{"a": 1, "b": 2}`, Python's default.
    pub(super) fn spaced() -> Self {
        Self { item_separator: ", ".into(), key_separator: ": ".into(), ..Self::compact() }
    }

    /// The JSON text of `value`.
    pub(super) fn text(&self, value: &Value) -> String {
        let mut bytes = Vec::new();
        let formatter = StyledFormatter { style: self, level: 0, has_items: false };
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        value.serialize(&mut serializer).expect("writing JSON into memory cannot fail");
        String::from_utf8(bytes).expect("serde_json writes UTF-8")
    }
}

struct StyledFormatter<'a> {
    style: &'a JsonStyle,
    level: usize,
    has_items: bool,
}

impl StyledFormatter<'_> {
    fn line_break<W: Write + ?Sized>(&self, writer: &mut W) -> io::Result<()> {
        match self.style.indent {
            Some(width) => write!(writer, "\n{:1$}", "", width * self.level),
            None => Ok(()),
        }
    }

    fn open<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.has_items = false;
        writer.write_all(bracket)
    }

    fn close<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level -= 1;
        if self.has_items {
            self.line_break(writer)?;
        }
        self.has_items = true;
        writer.write_all(bracket)
    }

    fn item<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.style.item_separator.as_bytes())?;
        }
        self.has_items = true;
        self.line_break(writer)
    }
}

impl Formatter for StyledFormatter<'_> {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.style.key_separator.as_bytes())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.style.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// The same value with the keys of every object in alphabetical order.
pub(super) fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({"b": [1, 2.5, {}], "a": "é<\n", "c": []})
    }

    #[test]
    fn compact_json_has_no_spaces_and_keeps_the_order() {
        assert_eq!(JsonStyle::compact().text(&sample()), r#"{"b":[1,2.5,{}],"a":"é<\n","c":[]}"#);
    }

    #[test]
    fn spaced_json_is_what_python_prints() {
        assert_eq!(JsonStyle::spaced().text(&sample()), r#"{"b": [1, 2.5, {}], "a": "é<\n", "c": []}"#);
    }

    #[test]
    fn indented_json_is_what_python_prints() {
        let style = JsonStyle { item_separator: ",".into(), indent: Some(2), ..JsonStyle::spaced() };
        let expected = "{\n  \"b\": [\n    1,\n    2.5,\n    {}\n  ],\n  \"a\": \"é<\\n\",\n  \"c\": []\n}";
        assert_eq!(style.text(&sample()), expected);
    }

    #[test]
    fn ascii_json_escapes_beyond_the_basic_plane_as_a_pair() {
        let style = JsonStyle { ascii: true, ..JsonStyle::compact() };
        assert_eq!(style.text(&json!("é😀")), r#""\u00e9\ud83d\ude00""#);
    }

    #[test]
    fn sorting_reaches_nested_objects() {
        assert_eq!(sorted(json!({"b": [{"z": 1, "y": 2}], "a": 0})).to_string(), r#"{"a":0,"b":[{"y":2,"z":1}]}"#);
    }
}
