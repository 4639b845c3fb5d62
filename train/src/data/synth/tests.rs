//! Behaviour of the generator as a whole.

mod pinned;

use super::function::fill_noun;
use super::request::{mandatory, placeholders};
use super::tables::{Class, Noun, tables};
use super::*;
use callsmith::chat::{Role, Tool};
use serde_json::{Map, Value as Json};
use std::collections::{HashMap, HashSet};

fn samples(config: &SynthConfig, count: u64) -> impl Iterator<Item = Sample> + '_ {
    (0..count).map(|index| generate(config, index))
}

#[test]
fn bare_functions_of_the_tables_take_no_arguments() {
    let sources = SourceMix { everyday: 0.0, ..SourceMix::default() };
    let config = SynthConfig { bare: 1.0, nested: 0.0, sources, ..SynthConfig::default() };
    let mut calls = 0;
    for sample in samples(&config, 100) {
        for tool in &sample.conversation.tools {
            let parameters = tool.parameters.as_ref().map(|schema| &schema["properties"]);
            assert!(parameters.is_none_or(|p| p == &Json::Object(Map::new())), "{tool:?}");
        }
        for call in sample.conversation.messages.iter().flat_map(|message| &message.tool_calls) {
            assert_eq!(call.arguments, Json::Object(Map::new()));
            calls += 1;
        }
    }
    assert!(calls > 100);
}

fn held_out() -> SynthConfig {
    SynthConfig { split: Split::HeldOut, ..SynthConfig::default() }
}

/// The message before the answer.
fn user_text<'a>(sample: &'a Sample, turn: &TurnInfo) -> &'a str {
    let message = &sample.conversation.messages[turn.assistant_message - 1];
    assert_eq!(message.role, Role::User);
    &message.content
}

/// Checks arguments by hand: types, enums, required, no others, order of the schema.
fn check_object(schema: &Json, object: &Map<String, Json>) {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let order: Vec<usize> = object
        .keys()
        .map(|k| properties.keys().position(|p| p == k).unwrap_or_else(|| panic!("{k} in {schema}")))
        .collect();
    assert!(order.is_sorted(), "order of {object:?} in {schema}");
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(name.as_str().unwrap()), "{name} is required: {object:?}");
    }
    for (name, value) in object {
        let property = &properties[name];
        match property["type"].as_str().unwrap() {
            "string" => assert!(value.is_string()),
            "integer" => assert!(value.is_i64(), "{value}"),
            "number" => assert!(value.is_number(), "{value}"),
            "boolean" => assert!(value.is_boolean()),
            "array" => assert!(value.as_array().unwrap().iter().all(Json::is_string)),
            "object" => check_object(property, value.as_object().unwrap()),
            other => panic!("type {other}"),
        }
        if let Some(options) = property["enum"].as_array() {
            assert!(options.contains(value));
        }
    }
}

fn strings(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(items) => items.iter().flat_map(strings).collect(),
        Json::Object(map) => map.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

fn numbers(value: &Json) -> Vec<String> {
    match value {
        Json::Number(number) => vec![number.to_string()],
        Json::Object(map) => map.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_call_fits_its_schema_and_says_only_what_the_user_said() {
    const WORDS: [&str; 11] =
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    for config in [SynthConfig::default(), held_out()] {
        for sample in samples(&config, 2500) {
            for turn in &sample.turns {
                let said = user_text(&sample, turn);
                for call in &sample.conversation.messages[turn.assistant_message].tool_calls {
                    let tool = sample.conversation.tools.iter().find(|t| t.name == call.name).unwrap();
                    let none = serde_json::json!({});
                    check_object(tool.parameters.as_ref().unwrap_or(&none), call.arguments.as_object().unwrap());
                    for text in strings(&call.arguments) {
                        assert!(said.to_lowercase().contains(&text.to_lowercase()), "{text:?} is not in {said:?}");
                    }
                    for number in numbers(&call.arguments) {
                        let word =
                            number.parse::<usize>().ok().and_then(|n| n.checked_sub(2)).and_then(|n| WORDS.get(n));
                        let found = said.contains(&number) || word.is_some_and(|w| said.contains(w));
                        assert!(found, "{number} is not in {said:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn values_are_copied_letter_by_letter() {
    let config = SynthConfig::default();
    let (mut same, mut all) = (0, 0);
    for sample in samples(&config, 1500) {
        for turn in &sample.turns {
            let said = user_text(&sample, turn);
            for call in &sample.conversation.messages[turn.assistant_message].tool_calls {
                for text in strings(&call.arguments) {
                    all += 1;
                    same += usize::from(said.contains(&text));
                }
            }
        }
    }
    assert!(same * 1000 >= all * 985, "{same} of {all}");
}

#[test]
fn names_are_legal_and_unique() {
    let legal = |name: &str| {
        (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    for config in [SynthConfig::default(), held_out()] {
        for sample in samples(&config, 1500) {
            let names: HashSet<&str> = sample.conversation.tools.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names.len(), sample.conversation.tools.len());
            assert!(names.iter().all(|name| legal(name)), "{names:?}");
        }
    }
}

#[test]
fn held_out_nouns_never_occur_in_training_names() {
    let mut forbidden: HashSet<String> = HashSet::new();
    let mut allowed: HashSet<String> = HashSet::new();
    for family in &tables().families {
        for noun in &family.nouns {
            let set = if family.held_out { &mut forbidden } else { &mut allowed };
            set.insert(content_words(&noun.one).join(" "));
        }
    }
    assert!(forbidden.is_disjoint(&allowed), "{:?}", forbidden.intersection(&allowed).collect::<Vec<_>>());
    let verbs: Vec<String> = tables().verbs.iter().flat_map(|v| &v.names).map(|n| content_words(n).join(" ")).collect();
    for sample in samples(&SynthConfig::default(), 4000) {
        for tool in &sample.conversation.tools {
            let name = content_words(&tool.name).join(" ");
            let rest = verbs.iter().find_map(|v| name.strip_prefix(&format!("{v} "))).unwrap_or(&name);
            assert!(!forbidden.contains(rest), "{}", tool.name);
        }
    }
    // Open nouns go in pairs: no word of a held-out noun may be among them.
    let words: HashSet<String> = forbidden.iter().flat_map(|noun| content_words(noun)).collect();
    let known: Vec<&Noun> =
        tables().open_nouns.iter().filter(|n| content_words(&n.one).iter().any(|w| words.contains(w))).collect();
    assert!(known.is_empty(), "{known:?}");
}

#[test]
fn a_noun_belongs_to_one_family() {
    let mut owners: HashMap<String, &str> = HashMap::new();
    let mut clashes = Vec::new();
    for family in &tables().families {
        for noun in &family.nouns {
            if let Some(other) = owners.insert(content_words(&noun.one).join(" "), &family.nouns[0].one) {
                clashes.push(format!("{} of {} and {other}", noun.one, family.nouns[0].one));
            }
        }
    }
    for noun in &tables().open_nouns {
        if owners.contains_key(&content_words(&noun.one).join(" ")) {
            clashes.push(format!("open noun {}", noun.one));
        }
    }
    assert!(clashes.is_empty(), "{clashes:#?}");
}

#[test]
fn a_quarter_of_the_families_is_held_out() {
    let families = &tables().families;
    let held = families.iter().filter(|f| f.held_out).count();
    assert!(
        families.len() >= 150 && held * 5 >= families.len() && held * 3 <= families.len(),
        "{held} of {}",
        families.len()
    );
}

#[test]
fn every_table_entry_refers_to_entries_that_exist() {
    let tables = tables();
    for family in &tables.families {
        assert!(family.verbs.iter().any(|v| tables.verb(v).class != Class::All), "{:?}", family.nouns[0]);
        for (key, _) in &family.attributes {
            tables.attribute(key);
        }
    }
    for verb in &tables.verbs {
        assert!(
            verb.ask.len() >= 6 && verb.desc.len() >= 3 && !verb.names.is_empty() && !verb.done.is_empty(),
            "{}",
            verb.key
        );
        verb.extra.iter().for_each(|(key, _)| assert!(!tables.attribute(key).phrases.is_empty()));
        let noun = &tables.families[0].nouns[0];
        assert!(verb.desc.iter().all(|d| !fill_noun(d, noun).contains('{')), "{}", verb.key);
    }
    for section in ["wrap", "wrap_self", "preamble", "after", "system", "chat", "decline", "other", "other_held_out"] {
        assert!(!tables.phrases(section).is_empty());
    }
}

#[test]
fn every_everyday_request_gives_the_required_parameters() {
    for everyday in &tables().everyday {
        assert!(
            everyday.ask.len() >= 5 && !everyday.names.is_empty() && !everyday.far_names.is_empty(),
            "{}",
            everyday.topic
        );
        for ask in &everyday.ask {
            let said = mandatory(ask);
            for param in everyday.params.iter().filter(|p| p.required) {
                assert!(placeholders(&said).any(|s| s == param.key), "{}: `{ask}` lacks {}", everyday.topic, param.key);
            }
            for slot in placeholders(ask) {
                assert!(everyday.params.iter().any(|p| p.key == slot), "{}: `{ask}` has {slot}", everyday.topic);
            }
        }
    }
}

#[test]
fn every_kind_of_value_can_be_drawn() {
    let mut dice = dice::Dice::new(3, 0);
    let attributes = tables().attributes.values().map(|a| &a.kind);
    let everyday =
        tables().everyday.iter().flat_map(|e| e.params.iter().map(|p| &p.kind).chain(e.result.iter().map(|r| &r.1)));
    for kind in attributes.chain(everyday) {
        for _ in 0..40 {
            let value = kind.settle(&mut dice).draw(&mut dice, false);
            assert!(!value.said.is_empty() && !value.json.is_null(), "{kind:?}");
        }
    }
}

#[test]
fn the_same_index_gives_the_same_sample() {
    let config = SynthConfig { seed: 7, ..SynthConfig::default() };
    for index in [0, 5, 1 << 40] {
        let (a, b) = (generate(&config, index), generate(&config, index));
        assert_eq!(crate::data::native::to_json(&a.conversation), crate::data::native::to_json(&b.conversation));
        assert_eq!(a.turns, b.turns);
    }
    let other = SynthConfig { seed: 8, ..SynthConfig::default() };
    assert_ne!(generate(&config, 0).conversation.tools, generate(&other, 0).conversation.tools);
}

#[test]
fn kinds_offers_and_namings_follow_the_configuration() {
    let config = SynthConfig::default();
    let mut kinds: HashMap<Kind, f64> = HashMap::new();
    let mut namings: HashMap<Naming, f64> = HashMap::new();
    let mut offered = [0.0; 5];
    let mut total = 0.0;
    for sample in samples(&config, 4000) {
        offered[sample.conversation.tools.len()] += 1.0 / 4000.0;
        for turn in &sample.turns {
            total += 1.0;
            *kinds.entry(turn.kind).or_default() += 1.0;
            if matches!(turn.kind, Kind::SingleCall) {
                *namings.entry(turn.naming).or_default() += 1.0;
            }
        }
    }
    assert!((2.3..2.7).contains(&(total / 4000.0)));
    let kind = |k| kinds[&k] / total;
    assert!((0.65..0.80).contains(&kind(Kind::SingleCall)), "{kinds:?}");
    assert!((0.04..0.09).contains(&kind(Kind::ParallelSame)), "{kinds:?}");
    assert!((0.02..0.07).contains(&kind(Kind::ParallelDifferent)), "{kinds:?}");
    assert!((0.10..0.15).contains(&kind(Kind::NoCall)), "{kinds:?}");
    assert!(offered[1..].iter().all(|share| (0.2..0.3).contains(share)), "{offered:?}");
    let named: f64 = namings.values().sum();
    let naming = |n| namings[&n] / named;
    assert!((0.55..0.75).contains(&naming(Naming::Overlap)), "{namings:?}");
    assert!((0.10..0.28).contains(&naming(Naming::Synonym)), "{namings:?}");
    assert!((0.10..0.20).contains(&naming(Naming::Unrelated)), "{namings:?}");
}

#[test]
fn parallel_turns_hold_several_calls_and_declines_hold_none() {
    for sample in samples(&SynthConfig::default(), 1500) {
        for turn in &sample.turns {
            let answer = &sample.conversation.messages[turn.assistant_message];
            let names: HashSet<&str> = answer.tool_calls.iter().map(|c| c.name.as_str()).collect();
            match turn.kind {
                Kind::SingleCall => assert_eq!(answer.tool_calls.len(), 1),
                Kind::ParallelSame => assert!(answer.tool_calls.len() >= 2 && names.len() == 1),
                Kind::ParallelDifferent => assert!(answer.tool_calls.len() == 2 && names.len() == 2),
                Kind::NoCall | Kind::Chat => assert!(answer.tool_calls.is_empty() && !answer.content.is_empty()),
            }
            assert!(!answer.content.contains(['{', '}']), "{}", answer.content);
            assert!(!user_text(&sample, turn).contains(['{', '}', '[', '=']), "{}", user_text(&sample, turn));
        }
    }
}

#[test]
fn evaluation_sets_hold_what_they_are_asked_for() {
    for naming in [None, Some(Naming::Overlap), Some(Naming::Synonym), Some(Naming::Unrelated)] {
        let set = eval_set(Split::HeldOut, 200, 9, naming);
        assert_eq!(set.len(), 200);
        let single = set.iter().filter(|s| s.turns[0].kind == Kind::SingleCall).count();
        assert!((100..=185).contains(&single), "{naming:?} {single}");
        let right = |s: &Sample| s.turns[0].kind == Kind::NoCall || naming.is_none_or(|n| n == s.turns[0].naming);
        assert!(set.iter().all(|s| s.turns.len() == 1 && right(s)));
    }
    let parallel = eval_parallel(Split::HeldOut, 100, 9);
    assert!(parallel.iter().all(|s| s.conversation.messages.last().unwrap().tool_calls.len() > 1));
}

#[test]
fn a_wrong_setting_is_named() {
    let error = |config: SynthConfig| config.validate().err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(error(SynthConfig::default()), "");
    assert!(error(SynthConfig { tools: (0, 4), ..SynthConfig::default() }).starts_with("`tools`: must be"));
    assert!(
        error(SynthConfig { results: 1.5, ..SynthConfig::default() }).starts_with("`results`: must be from 0 to 1")
    );
    let nothing = NamingMix { overlap: 0.0, synonym: 0.0, unrelated: 0.0 };
    assert!(error(SynthConfig { naming: nothing, ..SynthConfig::default() }).starts_with("`naming`: weights"));
    let unknown: Result<SynthConfig, _> = serde_json::from_str(r#"{"sead": 1}"#);
    assert!(unknown.is_err_and(|e| e.to_string().contains("unknown field `sead`")));
}

/// The function whose name and description share the most words with the request.
fn lexical_choice<'a>(tools: &'a [Tool], request: &str) -> &'a str {
    let said: HashSet<String> = content_words(request).into_iter().collect();
    let score = |tool: &Tool| {
        let text = format!("{} {}", tool.name, tool.description.as_deref().unwrap_or(""));
        content_words(&text).into_iter().collect::<HashSet<_>>().intersection(&said).count()
    };
    let mut best = &tools[0];
    for tool in tools {
        if score(tool) > score(best) {
            best = tool;
        }
    }
    &best.name
}

#[test]
fn shared_words_alone_do_not_find_the_right_function() {
    for (split, naming, most) in [
        (Split::Train, None, 0.86),
        (Split::HeldOut, None, 0.87),
        (Split::HeldOut, Some(Naming::Overlap), 0.91),
        (Split::HeldOut, Some(Naming::Synonym), 0.80),
        (Split::HeldOut, Some(Naming::Unrelated), 0.87),
    ] {
        let set = eval_set(split, 1500, 4, naming);
        let (mut right, mut all) = (0.0, 0.0);
        for sample in set.iter().filter(|s| s.turns[0].kind == Kind::SingleCall && s.conversation.tools.len() > 1) {
            let turn = &sample.turns[0];
            let called = &sample.conversation.messages[turn.assistant_message].tool_calls[0].name;
            all += 1.0;
            right += f64::from(u8::from(lexical_choice(&sample.conversation.tools, user_text(sample, turn)) == called));
        }
        println!("word overlap finds {:.3} of {all} ({split:?}, {naming:?}, 2-4 functions)", right / all);
        assert!(right / all < most, "{split:?} {naming:?}: {}", right / all);
    }
}
