//! Behaviour of the world and its dialogues as a whole.

use super::families::{Family, Op, Part, families};
use super::kind::Kind;
use super::verify::{Flaw, check};
use super::*;
use crate::data::synth::Split;
use callsmith::chat::{Message, Role};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

mod language;
mod shapes;
mod tables;
mod tampering;

fn only(class: Class) -> WorldConfig {
    WorldConfig { classes: BTreeMap::from([(class, 1.0)]), ..WorldConfig::default() }
}

fn held_out() -> WorldConfig {
    WorldConfig { split: Split::HeldOut, ..WorldConfig::default() }
}

fn samples(config: &WorldConfig, count: u64) -> Vec<Sample> {
    (0..count).map(|index| generate(config, index).unwrap()).collect()
}

/// A dialogue with what it is verified against.
fn scripted(config: &WorldConfig, class: Class, index: u64) -> (Sample, Script) {
    let (sample, script, ()) = attempts(config, index, class, |scene| skeletons::act_out(scene, class)).unwrap();
    (sample, script)
}

fn messages(sample: &Sample) -> &[Message] {
    &sample.dialogue.conversation.messages
}

#[test]
fn a_dialogue_depends_on_configuration_and_index_alone() {
    let config = WorldConfig::default();
    let line = |sample: &Sample| crate::data::native::dialogue_to_json(&sample.dialogue).to_string();
    let forward: Vec<String> = samples(&config, 60).iter().map(line).collect();
    let backward: Vec<String> = (0..60).rev().map(|index| line(&generate(&config, index).unwrap())).collect();
    assert!(forward.iter().eq(backward.iter().rev()));
    let other = WorldConfig { seed: 2, ..WorldConfig::default() };
    assert_ne!(line(&generate(&other, 0).unwrap()), forward[0]);
    assert_eq!(forward.iter().collect::<BTreeSet<_>>().len(), forward.len());
}

#[test]
fn all_classes_appear_by_weight() {
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    for sample in samples(&WorldConfig::default(), 1000) {
        *counts.entry(sample.class).or_default() += 1;
    }
    assert_eq!(counts.len(), Class::ALL.len(), "{counts:?}");
    assert!(counts[&Class::Single] > 2 * counts[&Class::Chat], "{counts:?}");
    assert!(samples(&only(Class::Chat), 20).iter().all(|sample| sample.class == Class::Chat));
}

/// Draws that verification refuses are made good by further draws; if they were many, skeletons would be wrong.
#[test]
fn hardly_any_scene_that_is_acted_out_has_a_flaw() {
    for config in [WorldConfig::default(), held_out()] {
        for class in Class::ALL {
            let (mut done, mut flaws) = (0, Vec::new());
            for index in 0..150 {
                let mut scene = Scene::new(&config, Dice::new(9, index));
                if skeletons::act_out(&mut scene, class).is_ok() {
                    let (sample, script) = scene.finish(class);
                    done += 1;
                    flaws.extend(check(&sample, &script).err().map(|flaw| (index, flaw)));
                }
            }
            assert!(done > 20, "{class:?} can hardly be acted out: {done}");
            assert!(
                flaws.len() * 50 <= done,
                "{class:?}: {} of {done}: {:?}",
                flaws.len(),
                &flaws[..flaws.len().min(4)]
            );
        }
    }
}

#[test]
fn families_of_one_split_never_appear_in_the_other() {
    let train: Vec<&Family> = families(Split::Train);
    let held: Vec<&Family> = families(Split::HeldOut);
    assert!(held.len() >= 4 && held.len() * 4 >= train.len());
    let names = |families: &[&'static Family]| -> BTreeSet<&str> {
        families.iter().flat_map(|family| &family.functions).flat_map(|function| function.names.clone()).collect()
    };
    assert_eq!(names(&train).intersection(&names(&held)).count(), 0);
    for (config, others) in [(WorldConfig::default(), held), (held_out(), train)] {
        for sample in samples(&config, 300) {
            let text = crate::data::native::dialogue_to_json(&sample.dialogue).to_string();
            for family in &others {
                // A number plate may end in the same letters.
                let mut ids = text.match_indices(family.prefix).filter(|(at, prefix)| {
                    text[at + prefix.len()..].starts_with('-') && !text[..*at].ends_with(char::is_alphanumeric)
                });
                assert_eq!(ids.next(), None, "{}: {text}", family.one);
            }
        }
    }
}

#[test]
fn noise_and_distractors_are_as_many_as_configured() {
    let quiet = Noise { rename: 0.0, meaningless: 0.0, shuffle: 0.0, unicode: 0.0, chatter: 0.0, ..Noise::default() };
    let plain = WorldConfig { distractors: (0, 0), noise: quiet, ..only(Class::Single) };
    let usual: BTreeSet<&str> =
        families(Split::Train).iter().flat_map(|family| &family.functions).map(|function| function.names[0]).collect();
    for sample in samples(&plain, 60) {
        let tools = &sample.dialogue.conversation.tools;
        assert_eq!(tools.len(), 1);
        let words: String = tools[0].name.replace('-', "_").to_lowercase().replace('_', "");
        assert!(usual.iter().any(|name| name.replace('_', "") == words), "{}", tools[0].name);
    }
    let many = WorldConfig { distractors: (20, 20), ..only(Class::Single) };
    assert!(samples(&many, 20).iter().all(|sample| sample.dialogue.conversation.tools.len() == 21));
    let crowded = WorldConfig { distractors: (0, 2), ..only(Class::Distractors) };
    assert!(samples(&crowded, 20).iter().all(|sample| sample.dialogue.conversation.tools.len() == 6));
    let renamed = WorldConfig { noise: Noise { meaningless: 1.0, ..Noise::default() }, ..only(Class::Single) };
    assert!(
        samples(&renamed, 40)
            .iter()
            .flat_map(|sample| &sample.dialogue.conversation.tools)
            .all(|tool| tool.description.is_some())
    );
}

#[test]
fn a_configuration_is_checked_by_name() {
    let read = |text: &str| toml::from_str::<WorldConfig>(text).map_err(|error| error.to_string());
    assert!(read("classes = { singel = 1.0 }").unwrap_err().contains("singel"));
    assert!(read("noise = { typos = 0.1 }").unwrap_err().contains("typos"));
    assert!(read("tools = [1, 2]").unwrap_err().contains("tools"));
    let refused = |text: &str| read(text).unwrap().validate().unwrap_err().to_string();
    assert!(refused("classes = { single = -1.0 }").contains("`classes`"));
    assert!(refused("classes = {}").contains("`classes`"));
    assert!(refused("distractors = [3, 2]").contains("`distractors`"));
    assert!(refused("distractors = [0, 21]").contains("`distractors`"));
    assert!(refused("noise = { unicode = 1.5 }").contains("`noise.unicode`"));
    read("seed = 3\nsplit = \"held_out\"\nclasses = { single = 2, tool_error = 1 }").unwrap().validate().unwrap();
}

#[test]
fn a_pair_shows_another_call_of_the_same_function() {
    for index in 0..200 {
        let pair = pairs::pair(&WorldConfig::default(), index).unwrap();
        let (example, call) = (&pair["input"]["function_call_example"], &pair["output"]["function_call"]);
        assert!(pair["instruction"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(pair["input"]["user_question"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(example["name"], call["name"]);
        let arguments = call["arguments"].as_object().unwrap();
        assert!(!arguments.is_empty());
        let shown = |name: &str| example["arguments"].get(name);
        assert!(arguments.iter().all(|(name, value)| shown(name).is_some_and(|other| other != value)), "{pair}");
    }
}
