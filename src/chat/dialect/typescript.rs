//! Tools as TypeScript-like declarations: about half the tokens of their JSON Schemas, with nothing that matters lost.
//!
//! Knows no dialect.

use super::super::json::JsonStyle;
use serde_json::{Map, Value};

/// A namespace with one type per function; `tools` are OpenAI's tool objects.
pub(super) fn declarations(tools: &[Value]) -> String {
    let functions: Vec<_> = tools.iter().map(declaration).collect();
    format!("namespace functions {{\n\n{}\n\n}} // namespace functions", functions.join("\n\n"))
}

fn declaration(tool: &Value) -> String {
    let function = &tool["function"];
    let schema = &function["parameters"];
    let description = function["description"].as_str().map(comment).unwrap_or_default();
    let name = function["name"].as_str().unwrap_or_default();
    let named = ["$defs", "definitions"].into_iter().filter_map(|key| schema[key].as_object()).flatten();
    let named: String = named.map(|(name, schema)| format!("type {name} = {};\n", type_of(schema))).collect();
    let parameters: String = properties(schema).map(|(name, property)| parameter(schema, name, property)).collect();
    let line_break = if parameters.is_empty() { "" } else { "\n" };
    format!("{named}{description}type {name} = (_: {{{line_break}{parameters}}}) => any;")
}

fn parameter(schema: &Value, name: &str, property: &Value) -> String {
    let description = property["description"].as_str().map(comment).unwrap_or_default();
    format!("{description}{}: {},\n", key(schema, name), type_of(property))
}

/// One line: a line break inside would start a declaration.
fn comment(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    if words.is_empty() { String::new() } else { format!("// {}\n", words.join(" ")) }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// The name of a property, with `?` when it may be left out.
fn key(schema: &Value, name: &str) -> String {
    let required = schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
    let plain = name.chars().all(|character| character.is_alphanumeric() || character == '_');
    let name = if plain && !name.is_empty() { name.to_owned() } else { Value::from(name).to_string() };
    if required { name } else { name + "?" }
}

fn type_of(schema: &Value) -> String {
    let Some(map) = schema.as_object() else { return "any".to_owned() };
    let notes = notes(map);
    let base = base_type(schema);
    if notes.is_empty() { base } else { format!("{base} /* {} */", notes.join(", ").replace("*/", "* /")) }
}

fn base_type(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(json).collect::<Vec<_>>().join(" | ");
    }
    if let Some(value) = schema.get("const") {
        return json(value);
    }
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().filter(|name| *name != "#").unwrap_or("any").to_owned();
    }
    for (keyword, operator) in [("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")] {
        if let Some(schemas) = schema[keyword].as_array() {
            return schemas.iter().map(type_of).collect::<Vec<_>>().join(operator);
        }
    }
    match &schema["type"] {
        Value::Array(names) => {
            names.iter().map(|name| simple_type(name.as_str(), schema)).collect::<Vec<_>>().join(" | ")
        }
        name => simple_type(name.as_str(), schema),
    }
}

fn simple_type(name: Option<&str>, schema: &Value) -> String {
    match name {
        Some("array") => array_type(schema),
        Some("object") => object_type(schema),
        None if schema["properties"].is_object() => object_type(schema),
        other => other.unwrap_or("any").to_owned(),
    }
}

fn array_type(schema: &Value) -> String {
    if let Some(places) = schema["prefixItems"].as_array() {
        return format!("[{}]", places.iter().map(type_of).collect::<Vec<_>>().join(", "));
    }
    let item = type_of(&schema["items"]);
    // Notes and unions would otherwise belong to the array.
    if item.contains(' ') && !item.ends_with('}') { format!("({item})[]") } else { format!("{item}[]") }
}

fn object_type(schema: &Value) -> String {
    let members: Vec<_> =
        properties(schema).map(|(name, property)| format!("{}: {}", key(schema, name), type_of(property))).collect();
    match &schema["additionalProperties"] {
        _ if !members.is_empty() => format!("{{ {} }}", members.join(", ")),
        values @ Value::Object(_) => format!("{{ [key: string]: {} }}", type_of(values)),
        _ => "object".to_owned(),
    }
}

/// What TypeScript has no words for: ranges, lengths, formats, defaults.
fn notes(schema: &Map<String, Value>) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(range(schema, ["minimum", "exclusiveMinimum"], ["maximum", "exclusiveMaximum"]));
    notes.extend(range(schema, ["minLength", ""], ["maxLength", ""]).map(|range| format!("length {range}")));
    notes.extend(range(schema, ["minItems", ""], ["maxItems", ""]).map(|range| format!("{range} items")));
    for (keyword, label) in
        [("multipleOf", "multiple of "), ("format", ""), ("pattern", "matches "), ("default", "default ")]
    {
        let text = schema
            .get(keyword)
            .map(|value| value.as_str().filter(|_| keyword != "default").map_or_else(|| json(value), str::to_owned));
        notes.extend(text.map(|text| format!("{label}{text}")));
    }
    notes
}

/// `1..10`, `>0..`, `..<5`.
fn range(schema: &Map<String, Value>, low: [&str; 2], high: [&str; 2]) -> Option<String> {
    let bound = |[inclusive, exclusive]: [&str; 2], sign: &str| {
        let beyond = schema.get(exclusive).map(|value| format!("{sign}{value}"));
        beyond.or_else(|| schema.get(inclusive).map(Value::to_string))
    };
    let (low, high) = (bound(low, ">"), bound(high, "<"));
    (low.is_some() || high.is_some()).then(|| format!("{}..{}", low.unwrap_or_default(), high.unwrap_or_default()))
}

fn json(value: &Value) -> String {
    JsonStyle::compact().text(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn enums_keep_their_numbers() {
        assert_eq!(type_of(&json!({"type": "string", "enum": ["a", "b", 3, null]})), r#""a" | "b" | 3 | null"#);
    }

    #[test]
    fn nested_types_are_written_out() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "array", "items": {"type": "string"}}, "b-c": {"anyOf": [{"type": "null"}, {"type": "number"}]}}});
        assert_eq!(type_of(&schema), r#"{ a: string[], "b-c"?: null | number }"#);
        assert_eq!(
            type_of(&json!({"type": "object", "additionalProperties": {"type": "integer"}})),
            "{ [key: string]: integer }"
        );
        assert_eq!(type_of(&json!({"type": ["string", "null"]})), "string | null");
        assert_eq!(type_of(&json!(true)), "any");
    }

    #[test]
    fn ranges_formats_and_defaults_become_notes() {
        assert_eq!(
            type_of(&json!({"type": "integer", "minimum": 1, "maximum": 10, "default": 5})),
            "integer /* 1..10, default 5 */"
        );
        assert_eq!(type_of(&json!({"type": "number", "exclusiveMinimum": 0})), "number /* >0.. */");
        let list = json!({"type": "array", "maxItems": 3, "items": {"type": "string", "format": "date"}});
        assert_eq!(type_of(&list), "(string /* date */)[] /* ..3 items */");
        assert_eq!(
            type_of(&json!({"type": "string", "pattern": "a*/", "default": "x"})),
            r#"string /* matches a* /, default "x" */"#
        );
    }

    #[test]
    fn functions_without_arguments_are_kept() {
        let tool = json!({"function": {"name": "now", "description": " The\ntime. "}});
        let expected = "namespace functions {\n\n// The time.\ntype now = (_: {}) => any;\n\n} // namespace functions";
        assert_eq!(declarations(&[tool]), expected);
    }

    #[test]
    fn definitions_are_named_types() {
        let parameters = json!({"$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}}},
            "properties": {"to": {"$ref": "#/$defs/Point", "description": "Goal"}}, "required": ["to"]});
        let tool = json!({"function": {"name": "go", "parameters": parameters}});
        let text = declaration(&tool);
        assert_eq!(text, "type Point = { x?: number };\ntype go = (_: {\n// Goal\nto: Point,\n}) => any;");
    }
}
