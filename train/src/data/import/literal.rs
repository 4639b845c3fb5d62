//! JSON that somebody wrote as a Python literal: `{'name': 'f', 'arguments': {'on': True}}`.

use crate::data::json;
use serde_json::Value as Json;
use std::iter::Peekable;
use std::str::Chars;

/// The value of JSON text or, failing that, of a Python literal; where it is neither, the error is that of the JSON.
pub(super) fn read(text: &str) -> Result<Json, serde_json::Error> {
    let error = match json::read(text) {
        Err(error) if error.is_syntax() => error,
        read => return read,
    };
    match translated(text).map(|json| json::read(&json)) {
        Some(Err(other)) if other.is_data() => Err(other),
        Some(Ok(value)) => Ok(value),
        _ => Err(error),
    }
}

/// JSON text for a Python literal; `None` where a string does not end.
fn translated(text: &str) -> Option<String> {
    let mut json = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\'' | '"' => json.push_str(&Json::from(string(&mut rest, next)?).to_string()),
            '(' => json.push('['),
            ')' | ']' | '}' => {
                // A comma may stand behind the last of them.
                let end = json.trim_end().strip_suffix(',').map(str::len);
                json.truncate(end.unwrap_or(json.len()));
                json.push(if next == ')' { ']' } else { next });
            }
            digit if digit.is_ascii_digit() => {
                json.push(digit);
                while let Some(more) = rest.next_if(|next| next.is_ascii_digit() || "+-.eE".contains(*next)) {
                    json.push(more);
                }
            }
            letter if letter.is_alphabetic() => json.push_str(word(letter, &mut rest)),
            other => json.push(other),
        }
    }
    Some(json)
}

/// A string up to its closing quote.
fn string(rest: &mut Peekable<Chars<'_>>, quote: char) -> Option<String> {
    let mut text = String::new();
    loop {
        match rest.next()? {
            end if end == quote => return Some(text),
            '\\' => text.extend(escaped(rest)?),
            other => text.push(other),
        }
    }
}

/// What stands for the characters after a backslash. Before any other letter it is a backslash.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<Vec<char>> {
    let one = match rest.next()? {
        same @ ('\\' | '\'' | '"') => same,
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'v' => '\x0b',
        'x' => code(rest, 2)?,
        'u' => code(rest, 4)?,
        'U' => code(rest, 8)?,
        '\n' => return Some(Vec::new()),
        '0' if rest.peek().is_none_or(|next| !next.is_ascii_digit()) => '\0',
        octal if octal.is_ascii_digit() => return None,
        other => return Some(vec!['\\', other]),
    };
    Some(vec![one])
}

fn code(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<char> {
    let digits: String = rest.take(digits).collect();
    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)
}

/// A constant's name; any other word is none in JSON either.
fn word(first: char, rest: &mut Peekable<Chars<'_>>) -> &'static str {
    let mut word = String::from(first);
    while let Some(letter) = rest.next_if(|next| next.is_alphanumeric()) {
        word.push(letter);
    }
    match word.as_str() {
        "True" | "true" => "true",
        "False" | "false" => "false",
        "None" | "null" => "null",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn python_literals_are_read_like_json() {
        let text = r#"{'name': "it's", 'a': [True, None, (1, -2.5)], "b": 'say "hi"\n\u00e9\'', 'c': False}"#;
        let expected = json!({"name": "it's", "a": [true, null, [1, -2.5]], "b": "say \"hi\"\né'", "c": false});
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read(r#"{"a": "it's"}"#).unwrap(), json!({"a": "it's"}));
    }

    #[test]
    fn escapes_numbers_and_last_commas_are_those_of_python() {
        let text = r"{'a': '\d+ \d \U0001f600\0\a\\n', 'b': [1e-05, -2.5E+3, (1,), {'c': 1, }], }";
        let expected = json!({"a": "\\d+ \\d \u{1f600}\0\u{7}\\n", "b": [1e-5, -2500.0, [1], {"c": 1}]});
        assert_eq!(read(text).unwrap(), expected);
        assert!(read(r"{'a': '\012'}").is_err(), "an octal number");
    }

    #[test]
    fn values_that_would_change_are_refused() {
        assert!(read("{'a': 1, 'a': 2}").unwrap_err().to_string().contains("stands twice"));
        assert!(read(r#"{"a": 1, "a": 2}"#).unwrap_err().to_string().contains("stands twice"));
    }

    #[test]
    fn what_is_neither_keeps_the_error_of_the_json() {
        for text in ["{'a': 'b}", "{'a': os.remove('x')}", "words", "{'a': '\\xZZ'}"] {
            assert!(read(text).unwrap_err().to_string().contains("line 1 column"), "{text}");
        }
    }
}
