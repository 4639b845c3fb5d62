//! The parts of an `allOf` and what stands beside them, as one schema. Knows no document and no reference.

use serde_json::{Map, Value as Json};

/// Keys that allow and forbid nothing: what stands outside counts.
const NOTES: [&str; 4] = ["title", "description", "examples", "default"];

/// The schema with all parts in it; with its `allOf` where they say different things of one key.
pub(super) fn merged(schema: Map<String, Json>, parts: Vec<Json>) -> Map<String, Json> {
    let mut whole = schema.clone();
    if parts.iter().all(|part| add(&mut whole, part)) {
        return whole;
    }
    let mut schema = schema;
    schema.insert("allOf".to_owned(), Json::Array(parts));
    schema
}

/// Adds what a part says, unless it contradicts.
fn add(whole: &mut Map<String, Json>, part: &Json) -> bool {
    part.as_object().is_some_and(|part| part.iter().all(|(key, value)| add_key(whole, key, value)))
}

fn add_key(whole: &mut Map<String, Json>, key: &str, value: &Json) -> bool {
    match (whole.get_mut(key), value) {
        (None, _) => {
            whole.insert(key.to_owned(), value.clone());
            true
        }
        (Some(Json::Object(known)), Json::Object(more)) if key == "properties" => {
            more.iter().all(|(name, property)| add_property(known, name, property))
        }
        (Some(Json::Array(known)), Json::Array(more)) if key == "required" => {
            for name in more {
                if !known.contains(name) {
                    known.push(name.clone());
                }
            }
            true
        }
        (Some(known), value) => known == value || NOTES.contains(&key),
    }
}

fn add_property(properties: &mut Map<String, Json>, name: &str, property: &Json) -> bool {
    match properties.get_mut(name) {
        Some(Json::Object(known)) => add(known, property),
        Some(known) => known == property,
        None => {
            properties.insert(name.to_owned(), property.clone());
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merge(schema: &Json, parts: &[Json]) -> Json {
        Json::Object(merged(schema.as_object().unwrap().clone(), parts.to_vec()))
    }

    #[test]
    fn parts_add_their_fields_and_what_stands_outside_describes() {
        let first = json!({
            "type": "object", "description": "inner", "required": ["a"], "properties": {"a": {"type": "string"}},
        });
        let second = json!({
            "type": "object", "required": ["a", "b"], "properties": {"a": {"minLength": 1}, "b": {"type": "integer"}},
        });
        let whole = json!({
            "type": "object", "description": "outer", "required": ["a", "b"],
            "properties": {"a": {"type": "string", "minLength": 1}, "b": {"type": "integer"}},
        });
        assert_eq!(merge(&json!({"description": "outer"}), &[first, second]), whole);
    }

    #[test]
    fn parts_that_contradict_stay_as_they_are() {
        let parts = [json!({"type": "string"}), json!({"type": "integer"})];
        assert_eq!(merge(&json!({"title": "t"}), &parts), json!({"title": "t", "allOf": parts}));
    }
}
