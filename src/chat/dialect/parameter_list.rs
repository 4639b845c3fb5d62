//! Tools as the data set llama_functions shows them: parameters are a list, and those that may be left out say `optional`.
//! Knows no dialect.

use serde_json::{Map, Value, json};

/// Every function of OpenAI tool objects.
pub(super) fn functions(tools: &[Value]) -> Vec<Value> {
    tools.iter().map(|tool| function(&tool["function"])).collect()
}

fn function(function: &Value) -> Value {
    let mut shown = Map::new();
    for key in ["name", "description"] {
        shown.extend(function.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    shown.insert("parameters".to_owned(), parameters(&function["parameters"]));
    Value::Object(shown)
}

/// One entry per property: its name, its schema's keywords, and whether it may be left out.
fn parameters(schema: &Value) -> Value {
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name));
    let entry = |(name, property): (&String, &Value)| {
        let mut entry = Map::from_iter([("name".to_owned(), json!(name))]);
        entry.extend(property.as_object().cloned().unwrap_or_default());
        if !required(name) {
            entry.insert("optional".to_owned(), json!(true));
        }
        Value::Object(entry)
    };
    schema["properties"].as_object().into_iter().flatten().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_a_list_that_marks_the_optional_ones() {
        let tool = json!({"type": "function", "function": {"name": "go", "description": "Go.", "parameters": {"type": "object",
            "properties": {"to": {"type": "string"}, "by": {"enum": ["car", "foot"], "description": "How"}}, "required": ["to"]}}});
        let expected = json!([{"name": "go", "description": "Go.", "parameters": [
            {"name": "to", "type": "string"}, {"name": "by", "enum": ["car", "foot"], "description": "How", "optional": true}]}]);
        assert_eq!(json!(functions(&[tool])), expected);
        assert_eq!(functions(&[json!({"function": {"name": "now"}})]), [json!({"name": "now", "parameters": []})]);
    }
}
