//! What functions return and how the assistant puts it into words. Knows one call at a time.

use super::dice::Dice;
use super::function::{Function, Origin, fill_noun};
use super::request::placeholders;
use super::tables::{Class, Everyday, Noun, Verb};
use super::values::{Kind, Value, capitalise};
use serde_json::{Map, Value as Json, json};

/// The result of one call, and a sentence about it.
pub(super) fn result_of(dice: &mut Dice, function: &Function, arguments: &Map<String, Json>) -> (Json, String) {
    match &function.origin {
        Origin::Everyday(everyday) => everyday_result(dice, function, everyday, arguments),
        Origin::Verb { verb, said } => verb_result(dice, verb, said),
    }
}

fn verb_result(dice: &mut Dice, verb: &'static Verb, said: &Noun) -> (Json, String) {
    let done = capitalise(&fill_noun(dice.pick(&verb.done), said));
    match (verb.class, verb.key) {
        (_, "count") => {
            let count = dice.between(0, 300);
            (json!({"count": count}), format!("There are {count} {}.", said.many))
        }
        (Class::Make, _) => {
            let id =
                Kind::Id(said.one.chars().take(2).collect::<String>().to_uppercase().into()).draw(dice, false).said;
            let answer = if dice.chance(0.6) { format!("{done} Its id is {id}.") } else { done };
            (json!({"id": id, "status": dice.pick(&["created", "ok", "done"])}), answer)
        }
        (Class::Find, _) => {
            let names: Vec<String> = (0..1 + dice.below(3)).map(|_| Kind::Title.draw(dice, false).said).collect();
            let results: Vec<Json> = names.iter().map(|name| json!({"name": name})).collect();
            (json!({"results": results}), format!("I found {}.", super::values::join(&names)))
        }
        (Class::Key, "get" | "check" | "track") | (Class::All, "latest") => {
            let status = dice.pick(&["open", "active", "pending", "closed", "ready", "delayed"]);
            let date = Kind::IsoDate.draw(dice, false).said;
            (json!({"status": status, "date": date}), format!("The {} is {status}, dated {date}.", said.one))
        }
        _ => {
            let result = match dice.below(3) {
                0 => json!({"ok": true}),
                1 => json!({"status": "done"}),
                _ => json!({"success": true}),
            };
            (result, done)
        }
    }
}

fn everyday_result(
    dice: &mut Dice,
    function: &Function,
    everyday: &Everyday,
    arguments: &Map<String, Json>,
) -> (Json, String) {
    let mut said: Vec<(&str, String)> = Vec::new();
    let mut result = Map::new();
    for param in &function.params {
        let place = param.group.map_or(Some(arguments), |g| arguments.get(g).and_then(Json::as_object));
        if let Some(value) = place.and_then(|a| a.get(&param.name)) {
            said.push((param.slot, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
    }
    for (field, kind) in &everyday.result {
        let Value { json, said: text, .. } = kind.draw(dice, false);
        let text = if json.is_string() { text } else { json.to_string() };
        said.push((field, text));
        result.insert((*field).to_owned(), json);
    }
    let known = |text: &&str| placeholders(text).all(|slot| said.iter().any(|(name, _)| *name == slot));
    let sentences: Vec<&str> = everyday.say.iter().copied().filter(known).collect();
    let mut answer = if sentences.is_empty() { "Done.".to_owned() } else { dice.pick(&sentences).to_owned() };
    for (name, text) in &said {
        answer = answer.replace(&format!("{{{name}}}"), text);
    }
    (Json::Object(result), capitalise(&answer))
}
