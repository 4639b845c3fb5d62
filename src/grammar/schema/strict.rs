//! OpenAI's rules for `"strict": true`: a smaller JSON Schema in which every property is required and nothing is free.
//!
//! Judges what OpenAI would refuse, in its words. What is malformed or not enforceable here is left to `admit`.

use super::super::GrammarError;
use super::document::escape;
use super::guard::{self, holds_list, holds_named, holds_schema};
use super::keywords::asserts;
use super::{refuse, too_complex};
use serde_json::{Map, Value};

const MAX_NESTING: usize = 10;
const MAX_PROPERTIES: usize = 5_000;
const MAX_ENUM_VALUES: usize = 1_000;
/// Characters of property names, definition names, and string values of `enum` and `const`.
const MAX_CHARACTERS: usize = 120_000;
/// Values of an `enum` beyond which its characters count by themselves.
const LONG_ENUM: usize = 250;
const MAX_LONG_ENUM_CHARACTERS: usize = 15_000;

/// Keywords that constrain and are allowed; annotations are allowed too.
const SUPPORTED: [&str; 19] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "anyOf",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
];

/// Checks a schema that came with `"strict": true`.
///
/// # Errors
/// [`GrammarError::Schema`] with OpenAI's message for what strict mode does not allow; [`GrammarError::TooComplex`] beyond
/// its limits.
pub fn check_strict(schema: &Value) -> Result<(), GrammarError> {
    guard::check_json(schema)?;
    let combines = ["anyOf", "oneOf", "allOf", "enum", "not"].iter().any(|keyword| schema.get(keyword).is_some());
    if schema.get("type") != Some(&Value::from("object")) || combines {
        let message =
            "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level.";
        return Err(refuse("", message));
    }
    let mut totals = Totals::default();
    let mut open = vec![(String::new(), schema, 0)];
    while let Some((pointer, node, outer)) = open.pop() {
        let Some(map) = node.as_object() else { continue };
        let level = outer + usize::from(is_object(map));
        if level > MAX_NESTING {
            return Err(too_complex(pointer, format!("nested deeper than {MAX_NESTING} levels of objects")));
        }
        check_keywords(map, &pointer)?;
        if is_object(map) {
            check_object(map, &pointer)?;
        }
        totals.add(map, &pointer)?;
        open.extend(children(map, &pointer).into_iter().map(|(pointer, child)| (pointer, child, level)));
    }
    Ok(())
}

fn is_object(map: &Map<String, Value>) -> bool {
    let named = |value: &Value| value == "object";
    let typed =
        map.get("type").is_some_and(|kind| named(kind) || kind.as_array().is_some_and(|list| list.iter().any(named)));
    typed || map.contains_key("properties")
}

fn check_keywords(map: &Map<String, Value>, pointer: &str) -> Result<(), GrammarError> {
    let unsupported = |key: &&String| asserts(key) && !SUPPORTED.contains(&key.as_str());
    match map.keys().find(unsupported) {
        Some(keyword) => Err(refuse(pointer, format!("'{}' is not permitted.", shown(keyword)))),
        None => Ok(()),
    }
}

fn check_object(map: &Map<String, Value>, pointer: &str) -> Result<(), GrammarError> {
    if map.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(refuse(pointer, "'additionalProperties' is required to be supplied and to be false."));
    }
    let required: Vec<&str> = names(map.get("required")).collect();
    let properties = map.get("properties").and_then(Value::as_object);
    let mut declared = properties.into_iter().flatten().map(|(name, _)| name);
    if let Some(missing) = declared.find(|name| !required.contains(&name.as_str())) {
        let message = format!(
            "'required' is required to be supplied and to be an array including every key in properties. Missing '{}'.",
            shown(missing)
        );
        return Err(refuse(pointer, message));
    }
    match required.iter().find(|name| properties.is_none_or(|map| !map.contains_key(**name))) {
        Some(extra) => Err(refuse(pointer, format!("Extra required key '{}' supplied.", shown(extra)))),
        None => Ok(()),
    }
}

fn names(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The schemas directly inside, definitions included, with their pointers.
fn children<'a>(map: &'a Map<String, Value>, pointer: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for (keyword, value) in map {
        let at = format!("{pointer}/{}", escape(keyword));
        match value {
            Value::Array(list) if holds_list(keyword) => {
                found.extend(list.iter().enumerate().map(|(index, item)| (format!("{at}/{index}"), item)));
            }
            Value::Object(named) if holds_named(keyword) => {
                found.extend(named.iter().map(|(name, item)| (format!("{at}/{}", escape(name)), item)));
            }
            _ if holds_schema(keyword) => found.push((at, value)),
            _ => {}
        }
    }
    found
}

/// What is limited over the whole schema.
#[derive(Default)]
struct Totals {
    properties: usize,
    enum_values: usize,
    characters: usize,
}

impl Totals {
    fn add(&mut self, map: &Map<String, Value>, pointer: &str) -> Result<(), GrammarError> {
        for keyword in ["properties", "$defs", "definitions"] {
            let names = map.get(keyword).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
            self.characters += names.map(|name| name.chars().count()).sum::<usize>();
        }
        self.properties += map.get("properties").and_then(Value::as_object).map_or(0, Map::len);
        let values = map.get("enum").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let long: usize = values.iter().filter_map(Value::as_str).map(|text| text.chars().count()).sum();
        self.enum_values += values.len();
        self.characters += long + map.get("const").and_then(Value::as_str).map_or(0, |text| text.chars().count());
        let beyond = [
            (self.properties, MAX_PROPERTIES, "object properties in total"),
            (self.enum_values, MAX_ENUM_VALUES, "enum values in total"),
            (self.characters, MAX_CHARACTERS, "characters of names and constants in total"),
            (if values.len() > LONG_ENUM { long } else { 0 }, MAX_LONG_ENUM_CHARACTERS, "characters in one long enum"),
        ];
        match beyond.iter().find(|(count, limit, _)| count > limit) {
            Some((count, limit, what)) => Err(too_complex(pointer, format!("{count} {what}; the limit is {limit}"))),
            None => Ok(()),
        }
    }
}
