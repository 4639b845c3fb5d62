//! OpenAPI 2 and 3 documents: each operation becomes a function whose parameters are those of path and query and the fields
//! of the body. References inside the document are resolved; fields that only answers have are left out.

use super::all_of;
use super::{legal, wrong};
use crate::data::DataError;
use callsmith::chat::Tool;
use callsmith::grammar::schema::standardised;
use serde_json::{Map, Value as Json, json};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Keys that JSON Schema has not, or that say nothing about arguments.
const FOREIGN: [&str; 8] = [
    "xml",
    "externalDocs",
    "discriminator",
    "readOnly",
    "writeOnly",
    "deprecated",
    "collectionFormat",
    "allowEmptyValue",
];
/// References inside one another; recursive schemas end here.
const MOST_DEPTH: usize = 8;
/// Values of one function's schema, which references may multiply.
const MOST_VALUES: usize = 20_000;

/// The functions of a document, in its order.
pub(super) fn tools(document: &Json, place: &str) -> Result<Vec<Tool>, DataError> {
    let paths = document["paths"].as_object().ok_or_else(|| wrong(place, "paths", "must be an object"))?;
    let mut tools: Vec<Tool> = Vec::new();
    let reader = |at: String| Reader { document, place, at, values: 0 };
    for (path, item) in paths {
        let item = reader(format!("paths.{path}")).resolved(item)?;
        for method in METHODS {
            let Some(operation) = item.get(method).filter(|operation| operation.is_object()) else { continue };
            let mut tool = reader(format!("paths.{path}.{method}")).tool(path, method, &item, operation)?;
            let base = tool.name.clone();
            let mut number = 2;
            while tools.iter().any(|other| other.name == tool.name) {
                tool.name = format!("{}_{number}", base.chars().take(60).collect::<String>());
                number += 1;
            }
            tools.push(tool);
        }
    }
    Ok(tools)
}

/// Reads one operation.
struct Reader<'a> {
    document: &'a Json,
    place: &'a str,
    /// Where it stands, for errors.
    at: String,
    /// Values of the schema so far.
    values: usize,
}

/// Parameters by name, and which are required.
#[derive(Default)]
struct Parameters {
    properties: Map<String, Json>,
    required: Vec<String>,
}

impl Reader<'_> {
    fn tool(&mut self, path: &str, method: &str, item: &Json, operation: &Json) -> Result<Tool, DataError> {
        let name = operation["operationId"].as_str().map_or_else(|| format!("{method}{path}"), str::to_owned);
        let text = |key: &str| operation[key].as_str().filter(|text| !text.trim().is_empty());
        let description = text("summary").or_else(|| text("description")).map(|text| text.trim().to_owned());
        let mut parameters = Parameters::default();
        let lists = [&item["parameters"], &operation["parameters"]];
        for parameter in lists.into_iter().filter_map(Json::as_array).flatten() {
            self.parameter(parameter, &mut parameters)?;
        }
        if let Some(body) = operation.get("requestBody") {
            self.body(body, &mut parameters)?;
        }
        let Parameters { properties, required } = parameters;
        let schema = json!({"type": "object", "properties": properties, "required": required});
        Ok(Tool { name: legal(&name), description, parameters: Some(standardised(&schema)), strict: false })
    }

    /// Takes one of a path's or query's parameters, or a body of OpenAPI 2; headers and cookies are the client's.
    fn parameter(&mut self, parameter: &Json, into: &mut Parameters) -> Result<(), DataError> {
        let parameter = self.resolved(parameter)?;
        let required = parameter["required"] == json!(true);
        match parameter["in"].as_str() {
            Some("path" | "query" | "formData") => {}
            Some("body") => return self.fields(&parameter["schema"], required, into),
            _ => return Ok(()),
        }
        let name = parameter["name"].as_str().ok_or_else(|| self.error("has a parameter without a `name`"))?.to_owned();
        let mut schema = match parameter.get("schema").or_else(|| content_schema(&parameter)) {
            Some(schema) => self.schema(schema, 0)?,
            None => self.schema(&own_schema(&parameter), 0)?,
        };
        if let (Some(description), Json::Object(schema)) = (parameter["description"].as_str(), &mut schema) {
            schema.entry("description").or_insert_with(|| json!(description));
        }
        into.add(name, schema, required);
        Ok(())
    }

    fn body(&mut self, body: &Json, into: &mut Parameters) -> Result<(), DataError> {
        let body = self.resolved(body)?;
        match content_schema(&body) {
            Some(schema) => self.fields(schema, body["required"] == json!(true), into),
            None => Ok(()),
        }
    }

    /// The fields of an object one by one; anything else as `body`.
    fn fields(&mut self, schema: &Json, required: bool, into: &mut Parameters) -> Result<(), DataError> {
        let schema = self.schema(schema, 0)?;
        let Some(properties) = schema["properties"].as_object() else {
            into.add("body".to_owned(), schema, required);
            return Ok(());
        };
        let names: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        for (name, property) in properties {
            into.add(name.clone(), property.clone(), required && names.contains(&name.as_str()));
        }
        Ok(())
    }

    /// What a reference stands for.
    fn resolved(&self, value: &Json) -> Result<Json, DataError> {
        let mut value = value;
        for _ in 0..MOST_DEPTH {
            let Some(reference) = value.get("$ref").and_then(Json::as_str) else { return Ok(value.clone()) };
            let pointer = reference.strip_prefix('#').ok_or_else(|| {
                self.error(format!("refers to `{reference}`; only references inside the document (`#/…`) are read"))
            })?;
            let missing = || self.error(format!("refers to `{reference}`, which the document does not hold"));
            value = self.document.pointer(pointer).ok_or_else(missing)?;
        }
        Err(self.error("has references that lead in a circle"))
    }

    /// A schema without references, without what JSON Schema does not know, and without fields that cannot be sent.
    fn schema(&mut self, schema: &Json, depth: usize) -> Result<Json, DataError> {
        let mut schema = self.part(schema, depth)?;
        drop_read_only(&mut schema);
        Ok(schema)
    }

    /// The same with all fields: as a part of an `allOf`, of which another part may require what cannot be sent.
    fn part(&mut self, schema: &Json, depth: usize) -> Result<Json, DataError> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(self.error(format!("has a schema of more than {MOST_VALUES} values; leave this operation out")));
        }
        match schema {
            Json::Object(fields) if fields.contains_key("$ref") => match depth < MOST_DEPTH {
                true => self.part(&self.resolved(schema)?, depth + 1),
                false => Ok(json!({})),
            },
            Json::Object(fields) => self.object(fields, depth).map(Json::Object),
            Json::Array(items) => items.iter().map(|item| self.schema(item, depth)).collect(),
            other => Ok(other.clone()),
        }
    }

    fn object(&mut self, fields: &Map<String, Json>, depth: usize) -> Result<Map<String, Json>, DataError> {
        let (mut schema, mut parts) = (Map::new(), Vec::new());
        for (key, value) in fields {
            match key.as_str() {
                "allOf" => {
                    let all = value.as_array().into_iter().flatten();
                    parts = all.map(|part| self.part(part, depth)).collect::<Result<_, _>>()?;
                }
                // Whoever has this field drops it.
                "readOnly" if *value == json!(true) => drop(schema.insert(key.clone(), value.clone())),
                // A property may be called anything.
                "properties" => {
                    let properties = value.as_object().into_iter().flatten();
                    let read = |(name, value): (&String, &Json)| Ok((name.clone(), self.schema(value, depth)?));
                    schema.insert(key.clone(), Json::Object(properties.map(read).collect::<Result<_, DataError>>()?));
                }
                "example" => drop(schema.insert("examples".to_owned(), json!([value]))),
                key if FOREIGN.contains(&key) || key.starts_with("x-") => {}
                _ => drop(schema.insert(key.clone(), self.schema(value, depth)?)),
            }
        }
        exclude_bounds(&mut schema);
        Ok(all_of::merged(schema, parts))
    }

    fn error(&self, problem: impl Into<String>) -> DataError {
        wrong(self.place, &self.at, problem)
    }
}

impl Parameters {
    fn add(&mut self, name: String, schema: Json, required: bool) {
        if required && !self.required.contains(&name) {
            self.required.push(name.clone());
        }
        self.properties.insert(name, schema);
    }
}

/// The schema of the JSON that a body or parameter holds, or of the first kind of content.
fn content_schema(holder: &Json) -> Option<&Json> {
    let kinds = holder["content"].as_object()?;
    let (_, content) = kinds.iter().find(|(kind, _)| kind.contains("json")).or_else(|| kinds.iter().next())?;
    content.get("schema")
}

/// OpenAPI 3.0 says by a flag that a bound is excluded; JSON Schema has a bound of its own for that.
fn exclude_bounds(schema: &mut Map<String, Json>) {
    for (excluded, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        let Some(&Json::Bool(is_excluded)) = schema.get(excluded) else { continue };
        schema.remove(excluded);
        if is_excluded && let Some(value) = schema.remove(bound) {
            schema.insert(excluded.to_owned(), value);
        }
    }
}

/// Takes out the fields that only answers have.
fn drop_read_only(schema: &mut Json) {
    let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) else { return };
    let read_only = properties.iter().filter(|(_, property)| property["readOnly"] == json!(true));
    let gone: Vec<String> = read_only.map(|(name, _)| name.clone()).collect();
    properties.retain(|name, _| !gone.contains(name));
    if let Some(required) = schema.get_mut("required").and_then(Json::as_array_mut) {
        required.retain(|name| !gone.iter().any(|gone| name == gone));
    }
}

/// The schema that stands in the parameter itself, as OpenAPI 2 has it.
fn own_schema(parameter: &Json) -> Json {
    let foreign = ["name", "in", "required", "description", "content"];
    let fields = parameter.as_object().into_iter().flatten().filter(|(key, _)| !foreign.contains(&key.as_str()));
    Json::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
}
