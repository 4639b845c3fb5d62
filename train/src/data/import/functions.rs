//! Declarations of functions as the formats write them → tools with a JSON Schema: OpenAI's, bare ones, parameters as a list
//! with `optional` marks, and parameters by name with the types of Python.

use super::literal;
use super::types;
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::Tool;
use serde_json::{Map, Value as Json, json};

fn flaw(detail: impl Into<String>) -> Flaw {
    Flaw::new(Reason::Tools, detail)
}

/// The functions of a list, a single one, or the text of either; nothing and an empty text are none.
pub(super) fn list(value: &Json) -> Result<Vec<Tool>, Flaw> {
    match value {
        Json::Null => Ok(Vec::new()),
        Json::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Json::String(text) => match literal::read(text).map_err(|error| flaw(error.to_string()))? {
            Json::String(_) => Err(flaw("a text in a text")),
            value => list(&value),
        },
        Json::Array(tools) => tools.iter().map(one).collect(),
        tool => Ok(vec![one(tool)?]),
    }
}

/// One function.
pub(super) fn one(value: &Json) -> Result<Tool, Flaw> {
    if value["function"].is_object() {
        return one(&value["function"]);
    }
    let name = value["name"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| flaw("`name` is missing"))?;
    let description = value["description"].as_str().map(str::to_owned);
    let parameters = parameters(&value["parameters"]).map_err(|what| flaw(format!("function `{name}`: {what}")))?;
    Ok(Tool { name: name.to_owned(), description, parameters, strict: value["strict"] == true })
}

/// The JSON Schema of parameters in any spelling; `None` for none.
fn parameters(value: &Json) -> Result<Option<Json>, String> {
    match value {
        Json::Null => Ok(None),
        Json::Object(map) if is_schema(map) => Ok(Some(value.clone())),
        Json::Object(map) => {
            let named = map.iter().map(|(name, parameter)| property(name, parameter));
            object(named.collect::<Result<_, _>>()?).map(Some)
        }
        Json::Array(items) => {
            let named = items.iter().map(|item| match item["name"].as_str() {
                Some(name) => property(name, item),
                None => Err("a parameter without `name`".to_owned()),
            });
            object(named.collect::<Result<_, _>>()?).map(Some)
        }
        _ => Err("`parameters` is neither an object nor a list".to_owned()),
    }
}

/// Keywords of a schema that are no objects, as parameters are.
const KEYWORDS: [&str; 8] = ["type", "required", "additionalProperties", "$schema", "$ref", "allOf", "anyOf", "oneOf"];

/// Whether this is a schema already, and not a map from names to parameters.
fn is_schema(map: &Map<String, Json>) -> bool {
    let keyword = |key: &&str| map.get(*key).is_some_and(|value| !value.is_object());
    let properties = map.get("properties").and_then(Json::as_object);
    map.is_empty() || KEYWORDS.iter().any(keyword) || properties.is_some_and(|of| of.values().all(Json::is_object))
}

/// A parameter: its name, its schema, and whether it must be given.
type Property = (String, Json, bool);

/// Of `{type, description, optional?, default?, …}`, or of the type alone; other keywords are the schema's own.
fn property(name: &str, parameter: &Json) -> Result<Property, String> {
    if let Some(text) = parameter.as_str() {
        return typed(name, text);
    }
    let map = parameter.as_object().ok_or_else(|| format!("parameter `{name}` is neither an object nor a type"))?;
    let (mut schema, mut required) = (Map::new(), !map.contains_key("default"));
    for (key, value) in map {
        match (key.as_str(), value) {
            ("name", _) => {}
            ("optional", optional) => required &= *optional != true,
            ("required", Json::Bool(given)) => required = *given,
            ("type", Json::String(text)) => {
                let written = types::python(text);
                required &= !written.optional;
                schema.extend(written.schema);
            }
            ("properties", Json::Array(_)) => {
                let inner = parameters(value)?.unwrap_or_default();
                schema.extend(inner.as_object().cloned().unwrap_or_default());
            }
            _ => {
                schema.insert(key.clone(), value.clone());
            }
        }
    }
    Ok((name.to_owned(), Json::Object(schema), required))
}

fn typed(name: &str, text: &str) -> Result<Property, String> {
    let written = types::python(text);
    match written.schema.is_empty() && !text.eq_ignore_ascii_case("any") {
        true => Err(format!("parameter `{name}`: `{text}` is no type")),
        false => Ok((name.to_owned(), Json::Object(written.schema), !written.optional)),
    }
}

fn object(parameters: Vec<Property>) -> Result<Json, String> {
    let required: Vec<_> =
        parameters.iter().filter(|(_, _, required)| *required).map(|(name, ..)| name.clone()).collect();
    let count = parameters.len();
    let properties: Map<_, _> = parameters.into_iter().map(|(name, schema, _)| (name, schema)).collect();
    if properties.len() < count {
        return Err("two parameters of one name".to_owned());
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema_of(parameters: &Json) -> Json {
        one(&json!({"name": "f", "parameters": parameters})).unwrap().parameters.unwrap()
    }

    #[test]
    fn a_schema_stays_as_it_is_in_every_wrapping() {
        let schema = json!({"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]});
        assert_eq!(schema_of(&schema), schema);
        let wrapped =
            json!([{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}]);
        let tools = list(&json!(wrapped.to_string())).unwrap();
        assert_eq!((tools[0].description.as_deref(), tools[0].parameters.as_ref()), (Some("d"), Some(&schema)));
        assert_eq!(one(&json!({"name": "f"})).unwrap().parameters, None);
        assert_eq!(list(&json!(" ")).unwrap(), []);
    }

    #[test]
    fn a_list_of_parameters_with_optional_marks_becomes_a_schema() {
        let parameters = json!([
            {"name": "city", "type": "string", "description": "Where."},
            {"name": "days", "type": "integer", "optional": true, "minimum": 1},
            {"name": "tags", "type": "array", "items": {"type": "string"}, "optional": false},
            {"name": "box", "type": "object", "properties": [{"name": "w", "type": "number"}]}]);
        let expected = json!({"type": "object", "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "items": {"type": "string"}},
            "box": {"type": "object", "properties": {"w": {"type": "number"}}, "required": ["w"]}},
            "required": ["city", "tags", "box"]});
        assert_eq!(schema_of(&parameters), expected);
    }

    #[test]
    fn parameters_by_name_have_the_types_of_python() {
        let parameters = json!({
            "type": {"type": "str", "description": "Which."},
            "limit": {"type": "int, optional", "description": "How many."},
            "page": {"type": "int", "default": 1}});
        let expected = json!({"type": "object", "properties": {
            "type": {"type": "string", "description": "Which."},
            "limit": {"type": "integer", "description": "How many."},
            "page": {"type": "integer", "default": 1}},
            "required": ["type"]});
        assert_eq!(schema_of(&parameters), expected);
    }

    #[test]
    fn a_schema_without_its_type_is_one_and_a_parameter_called_properties_is_none() {
        let schema = json!({"properties": {"city": {"type": "string"}}, "description": "d"});
        assert_eq!(schema_of(&schema), schema);
        let named = schema_of(&json!({"properties": {"type": "dict", "description": "Which."}}));
        assert_eq!(named["required"], json!(["properties"]));
    }

    #[test]
    fn parameters_may_be_types_alone() {
        let expected = json!({"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "more": {}}, "required": ["city", "more"]});
        assert_eq!(schema_of(&json!({"city": "string", "days": "int, optional", "more": "Any"})), expected);
    }

    #[test]
    fn a_declaration_that_cannot_be_read_names_the_function() {
        let why = |value: Json| list(&value).unwrap_err().to_string();
        assert!(why(json!([{"description": "d"}])).contains("`name` is missing"));
        assert!(
            why(json!({"name": "f", "parameters": [{"type": "str"}]})).contains("function `f`: a parameter without")
        );
        assert!(why(json!({"name": "f", "parameters": [{"name": "a"}, {"name": "a"}]})).contains("two parameters"));
        assert!(why(json!({"name": "f", "parameters": 3})).contains("neither an object nor a list"));
        let mixed = json!({"name": "f", "parameters": {"city": {"type": "str"}, "note": "Where it is."}});
        assert!(why(mixed).contains("function `f`: parameter `note`: `Where it is.` is no type"));
        let mixed = json!({"name": "f", "parameters": {"city": {"type": "str"}, "days": 3}});
        assert!(why(mixed).contains("parameter `days` is neither an object nor a type"));
        assert!(why(json!("{")).contains("EOF"));
    }
}
