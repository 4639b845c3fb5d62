//! Values for schemas that others have written. Knows no function and no sentence.

use crate::data::synth::dice::Dice;
use crate::data::synth::values::Kind;
use serde_json::{Map, Value as Json, json};

/// Objects and lists inside one another.
const MOST_DEPTH: usize = 3;

/// A value that the schema allows, with a hint at what it is in its name and description; `None` where that cannot be told.
pub(super) fn draw(name: &str, schema: &Json, dice: &mut Dice, depth: usize) -> Option<Json> {
    if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.is_empty()) {
        return Some(dice.pick_ref(choices).clone());
    }
    if let Some(examples) = schema["examples"].as_array().filter(|examples| !examples.is_empty()) {
        return Some(dice.pick_ref(examples).clone());
    }
    let value = match kind_of(schema)? {
        "string" => json!(text(name, schema, dice)?),
        "integer" => json!(integer(schema, dice)),
        "number" => number(schema, dice),
        "boolean" => json!(true),
        "array" if depth < MOST_DEPTH => {
            (0..1 + dice.below(2)).map(|_| draw(name, &schema["items"], dice, depth + 1)).collect::<Option<Json>>()?
        }
        "object" if depth < MOST_DEPTH => object(schema, dice, depth)?,
        _ => return None,
    };
    Some(value)
}

fn kind_of(schema: &Json) -> Option<&str> {
    match &schema["type"] {
        Json::String(kind) => Some(kind),
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null"),
        _ if schema.get("properties").is_some() => Some("object"),
        _ => None,
    }
}

fn object(schema: &Json, dice: &mut Dice, depth: usize) -> Option<Json> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let mut object = Map::new();
    for (name, property) in schema["properties"].as_object()? {
        let value = draw(name, property, dice, depth + 1);
        match (required(name), value) {
            (true, None) => return None,
            (wanted, Some(value)) if wanted || dice.chance(0.4) => drop(object.insert(name.clone(), value)),
            _ => {}
        }
    }
    (!object.is_empty()).then_some(Json::Object(object))
}

fn integer(schema: &Json, dice: &mut Dice) -> i64 {
    let low = schema["minimum"].as_i64().unwrap_or(1);
    let high = schema["maximum"].as_i64().unwrap_or(low.saturating_add(99)).min(low.saturating_add(100_000));
    dice.between(low, high.max(low))
}

fn number(schema: &Json, dice: &mut Dice) -> Json {
    let low = schema["minimum"].as_f64().unwrap_or(1.0);
    let high = schema["maximum"].as_f64().unwrap_or(low + 99.0);
    let tenths =
        dice.between((low * 10.0).ceil() as i64, ((high * 10.0).floor() as i64).max((low * 10.0).ceil() as i64));
    if tenths % 10 == 0 { json!(tenths / 10) } else { json!(tenths as f64 / 10.0) }
}

/// A text by format, by the examples that descriptions give, or by name.
fn text(name: &str, schema: &Json, dice: &mut Dice) -> Option<String> {
    let kind = match schema["format"].as_str() {
        Some("date") => Kind::IsoDate,
        Some("date-time") => return Some(format!("{}T09:30:00Z", drawn(&Kind::IsoDate, dice)?)),
        Some("email") => Kind::Email,
        Some("uri" | "url") => return Some(format!("https://{}", drawn(&Kind::Host, dice)?)),
        // What cannot be made up is left out, or the function is.
        _ if schema.get("pattern").is_some() => return None,
        _ => match named_examples(schema["description"].as_str().unwrap_or_default()).as_slice() {
            [] => by_name(name),
            examples => return Some(dice.pick(examples).to_owned()),
        },
    };
    let text = drawn(&kind, dice)?;
    let length = text.chars().count() as u64;
    let fits =
        length >= schema["minLength"].as_u64().unwrap_or(0) && length <= schema["maxLength"].as_u64().unwrap_or(200);
    fits.then_some(text)
}

fn drawn(kind: &Kind, dice: &mut Dice) -> Option<String> {
    kind.draw(dice, false).json.as_str().map(str::to_owned)
}

/// The items of "(e.g., DNA, blood)"; none where the list is cut off or holds sentences.
fn named_examples(description: &str) -> Vec<&str> {
    let start = ["(e.g., ", "(e.g. ", "(for example, ", "(for example "]
        .iter()
        .find_map(|start| description.find(start).map(|at| &description[at + start.len()..]));
    let Some(list) = start.and_then(|rest| rest.split_once(')')).map(|(list, _)| list) else { return Vec::new() };
    let items =
        list.split([',', ';']).map(|item| item.trim().trim_start_matches("or ").trim_matches(['"', '\'']).trim());
    items.filter(|item| (1..=40).contains(&item.len()) && *item != "etc." && *item != "etc").collect()
}

/// What a parameter of this name usually holds.
fn by_name(name: &str) -> Kind {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match () {
        () if has(&["date", "day", "deadline"]) => Kind::IsoDate,
        () if has(&["email", "mail"]) => Kind::Email,
        () if has(&["phone"]) => Kind::Phone,
        () if has(&["city", "location", "place", "destination", "origin"]) => Kind::Pool("city"),
        () if has(&["country"]) => Kind::Pool("country"),
        () if has(&["address", "street"]) => Kind::Street,
        () if has(&["url", "link"]) => Kind::Url,
        () if name == "id" || name.ends_with("_id") || name.ends_with("id") || has(&["number", "code"]) => Kind::Code,
        () if has(&["person", "author", "user", "patient", "owner", "customer"]) => Kind::Person,
        () if has(&["company", "organization"]) => Kind::Company,
        () if has(&["language"]) => Kind::Pool("language"),
        () if has(&["color", "colour"]) => Kind::Pool("color"),
        () if has(&["time"]) => Kind::Time,
        () => Kind::Title,
    }
}
