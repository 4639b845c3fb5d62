//! JSON that somebody wrote as a Python literal: `{'name': 'f', 'arguments': {'on': True}}`.

use serde_json::Value as Json;
use std::iter::Peekable;
use std::str::Chars;

/// The value of JSON text or, failing that, of a Python literal; the error is that of the JSON.
pub(super) fn read(text: &str) -> Result<Json, serde_json::Error> {
    serde_json::from_str(text)
        .or_else(|error| translated(text).and_then(|json| serde_json::from_str(&json).ok()).ok_or(error))
}

/// JSON text for a Python literal; `None` where a string does not end.
fn translated(text: &str) -> Option<String> {
    let mut json = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\'' | '"' => json.push_str(&Json::from(string(&mut rest, next)?).to_string()),
            '(' => json.push('['),
            ')' => json.push(']'),
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
            '\\' => text.push(match rest.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'x' => code(rest, 2)?,
                'u' => code(rest, 4)?,
                other => other,
            }),
            other => text.push(other),
        }
    }
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
    fn what_is_neither_keeps_the_error_of_the_json() {
        for text in ["{'a': 'b}", "{'a': os.remove('x')}", "words", "{'a': '\\xZZ'}"] {
            assert!(read(text).unwrap_err().to_string().contains("line 1 column"), "{text}");
        }
    }
}
