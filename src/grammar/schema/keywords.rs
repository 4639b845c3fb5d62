//! The table of keywords: what each one's value must look like, and which are refused by name. Knows nothing of references.

use super::super::GrammarError;
use super::document::{Document, Node, escape};
use super::{format, guard, number, pattern, refuse, rewrite, text, too_complex};
use serde_json::{Map, Value};

/// Properties, required names and the like of one object.
pub(super) const MAX_PROPERTIES: usize = 256;
const MAX_PATTERN_PROPERTIES: usize = 16;
const MAX_ENUM: usize = 1_000;
const MAX_PATTERN_BYTES: usize = 1_024;
/// Largest count that is enforced; larger minimums are refused, larger maximums are enforced as this.
pub(super) const MAX_COUNT: u64 = 10_000;

/// What the value of a keyword must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Types,
    Values,
    Constant,
    Schema,
    Items,
    Schemas,
    Properties,
    PatternProperties,
    Names,
    Minimum,
    Maximum,
    Number,
    Divisor,
    Pattern,
    Format,
    Reference,
    Flag,
    NameLists,
    Dependencies,
    Identifier,
    Definitions,
    Draft,
    Note,
    Refused(&'static str),
}

const NO_IDENTIFIERS: &str = "identifiers and dynamic references are not supported; use `$ref` with `#/$defs/…`";

fn shape(keyword: &str) -> Option<Shape> {
    Some(match keyword {
        "type" => Shape::Types,
        "enum" => Shape::Values,
        "const" => Shape::Constant,
        "additionalProperties"
        | "additionalItems"
        | "unevaluatedProperties"
        | "unevaluatedItems"
        | "propertyNames"
        | "contains"
        | "not"
        | "if"
        | "then"
        | "else" => Shape::Schema,
        "items" => Shape::Items,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Shape::Schemas,
        "properties" => Shape::Properties,
        "patternProperties" => Shape::PatternProperties,
        "required" => Shape::Names,
        "minLength" | "minItems" | "minProperties" | "minContains" => Shape::Minimum,
        "maxLength" | "maxItems" | "maxProperties" | "maxContains" => Shape::Maximum,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => Shape::Number,
        "multipleOf" => Shape::Divisor,
        "pattern" => Shape::Pattern,
        "format" => Shape::Format,
        "$ref" => Shape::Reference,
        "uniqueItems" => Shape::Flag,
        "$defs" | "definitions" => Shape::Definitions,
        "$schema" => Shape::Draft,
        "title" | "description" | "default" | "example" | "examples" | "deprecated" | "readOnly" | "writeOnly"
        | "$comment" | "contentMediaType" | "contentEncoding" | "contentSchema" | "externalDocs" | "discriminator"
        | "xml" | "optional" => Shape::Note,
        "dependentRequired" => Shape::NameLists,
        "dependentSchemas" => Shape::Properties,
        "dependencies" => Shape::Dependencies,
        "$id" => Shape::Identifier,
        "id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$recursiveAnchor" | "$vocabulary" => {
            Shape::Refused(NO_IDENTIFIERS)
        }
        "nullable" => Shape::Refused("is not JSON Schema; write `\"type\": [\"string\", \"null\"]`"),
        "x-guidance" => Shape::Refused("options of the grammar compiler cannot come from a schema"),
        vendor if vendor.starts_with("x-") => Shape::Note,
        _ => return None,
    })
}

/// Keywords that a misspelling may have meant.
const COMMON: [&str; 33] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "then",
    "else",
    "contains",
    "propertyNames",
    "dependentRequired",
    "description",
    "default",
    "title",
];

/// Whether a keyword constrains instances (beside `$ref`).
pub(super) fn asserts(keyword: &str) -> bool {
    let silent = [Shape::Reference, Shape::Definitions, Shape::Draft, Shape::Note, Shape::Identifier];
    shape(keyword).is_none_or(|shape| !silent.contains(&shape))
}

/// Refuses a schema with a keyword that is unknown, misplaced, malformed or not enforceable.
pub(super) fn check(document: &Document<'_>, node: Node<'_>, pointer: &str) -> Result<(), GrammarError> {
    let map = match node {
        Value::Bool(_) => return Ok(()),
        Value::Object(map) => map,
        _ => return Err(refuse(pointer, "a schema must be an object, `true` or `false`")),
    };
    for (keyword, value) in map {
        let at = format!("{pointer}/{}", escape(keyword));
        match shape(keyword) {
            None => return Err(refuse(at, unknown(keyword))),
            Some(Shape::Refused(reason)) => return Err(refuse(at, format!("`{keyword}` {reason}"))),
            Some(Shape::Draft) if !pointer.is_empty() => {
                return Err(refuse(at, "`$schema` is allowed at the root only"));
            }
            Some(Shape::Identifier) if !pointer.is_empty() => {
                return Err(refuse(at, "`$id` is allowed at the root only; use `$ref` with `#/$defs/…`"));
            }
            _ if document.rewritten && rewrite::replaces(keyword, value) => {
                return Err(refuse(at, format!("`{keyword}` cannot be used in a place that only a `$ref` reaches")));
            }
            Some(shape) => {
                check_size(shape, value, &at)?;
                check_value(shape, value).map_err(|wanted| refuse(at, format!("`{keyword}` {wanted}")))?;
            }
        }
    }
    guard::check_draft(document.draft, node).map_err(|message| refuse(pointer, message))
}

fn unknown(keyword: &str) -> String {
    let shown: String = keyword.chars().take(40).collect();
    let near = COMMON.iter().find(|known| distance(&shown, known) <= 2 && shown.len() > 3);
    let hint = near.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    format!("unknown keyword `{shown}`{hint}")
}

fn check_size(shape: Shape, value: &Value, at: &str) -> Result<(), GrammarError> {
    let size = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        Value::String(text) => text.len(),
        _ => return check_count(shape, value, at),
    };
    let (limit, unit) = match shape {
        Shape::Values => (MAX_ENUM, "values"),
        Shape::Properties | Shape::Names | Shape::NameLists | Shape::Dependencies => (MAX_PROPERTIES, "names"),
        Shape::PatternProperties => (MAX_PATTERN_PROPERTIES, "patterns"),
        Shape::Pattern => (MAX_PATTERN_BYTES, "bytes"),
        _ => return Ok(()),
    };
    if size > limit {
        return Err(too_complex(at, format!("{size} {unit}; the limit is {limit}")));
    }
    Ok(())
}

fn check_count(shape: Shape, value: &Value, at: &str) -> Result<(), GrammarError> {
    match value.as_f64() {
        Some(count) if shape == Shape::Minimum && count > MAX_COUNT as f64 => {
            Err(too_complex(at, format!("the limit is {MAX_COUNT}")))
        }
        _ => Ok(()),
    }
}

/// Checks the value's form; the error says what it must be.
fn check_value(shape: Shape, value: &Value) -> Result<(), String> {
    match shape {
        Shape::Types => check_types(value),
        Shape::Values => check_constants(value),
        Shape::Constant => text::check_constant(value),
        Shape::Schema => expect(value.is_object() || value.is_boolean(), "must be a schema"),
        Shape::Items => expect(value.is_object() || value.is_boolean() || value.is_array(), "must be a schema"),
        Shape::Schemas => {
            expect(value.as_array().is_some_and(|list| !list.is_empty()), "must be a non-empty list of schemas")
        }
        Shape::NameLists => {
            expect(value.as_object().is_some_and(|map| map.values().all(is_names)), "must hold lists of names")
        }
        Shape::Dependencies => {
            let fits = |value: &Value| is_names(value) || value.is_object() || value.is_boolean();
            expect(value.as_object().is_some_and(|map| map.values().all(fits)), "must hold schemas or lists of names")
        }
        Shape::Properties | Shape::Definitions => expect(value.is_object(), "must be an object of schemas"),
        Shape::PatternProperties => check_pattern_properties(value),
        Shape::Names => expect(is_names(value), "must be a list of property names"),
        Shape::Minimum | Shape::Maximum => expect(count(value).is_some(), "must be a whole number, 0 or more"),
        Shape::Number => expect(value.is_number(), "must be a number"),
        Shape::Divisor => number::check_divisor(value),
        Shape::Pattern => {
            let regex = value.as_str().ok_or("must be a regular expression in a string")?;
            pattern::translate(regex).map(drop)
        }
        Shape::Format => format::check(value.as_str().ok_or("must be a string")?),
        Shape::Reference => expect(value.is_string(), "must be a string"),
        // An address would be the base of every reference.
        Shape::Identifier => {
            expect(value.as_str().is_some_and(|id| !id.contains([':', '/'])), "must be a plain name, not an address")
        }
        Shape::Flag => expect(value.is_boolean(), "must be true or false"),
        Shape::Draft | Shape::Note | Shape::Refused(_) => Ok(()),
    }
}

fn expect(holds: bool, wanted: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(wanted.to_owned()) }
}

fn check_types(value: &Value) -> Result<(), String> {
    let wanted = "must be one of null, boolean, integer, number, string, array, object, or a non-empty list of these";
    let is_type =
        |value: &Value| value.as_str().is_some_and(|name| super::atom::TYPES.iter().any(|(known, _)| *known == name));
    expect(is_type(value) || value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(is_type)), wanted)
}

fn check_constants(value: &Value) -> Result<(), String> {
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or("must be a non-empty list of values")?;
    list.iter().try_for_each(text::check_constant)
}

fn check_pattern_properties(value: &Value) -> Result<(), String> {
    let map: &Map<String, Value> = value.as_object().ok_or("must be an object of schemas")?;
    for regex in map.keys() {
        expect(regex.len() <= MAX_PATTERN_BYTES, "has a pattern of more than 1024 bytes")?;
        pattern::translate(regex).map_err(|reason| format!("has a pattern that {reason}"))?;
    }
    Ok(())
}

fn is_names(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
}

/// A count keyword's value; JSON Schema allows `3.0`.
pub(super) fn count(value: &Value) -> Option<u64> {
    let number = value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0)?;
    Some(value.as_u64().unwrap_or(number as u64))
}

/// Edits between two short words.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.chars().count()]
}
