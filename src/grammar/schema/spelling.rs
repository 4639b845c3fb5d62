//! Foreign spellings of schemas: type names of Python, Java and JavaScript, as function catalogues have them, and OpenAPI's
//! `nullable`, into JSON Schema's. Knows no other keyword's meaning; unknown names stay, and are refused by `keywords`.
//!
//! Recurses, over JSON that its parser has bounded (serde_json: 128 levels).

use super::guard::{holds_list, holds_named, holds_schema};
use serde_json::{Map, Value};

/// The schema with JSON Schema's type names; `any` becomes no type at all. What is no schema (a property that is called
/// `type`, a constant) stays as it is.
pub fn standardised(schema: &Value) -> Value {
    let mut schema = schema.clone();
    standardise(&mut schema);
    schema
}

fn standardise(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    rename_types(map);
    take_nullable(map);
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            (keyword, Value::Object(named)) if holds_named(keyword) => {
                named.values_mut().for_each(standardise);
            }
            (keyword, Value::Array(list)) if holds_list(keyword) => list.iter_mut().for_each(standardise),
            (keyword, inner) if holds_schema(keyword) => standardise(inner),
            _ => {}
        }
    }
}

fn rename_types(map: &mut Map<String, Value>) {
    let any = match map.get_mut("type") {
        Some(Value::Array(names)) => rename_all(names),
        Some(name) => rename(name) == Renamed::Any,
        None => false,
    };
    if any {
        map.remove("type");
    }
}

/// `nullable` adds `null` to the type, and to nothing else: OpenAPI wants an `enum` to list its own `null`.
fn take_nullable(map: &mut Map<String, Value>) {
    let Some(Value::Bool(nullable)) = map.get("nullable").cloned() else { return };
    map.remove("nullable");
    let Some(given) = map.get_mut("type").filter(|_| nullable) else { return };
    let mut names = match given.take() {
        Value::Array(names) => names,
        name => vec![name],
    };
    if !names.iter().any(|name| name == "null") {
        names.push(Value::from("null"));
    }
    *given = Value::Array(names);
}

/// Renames a list; names that have become the same are one. Whether it stands for every type.
fn rename_all(names: &mut Vec<Value>) -> bool {
    let renamed: Vec<Renamed> = names.iter_mut().map(rename).collect();
    if renamed.contains(&Renamed::Yes) {
        let all = std::mem::take(names);
        for name in all {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    renamed.contains(&Renamed::Any)
}

#[derive(Debug, PartialEq)]
enum Renamed {
    Yes,
    No,
    /// It stands for every type.
    Any,
}

/// Writes a type's standard name.
fn rename(name: &mut Value) -> Renamed {
    match name.as_str().and_then(|name| standard_name(&name.to_ascii_lowercase())) {
        Some(ANY) => Renamed::Any,
        Some(found) if *name != found => {
            *name = Value::from(found);
            Renamed::Yes
        }
        _ => Renamed::No,
    }
}

const ANY: &str = "any";

fn standard_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "string" | "str" | "char" | "character" => "string",
        "integer" | "int" | "long" | "short" | "byte" | "bigint" | "biginteger" => "integer",
        "number" | "float" | "double" | "decimal" | "bigdecimal" => "number",
        "boolean" | "bool" => "boolean",
        "array" | "list" | "tuple" | "arraylist" | "linkedlist" | "vector" | "queue" | "stack" => "array",
        "object" | "dict" | "dictionary" | "map" | "hashmap" | "hashtable" => "object",
        "null" | "none" | "nonetype" => "null",
        "any" => ANY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn foreign_types_are_renamed_wherever_a_schema_stands() {
        let given = json!({
            "type": "dict",
            "properties": {
                "point": {"type": "tuple", "items": [{"type": "float"}, {"type": "Integer"}]},
                "names": {"type": "ArrayList", "items": {"type": "String"}},
                "more": {"type": "HashMap", "additionalProperties": {"anyOf": [{"type": "bool"}, {"$ref": "#/$defs/n"}]}},
                "either": {"type": ["str", "None"]},
            },
            "$defs": {"n": {"type": "long"}},
        });
        let expected = json!({
            "type": "object",
            "properties": {
                "point": {"type": "array", "items": [{"type": "number"}, {"type": "integer"}]},
                "names": {"type": "array", "items": {"type": "string"}},
                "more": {"type": "object", "additionalProperties": {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/n"}]}},
                "either": {"type": ["string", "null"]},
            },
            "$defs": {"n": {"type": "integer"}},
        });
        assert_eq!(standardised(&given), expected);
    }

    #[test]
    fn any_is_no_type() {
        assert_eq!(standardised(&json!({"type": "any", "description": "x"})), json!({"description": "x"}));
        assert_eq!(standardised(&json!({"type": ["string", "any"]})), json!({}));
    }

    #[test]
    fn nullable_is_the_type_null() {
        let given = json!({"properties": {"a": {"type": "str", "nullable": true}, "nullable": {"type": "int", "nullable": false}}});
        let expected = json!({"properties": {"a": {"type": ["string", "null"]}, "nullable": {"type": "integer"}}});
        assert_eq!(standardised(&given), expected);
        let twice = json!({"type": ["null", "string"], "nullable": true, "not": {"type": "float"}});
        assert_eq!(standardised(&twice), json!({"type": ["null", "string"], "not": {"type": "number"}}));
        assert_eq!(standardised(&json!({"nullable": true})), json!({}));
    }

    #[test]
    fn names_that_become_the_same_are_one() {
        assert_eq!(standardised(&json!({"type": ["int", "long", "None"]})), json!({"type": ["integer", "null"]}));
        // Not ours to mend.
        assert_eq!(standardised(&json!({"type": ["null", "null"]})), json!({"type": ["null", "null"]}));
    }

    #[test]
    fn what_is_no_schema_stays() {
        for same in [
            json!({"properties": {"type": {"enum": ["dict", "any"], "default": {"type": "dict"}}}}),
            json!({"const": {"type": "float"}, "examples": [{"type": "int"}]}),
            json!({"type": "stsring"}),
            json!({"type": 7}),
            json!(true),
        ] {
            assert_eq!(standardised(&same), same);
        }
    }
}
