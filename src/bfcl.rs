//! Rows of the Berkeley Function-Calling Leaderboard: the calls that answer a question. Knows no dialect.

use crate::chat::ToolCall;
use crate::grammar::schema::standardised;
use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

/// The gold calls of an answer, arguments in the order of the functions' schemas and names without dots. `None` for those that
/// break their own schema.
pub(crate) fn gold_calls(question: &Value, answer: &Value) -> Option<Vec<ToolCall>> {
    let functions = question["function"].as_array()?;
    answer["ground_truth"].as_array()?.iter().map(|call| gold_call(functions, call)).collect()
}

fn gold_call(functions: &[Value], call: &Value) -> Option<ToolCall> {
    let (name, options) = call.as_object()?.iter().next()?;
    let function = functions.iter().find(|function| function["name"] == name.as_str())?;
    let schema = standardised(&function["parameters"]);
    let mut arguments = in_order(&schema, first_of_each(options));
    // Some answers allow for arguments that the function does not have.
    let extra = |name: &String| options[name].as_array().is_some_and(|values| values.contains(&json!("")));
    let known = &function["parameters"]["properties"];
    arguments.as_object_mut()?.retain(|name, _| known.get(name).is_some() || !extra(name));
    let fits = jsonschema::validator_for(&schema).ok()?.is_valid(&arguments);
    fits.then(|| ToolCall { id: String::new(), name: name.replace('.', "_"), arguments })
}

/// Each argument's first possible value; the empty text stands for "left out".
fn first_of_each(options: &Value) -> Value {
    let first = |(name, values): (&String, &Value)| {
        let value = values.as_array()?.iter().find(|value| **value != "")?;
        Some((name.clone(), plain(value)))
    };
    Value::Object(options.as_object().into_iter().flatten().filter_map(first).collect())
}

/// Inside an object every value is a list of possible ones again; whole numbers are written as such.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(_) => first_of_each(value),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => Value::from(whole as i64),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// Members in the order of the schema's properties, as the grammar has them.
fn in_order(schema: &Value, value: Value) -> Value {
    match (value, schema["properties"].as_object(), schema.get("items")) {
        (Value::Object(mut map), Some(properties), _) => {
            let known = properties
                .iter()
                .filter_map(|(name, schema)| Some((name.clone(), in_order(schema, map.remove(name)?))));
            let mut ordered: Map<String, Value> = known.collect();
            ordered.extend(map);
            Value::Object(ordered)
        }
        (Value::Array(items), _, Some(schema)) => items.into_iter().map(|item| in_order(schema, item)).collect(),
        (value, ..) => value,
    }
}

/// Small numbers as the grammar has them: `0.000001`, never `1e-6`.
pub(crate) fn without_exponents(text: &str) -> String {
    let Ok(number) = Regex::new(r"([ :\[])([0-9.]+e-[0-9]+)") else { return text.to_owned() };
    let plain = |found: &Captures<'_>| match found[2].parse::<f64>() {
        Ok(value) => format!("{}{value}", &found[1]),
        Err(_) => found[0].to_owned(),
    };
    number.replace_all(text, plain).into_owned()
}
