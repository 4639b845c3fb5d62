//! The tool list of Seal-Tools: one `{api_name, api_description, parameters, required}` a line.

use super::{legal, wrong};
use crate::data::DataError;
use callsmith::chat::Tool;
use callsmith::grammar::schema::standardised;
use serde_json::{Map, Value as Json, json};

/// The tools of all lines; empty lines are skipped, and of several with one name the first is taken.
pub(super) fn tools(text: &str, place: &str) -> Result<Vec<Tool>, DataError> {
    let mut tools: Vec<Tool> = Vec::new();
    let mut names = std::collections::HashSet::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{place} line {number}");
        let json: Json =
            serde_json::from_str(line).map_err(|e| DataError::Json { place: place.clone(), problem: e.to_string() })?;
        let tool = tool(&json, &place)?;
        if names.insert(tool.name.clone()) {
            tools.push(tool);
        }
    }
    Ok(tools)
}

fn tool(json: &Json, place: &str) -> Result<Tool, DataError> {
    let name = json["api_name"].as_str().ok_or_else(|| wrong(place, "api_name", "is missing or no string"))?;
    let none = Map::new();
    let parameters = match &json["parameters"] {
        Json::Null => &none,
        Json::Object(parameters) => parameters,
        _ => return Err(wrong(place, "parameters", "must be an object")),
    };
    let properties: Map<String, Json> =
        parameters.iter().map(|(name, about)| (name.clone(), property(about))).collect();
    let known = |name: &&Json| name.as_str().is_some_and(|name| parameters.contains_key(name));
    let required: Vec<&Json> = json["required"].as_array().into_iter().flatten().filter(known).collect();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    Ok(Tool {
        name: legal(name),
        description: json["api_description"].as_str().map(str::to_owned),
        parameters: Some(standardised(&schema)),
        strict: false,
    })
}

/// A parameter's schema; types are those of Python, as `standardised` reads them.
fn property(about: &Json) -> Json {
    let mut schema = json!({"type": about["type"].as_str().unwrap_or("str")});
    if let Some(description) = about["description"].as_str() {
        schema["description"] = json!(description);
    }
    schema
}
