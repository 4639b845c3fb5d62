//! What is said: answers that answer, in words that hold together.

use super::*;
use crate::data::world::families::Ask;
use crate::data::world::speech::plain;

fn said_by(sample: &Sample, role: Role) -> impl Iterator<Item = &str> {
    messages(sample).iter().filter(move |message| message.role == role).map(|message| message.content.as_str())
}

fn of_all_classes(count: u64) -> Vec<Sample> {
    [WorldConfig::default(), held_out()].iter().flat_map(|config| samples(config, count)).collect()
}

#[test]
fn a_field_that_is_asked_for_is_named() {
    let asks: Vec<(&Family, &Ask)> = [Split::Train, Split::HeldOut]
        .into_iter()
        .flat_map(families)
        .flat_map(|family| family.functions.iter().flat_map(move |f| f.ask.iter().map(move |ask| (family, ask))))
        .collect();
    let mut named = 0;
    for sample in of_all_classes(500).iter().filter(|sample| sample.class == Class::Single) {
        let request = said_by(sample, Role::User).next().unwrap().to_lowercase();
        let about = |(family, ask): &&(&'static Family, &Ask)| {
            ask.about.is_some() && request.contains(&format!("{} ", ask.text)) && request.contains(family.one)
        };
        let Some((family, ask)) = asks.iter().find(about) else { continue };
        let field = &family.fields[ask.about.unwrap()];
        let result: Json = serde_json::from_str(said_by(sample, Role::Tool).last().unwrap()).unwrap();
        let answer = said_by(sample, Role::Assistant).nth(1).unwrap();
        let value = result.get(field.name).map(plain).unwrap_or_default();
        assert!(answer.contains(&value) || answer.contains("know of"), "{request}: {answer}");
        named += 1;
    }
    assert!(named > 10, "{named}");
}

#[test]
fn what_is_declined_is_said_from_the_assistants_side() {
    for sample in samples(&only(Class::Irrelevant), 200) {
        assert_eq!(sample.turns.last().map(|turn| turn.does), Some(Move::Decline), "nobody gives thanks for a refusal");
        let text = said_by(&sample, Role::Assistant).last().unwrap().replace("my functions", "the functions");
        let mut words = text.split([' ', '.', ':']);
        assert!(!words.any(|word| ["my", "me"].contains(&word)), "{text}");
    }
}

#[test]
fn one_is_not_many() {
    for sample in of_all_classes(400) {
        for text in said_by(&sample, Role::Assistant) {
            let many = |family: &Family| text.contains(&format!(" 1 {}", family.many));
            assert!(![Split::Train, Split::HeldOut].into_iter().flat_map(families).any(many), "{text}");
            assert!(!(text.starts_with("There is ") && text.ends_with(" more.")), "{text}");
            assert!(!text.contains(": true") && !text.contains("favorite no"), "{text}");
        }
    }
}

#[test]
fn no_record_is_fetched_that_has_just_been_shown() {
    for sample in of_all_classes(500) {
        let results: Vec<Json> = said_by(&sample, Role::Tool).map(|text| serde_json::from_str(text).unwrap()).collect();
        for (at, later) in results.iter().enumerate().filter(|(_, result)| result.as_object().unwrap().len() > 3) {
            let inside = |earlier: &Json| {
                let mut listed = earlier.as_object().unwrap().values().filter_map(Json::as_array).flatten();
                earlier == later || listed.any(|record| record == later)
            };
            assert!(!results[..at].iter().any(inside), "{later}");
        }
    }
}

#[test]
fn chatter_stands_beside_whole_sentences_of_requests() {
    let noise = Noise { chatter: 1.0, careless: 0.0, ..Noise::default() };
    let config = WorldConfig { noise, ..WorldConfig::default() };
    let afterwards = phrases("after");
    for sample in samples(&config, 300) {
        for text in said_by(&sample, Role::User) {
            if let Some(before) = afterwards.iter().find_map(|after| text.strip_suffix(after)) {
                assert!(before.trim_end().ends_with(['.', '?', '!', '"']), "{text}");
            }
            assert!(
                phrases("yes").iter().chain(phrases("no")).all(|reply| !text.starts_with(&format!("{reply} "))),
                "{text}"
            );
        }
    }
}
