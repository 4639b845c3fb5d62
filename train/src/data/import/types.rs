//! Types as Python's annotations write them (`List[int]`, `Optional[str]`, `float, optional`) → JSON Schema. A type that is
//! not known allows everything.

use serde_json::{Map, Value as Json, json};

/// Bytes of the longest annotation that is read: it may be nested as deep as it is long.
const LONGEST: usize = 400;

/// What an annotation says.
pub(super) struct Written {
    /// The keywords of the schema.
    pub(super) schema: Map<String, Json>,
    pub(super) optional: bool,
}

/// Reads an annotation; after a comma outside of brackets it may say `optional`.
pub(super) fn python(text: &str) -> Written {
    let parts = if text.len() <= LONGEST { split(text) } else { Vec::new() };
    let optional = parts.iter().skip(1).any(|part| part.eq_ignore_ascii_case("optional"));
    let of = parts.first().copied().unwrap_or_default();
    let schema = schema(of).as_object().cloned().unwrap_or_default();
    Written { schema, optional: optional || of.starts_with("Optional[") }
}

fn schema(text: &str) -> Json {
    let (name, inner) = match text.split_once('[') {
        Some((name, inner)) => (name.trim(), inner.trim_end().strip_suffix(']').unwrap_or(inner)),
        None => (text.trim(), ""),
    };
    match name.to_ascii_lowercase().as_str() {
        "str" | "string" => json!({"type": "string"}),
        "int" | "integer" | "long" => json!({"type": "integer"}),
        "float" | "number" | "double" => json!({"type": "number"}),
        "bool" | "boolean" => json!({"type": "boolean"}),
        "none" | "null" | "nonetype" => json!({"type": "null"}),
        "dict" | "object" | "mapping" => json!({"type": "object"}),
        "list" | "array" | "tuple" | "set" | "sequence" | "iterable" => list(inner),
        "optional" => any_of(&[inner, "None"]),
        "union" => any_of(&split(inner)),
        _ => json!({}),
    }
}

/// A tuple too is a list of whatever its items are.
fn list(inner: &str) -> Json {
    let mut items: Vec<Json> = split(inner).into_iter().filter(|item| *item != "...").map(schema).collect();
    items.dedup();
    match items.as_slice() {
        [item] if *item != json!({}) => json!({"type": "array", "items": item}),
        _ => json!({"type": "array"}),
    }
}

fn any_of(parts: &[&str]) -> Json {
    let options: Vec<_> = parts.iter().map(|part| schema(part)).collect();
    if options.contains(&json!({})) { json!({}) } else { json!({"anyOf": options}) }
}

/// The parts between commas outside of brackets; an empty text has none.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let outside = |c: char| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ',' && depth <= 0
    };
    text.split(outside).map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_become_schemas() {
        for (text, expected, optional) in [
            ("str", json!({"type": "string"}), false),
            ("int, optional", json!({"type": "integer"}), true),
            ("List[int]", json!({"type": "array", "items": {"type": "integer"}}), false),
            ("list", json!({"type": "array"}), false),
            ("Tuple[float, float]", json!({"type": "array", "items": {"type": "number"}}), false),
            (
                "List[List[str]], optional",
                json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
                true,
            ),
            ("Dict[str, Any]", json!({"type": "object"}), false),
            (
                "List[Union[int, float]]",
                json!({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "number"}]}}),
                false,
            ),
            ("Optional[str]", json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), true),
            ("Callable[[float], float]", json!({}), false),
            ("", json!({}), false),
        ] {
            let written = python(text);
            assert_eq!((Json::Object(written.schema), written.optional), (expected, optional), "{text}");
        }
    }
}
