//! Values for schemas that others have written. Knows no function and no sentence.

use crate::data::synth::dice::Dice;
use crate::data::synth::values::Kind;
use serde_json::{Map, Value as Json, json};

/// Objects and lists inside one another.
const MOST_DEPTH: usize = 3;

/// A value that the schema allows, with a hint at what it is in its name and description; `None` where that cannot be told.
pub(super) fn draw(name: &str, schema: &Json, dice: &mut Dice, depth: usize) -> Option<Json> {
    if let Some(choices) = schema["enum"].as_array() {
        // Nobody asks for a null.
        let choices: Vec<&Json> = choices.iter().filter(|choice| !choice.is_null()).collect();
        return (!choices.is_empty()).then(|| dice.pick(&choices).clone());
    }
    if let Some(examples) = schema["examples"].as_array().filter(|examples| !examples.is_empty()) {
        return Some(dice.pick_ref(examples).clone());
    }
    let value = match kind_of(schema)? {
        "string" => json!(text(name, schema, dice)?),
        "integer" => json!(integer(schema, dice)),
        "number" => number(schema, dice),
        "boolean" => json!(dice.chance(0.5)),
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
    let bound = |key: &str| schema[key].as_i64();
    let least = bound("minimum").or(bound("exclusiveMinimum").map(|low| low.saturating_add(1)));
    let most = bound("maximum").or(bound("exclusiveMaximum").map(|high| high.saturating_sub(1)));
    let low = least.unwrap_or(1).min(most.unwrap_or(i64::MAX));
    let high = most.unwrap_or(low.saturating_add(99)).min(low.saturating_add(100_000));
    dice.between(low, high)
}

/// A number of tenths.
fn number(schema: &Json, dice: &mut Dice) -> Json {
    let bound = |key: &str| schema[key].as_f64();
    let least = bound("minimum").or(bound("exclusiveMinimum").map(|low| low + 0.1));
    let most = bound("maximum").or(bound("exclusiveMaximum").map(|high| high - 0.1));
    let low = least.unwrap_or(1.0).min(most.unwrap_or(f64::MAX));
    let (low, high) = ((low * 10.0).ceil() as i64, (most.unwrap_or(low + 99.0) * 10.0).floor() as i64);
    let tenths = dice.between(low, high.max(low));
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
    items.filter(|item| (1..=40).contains(&item.len()) && !is_placeholder(item)).collect()
}

/// Words that stand for a value instead of being one: "etc.", "city name", "YYYY-MM-DD".
fn is_placeholder(item: &str) -> bool {
    const WORDS: [&str; 29] = [
        "address",
        "age",
        "amount",
        "city",
        "code",
        "coordinates",
        "country",
        "county",
        "date",
        "email",
        "gender",
        "id",
        "keyword",
        "latitude",
        "location",
        "longitude",
        "name",
        "number",
        "phone",
        "region",
        "state",
        "street",
        "text",
        "time",
        "title",
        "town",
        "url",
        "username",
        "website",
    ];
    const FORMATS: [&str; 5] = ["yyyy", "hh:mm", "mm/dd", "dd/mm", "..."];
    let item = item.to_lowercase();
    let last = item.rsplit(' ').next().unwrap_or_default();
    // "credit card number" is as empty as "number"; "capital city" may be a kind of place.
    let names = ["address", "code", "id", "name", "number"].contains(&last);
    names
        || WORDS.contains(&item.as_str())
        || item.trim_end_matches('.') == "etc"
        || FORMATS.iter().any(|format| item.contains(format))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(name: &str, schema: &Json) -> Vec<Json> {
        let mut dice = Dice::new(1, 1);
        (0..40).map(|_| draw(name, schema, &mut dice, 0).unwrap()).collect()
    }

    #[test]
    fn numbers_keep_inclusive_and_exclusive_bounds() {
        for schema in [
            json!({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3}),
            json!({"type": "integer", "maximum": -5}),
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.3}),
        ] {
            let validator = jsonschema::validator_for(&schema).unwrap();
            assert!(draws("n", &schema).iter().all(|value| validator.is_valid(value)), "{schema}");
        }
    }

    #[test]
    fn flags_are_set_and_not_set_and_null_is_no_choice() {
        let flags = draws("urgent", &json!({"type": "boolean"}));
        assert!(flags.contains(&json!(true)) && flags.contains(&json!(false)));
        assert!(draws("kind", &json!({"enum": ["a", null]})).iter().all(|value| value == "a"));
    }

    #[test]
    fn words_that_stand_for_values_are_no_examples() {
        assert!(named_examples("Where (e.g., city, zip code, Country name, etc.)").is_empty());
        assert!(named_examples("When (e.g., YYYY-MM-DD)").is_empty());
        assert_eq!(named_examples("Where (e.g., Oslo, 'New York City')"), ["Oslo", "New York City"]);
        let place = json!({"type": "string", "description": "Where (e.g., city)"});
        assert!(draws("location", &place).iter().all(|value| value != "city"));
    }
}
