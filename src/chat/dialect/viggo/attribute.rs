//! What an act's attributes may hold: from a function's normalised schema to grammar rules, and from text back to JSON.
//! Knows no turn.

use serde_json::{Map, Value};
use std::fmt::Write;

/// Characters of a value: no brackets and nothing that JSON must escape by code.
const CHARACTER: &str = "[^\\[\\]\\x00-\\x1f\\x7f]";
/// Of a value in a list, which commas divide.
const ITEM_CHARACTER: &str = "[^\\[\\],\\x00-\\x1f\\x7f]";
const LIST_SEPARATOR: &str = ", ";

/// A function whose arguments can be written as attributes.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) name: String,
    attributes: Vec<Attribute>,
}

#[derive(Debug)]
struct Attribute {
    name: String,
    kind: Kind,
    required: bool,
}

/// How a value is written.
#[derive(Debug)]
enum Kind {
    /// Characters as they are, between two lengths.
    Text {
        minimum: u64,
        maximum: Option<u64>,
    },
    /// One of some constants, by its text.
    Constants(Vec<(String, Value)>),
    /// `yes` or `no`.
    Flag,
    /// A JSON number under this schema.
    Number(Value),
    List {
        item: Box<Self>,
        minimum: u64,
        maximum: Option<u64>,
    },
}

impl Act {
    /// The error completes the sentence "dialect `viggo` cannot write …".
    pub(super) fn new((name, schema): &(String, Value)) -> Result<Self, String> {
        let object = resolve(schema, schema);
        let closed = object["additionalProperties"] == false && object.get("patternProperties").is_none();
        if object["type"] != "object" || !closed {
            return Err("arguments that are no single object with known properties".to_owned());
        }
        let required =
            |name: &str| object["required"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
        let mut attributes = Vec::new();
        for (name, property) in object["properties"].as_object().into_iter().flatten() {
            if name.is_empty() || !name.chars().all(super::super::description::is_name) {
                return Err(format!("a property called `{name}`"));
            }
            let kind = Kind::new(schema, property).map_err(|what| format!("{what} (property `{name}`)"))?;
            attributes.push(Attribute { name: name.clone(), kind, required: required(name) });
        }
        Ok(Self { name: name.clone(), attributes })
    }

    /// Lark rules: `act{index}` and what it needs.
    pub(super) fn rules(&self, index: usize) -> String {
        let rule = |place: usize| format!("a{index}_{place}");
        let more =
            |place: usize| if place < self.attributes.len() { format!(" m{index}_{place}") } else { String::new() };
        let first_required = self.attributes.iter().position(|attribute| attribute.required);
        let openers = 0..first_required.map_or(self.attributes.len(), |place| place + 1);
        let openers: Vec<_> = openers.map(|place| format!("{}{}", rule(place), more(place + 1))).collect();
        let body = match openers.len() {
            0 => String::new(),
            _ => format!("({}){}", openers.join(" | "), if first_required.is_none() { "?" } else { "" }),
        };
        let mut lark = format!("act{index}: {} {body} \")\"\n", Value::from(format!("{}(", self.name)));
        for (place, attribute) in self.attributes.iter().enumerate() {
            let next = format!("\", \" {}", rule(place));
            let next = if attribute.required { next } else { format!("({next})?") };
            let _ = writeln!(lark, "m{index}_{place}: {next}{}", more(place + 1));
            let open = Value::from(format!("{}[", attribute.name));
            let value = format!("v{index}_{place}");
            let _ = writeln!(lark, "{}: {open} {value} \"]\"", rule(place));
            lark.push_str(&attribute.kind.rules(&value));
        }
        lark
    }

    /// An attribute's value as JSON; `None` when the act has no such attribute or the text is no such value.
    pub(super) fn value(&self, name: &str, text: &str) -> Option<Value> {
        self.attributes.iter().find(|attribute| attribute.name == name)?.kind.read(text)
    }
}

impl Kind {
    fn new(root: &Value, schema: &Value) -> Result<Self, String> {
        let schema = resolve(root, schema);
        if let Some(options) = schema["anyOf"].as_array() {
            return Self::of_options(root, options);
        }
        if let Some(values) = schema["enum"].as_array() {
            return constants(values);
        }
        match schema["type"].as_str() {
            Some("integer" | "number") => Ok(Self::Number(schema.clone())),
            Some("boolean") => Ok(Self::Flag),
            Some("string") if schema.get("pattern").is_some() || schema.get("allOf").is_some() => {
                Err("a string with a pattern or format".to_owned())
            }
            Some("string") if schema["maxLength"] == 0 => Err("a string that must be empty".to_owned()),
            Some("string") => {
                Ok(Self::Text { minimum: count(schema, "minLength"), maximum: schema["maxLength"].as_u64() })
            }
            Some("array") => Self::list(root, schema),
            _ => Err("a nested object".to_owned()),
        }
    }

    /// One way among several that can be written (`null` never can), or numbers throughout.
    fn of_options(root: &Value, options: &[Value]) -> Result<Self, String> {
        let numeric = |option: &Value| {
            let values = option["enum"].as_array();
            matches!(option["type"].as_str(), Some("integer" | "number"))
                || values.is_some_and(|list| list.iter().all(Value::is_number))
        };
        if options.iter().all(numeric) {
            return Ok(Self::Number(Value::Object(Map::from_iter([("anyOf".to_owned(), options.into())]))));
        }
        let mut possible =
            options.iter().filter(|option| option["type"] != "null").filter_map(|option| Self::new(root, option).ok());
        match (possible.next(), possible.next()) {
            (Some(only), None) => Ok(only),
            _ => Err("a value of several types".to_owned()),
        }
    }

    fn list(root: &Value, schema: &Value) -> Result<Self, String> {
        if schema.get("prefixItems").is_some() {
            return Err("a tuple".to_owned());
        }
        let (minimum, maximum) = (count(schema, "minItems"), schema["maxItems"].as_u64());
        let item = match Self::new(root, &schema["items"])? {
            Self::List { .. } => return Err("a list of lists".to_owned()),
            Self::Constants(values) if values.iter().any(|(text, _)| text.is_empty() || text.contains(',')) => {
                return Err("a list of constants with commas".to_owned());
            }
            // Nothing between the brackets is a list of nothing.
            Self::Text { minimum, maximum } => Self::Text { minimum: minimum.max(1), maximum },
            other => other,
        };
        Ok(Self::List { item: Box::new(item), minimum, maximum })
    }

    /// The rule `name` and what it needs.
    fn rules(&self, name: &str) -> String {
        match self {
            Self::List { item, minimum, maximum } => {
                let more = maximum.map_or(String::new(), |maximum| maximum.saturating_sub(1).to_string());
                let items =
                    format!("{name}_item ({LIST_SEPARATOR:?} {name}_item){{{},{more}}}", minimum.saturating_sub(1));
                let list = match (minimum, maximum) {
                    (_, Some(0)) => "\"\"".to_owned(),
                    (0, _) => format!("({items})?"),
                    _ => items,
                };
                format!("{name}: {list}\n{}", item.scalar_rule(&format!("{name}_item"), ITEM_CHARACTER))
            }
            scalar => scalar.scalar_rule(name, CHARACTER),
        }
    }

    fn scalar_rule(&self, name: &str, character: &str) -> String {
        match self {
            Self::Text { minimum, maximum } => {
                let terminal = name.to_uppercase();
                let maximum = maximum.map_or(String::new(), |maximum| maximum.to_string());
                let text = format!("{terminal}: /{character}{{{minimum},{maximum}}}/\n");
                // A terminal may not be empty.
                match minimum {
                    0 => format!("{name}: {terminal}?\n{}", text.replacen("{0,", "{1,", 1)),
                    _ => format!("{name}: {terminal}\n{text}"),
                }
            }
            Self::Constants(values) => {
                let texts: Vec<_> = values.iter().map(|(text, _)| Value::from(text.as_str()).to_string()).collect();
                format!("{name}: {}\n", texts.join(" | "))
            }
            Self::Flag => format!("{name}: \"yes\" | \"no\"\n"),
            Self::Number(schema) => format!("{name}: %json {schema}\n"),
            Self::List { .. } => String::new(),
        }
    }

    fn read(&self, text: &str) -> Option<Value> {
        match self {
            Self::Text { .. } => Some(Value::from(text)),
            Self::Constants(values) => values.iter().find(|(known, _)| known == text).map(|(_, value)| value.clone()),
            Self::Flag => ["no", "yes"].iter().position(|known| *known == text).map(|index| Value::Bool(index == 1)),
            Self::Number(_) => serde_json::from_str(text).ok().filter(Value::is_number),
            Self::List { .. } if text.is_empty() => Some(Value::Array(Vec::new())),
            Self::List { item, .. } => text.split(LIST_SEPARATOR).map(|part| item.read(part)).collect(),
        }
    }
}

fn constants(values: &[Value]) -> Result<Kind, String> {
    let mut found: Vec<(String, Value)> = Vec::with_capacity(values.len());
    for value in values {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
            _ => return Err("a constant that is null, a list or an object".to_owned()),
        };
        if text.contains(['[', ']']) || text.chars().any(char::is_control) {
            return Err("a constant with brackets or line breaks".to_owned());
        }
        if found.iter().any(|(known, _)| *known == text) {
            return Err("constants that look alike without quotes".to_owned());
        }
        found.push((text, value.clone()));
    }
    Ok(Kind::Constants(found))
}

fn count(schema: &Value, keyword: &str) -> u64 {
    schema[keyword].as_u64().unwrap_or(0)
}

/// A normalised schema refers to its definitions at most once in a row.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|text| root.pointer(text.strip_prefix('#')?));
    target.unwrap_or(schema)
}
