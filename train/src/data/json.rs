//! JSON text → a value that says the same, in bounded memory.
//!
//! Refuses what `serde_json` alone takes: a key that stands twice, of which it keeps the last; an integer that it rounds;
//! and so many tiny values that in memory they are a hundred times their text. Knows nothing of what values mean.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use std::cell::Cell;
use std::fmt;

/// Values that every text may hold.
const FEWEST: usize = 100_000;
/// Bytes of text to each value, beyond those.
const BYTES: usize = 20;
/// From here on, whether a number was an integer shows in its text alone.
const ROUNDED: f64 = 9e18;

/// Reads a text.
///
/// # Errors
/// Text that is not JSON; JSON that cannot be kept as it is, an error of the category "data".
pub(super) fn read(text: &str) -> serde_json::Result<Json> {
    let bounds = Bounds { left: Cell::new(FEWEST.max(text.len() / BYTES)), large: Cell::new(false) };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Bounded(&bounds).deserialize(&mut deserializer)?;
    deserializer.end()?;
    match bounds.large.get() && has_wide_integer(text) {
        true => Err(Error::custom("an integer of more than 64 bits would be rounded; write it as text")),
        false => Ok(value),
    }
}

/// Whether there is an integer that 64 bits do not hold, outside of strings.
fn has_wide_integer(text: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    let separates = |character: char| {
        let inside = quoted;
        if escaped {
            escaped = false;
        } else {
            escaped = quoted && character == '\\';
            quoted ^= character == '"';
        }
        inside || !(character.is_ascii_digit() || "+-.eE".contains(character))
    };
    text.split(separates).any(is_wide)
}

fn is_wide(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    integer && number.parse::<u64>().is_err() && number.parse::<i64>().is_err()
}

struct Bounds {
    /// Values that may follow.
    left: Cell<usize>,
    /// Whether there was a number that may be a rounded integer.
    large: Cell<bool>,
}

/// Reads one value, and those in it.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Bounds);

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let left = self.0.left.get().checked_sub(1);
        self.0.left.set(left.ok_or_else(|| D::Error::custom("more values than a row may hold; divide it"))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        self.0.large.set(self.0.large.get() || value.abs() > ROUNDED);
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            map.insert(key, fields.next_value_seed(self)?);
        }
        Ok(Json::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> serde_json::Error {
        read(text).unwrap_err()
    }

    #[test]
    fn json_is_read_as_the_library_reads_it() {
        for text in [
            r#"{"a":[1,-2,2.5,1e300,"\u00e9\"",null,true],"b":{"":{}}}"#,
            "18446744073709551615",
            "-9223372036854775808",
            "6.02e23",
            r#""123456789012345678901234""#,
            r#"["1\"",6.02e23,"\\","123456789012345678901234"]"#,
        ] {
            assert_eq!(read(text).unwrap(), serde_json::from_str::<Json>(text).unwrap(), "{text}");
        }
        for text in ["", "{", "[1,]", "1 2", "{'a':1}", &"[".repeat(200)] {
            let expected = serde_json::from_str::<Json>(text).unwrap_err();
            assert_eq!(error_of(text).to_string(), expected.to_string(), "{text}");
        }
    }

    #[test]
    fn what_would_change_is_refused() {
        assert!(error_of(r#"{"a":1,"b":{"c":2,"c":3}}"#).to_string().contains("the key `c` stands twice"));
        for number in ["123456789012345678901234", "-9223372036854775809", r#"{"a\"":[18446744073709551616]}"#] {
            let error = error_of(number);
            assert!(error.is_data() && error.to_string().contains("more than 64 bits"), "{error}");
        }
    }

    #[test]
    fn text_of_very_many_values_is_refused_and_long_text_is_not() {
        let list = |count: usize, item: &str| format!("[{}0]", format!("{item},").repeat(count));
        assert!(error_of(&list(FEWEST, "0")).to_string().contains("more values than a row may hold"));
        assert!(read(&list(FEWEST - 2, "0")).is_ok());
        assert!(read(&list(2 * FEWEST, "\"a text of two dozen bytes\"")).is_ok());
    }
}
