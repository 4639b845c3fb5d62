//! Families and parameters beyond the tables: further nouns, made-up words, names drawn at random. They keep a model from
//! learning the tables by heart. Knows no sentence.

use super::dice::Dice;
use super::function::Param;
use super::names::Case;
use super::tables::{Family, Key, Noun, tables};
use super::values::{Kind, capitalise};
use std::borrow::Cow;

/// The domain of all open families.
pub(super) const OPEN: &str = "open";

/// A family around a noun that is not from the families' table, with attributes that training families use. Every other one
/// has a second noun for the same thing.
pub(super) fn open_family(dice: &mut Dice, noun: Noun) -> Family {
    let tables = tables();
    let count = 2 + dice.below(4);
    let mut attributes: Vec<(&'static str, bool)> = Vec::new();
    while attributes.len() < count {
        let key = dice.pick(&tables.train_attributes);
        if attributes.iter().all(|(k, _)| *k != key) {
            attributes.push((key, attributes.is_empty() || dice.chance(0.3)));
        }
    }
    let prefix: String = noun.one.chars().filter(char::is_ascii_alphabetic).take(3).collect();
    let key = if dice.chance(0.6) { Key::Id(Cow::Owned(prefix.to_uppercase())) } else { Key::Name };
    let verbs = tables.verbs.iter().map(|v| v.key).collect();
    let mut nouns = vec![noun];
    if dice.chance(0.5) {
        nouns.push(if dice.chance(0.8) { open_noun(dice) } else { made_noun(dice) });
    }
    Family { domain: OPEN, nouns, gloss: "", verbs, key, attributes, held_out: false }
}

/// A noun of the list, or two: "lantern", "castle lantern".
pub(super) fn open_noun(dice: &mut Dice) -> Noun {
    let noun = dice.pick_ref(&tables().open_nouns).clone();
    if !dice.chance(0.35) {
        return noun;
    }
    let first = &dice.pick_ref(&tables().open_nouns).one;
    let compound = |last: &str| Cow::Owned(format!("{first} {last}"));
    Noun { one: compound(&noun.one), many: compound(&noun.many), mass: noun.mass }
}

/// A noun of made-up syllables.
pub(super) fn made_noun(dice: &mut Dice) -> Noun {
    let syllables = 2 + dice.below(2);
    let one = dice.word(syllables);
    Noun { many: Cow::Owned(format!("{one}s")), one: Cow::Owned(one), mass: false }
}

/// A parameter whose name no table holds, such as `valve_count` or `brimlo_mode`. It is said by its name.
pub(super) fn open_attribute(dice: &mut Dice, case: Case) -> (Param, Option<String>) {
    let noun = if dice.chance(0.7) {
        dice.pick_ref(&tables().open_nouns).one.to_string()
    } else {
        let syllables = 2 + dice.below(2);
        dice.word(syllables)
    };
    let (suffix, kind) = match dice.below(9) {
        0 => ("count", Kind::Int(1, 900)),
        1 => ("number", Kind::Int(1, 90)),
        2 => ("length", Kind::Num(0.5, 90.0)),
        3 => ("name", Kind::Title),
        4 => ("owner", Kind::Person),
        5 => ("place", Kind::Pool("city")),
        6 => ("date", Kind::Date),
        7 => ("", Kind::Word),
        _ => ("mode", open_enum(dice)),
    };
    let words = format!("{noun} {suffix}");
    let description = dice.chance(0.6).then(|| capitalise(&format!("the {}.", words.trim())));
    let (name, kind, required) = (case.join(&words), kind.settle(dice), dice.chance(0.5));
    (Param { name, kind, phrases: Vec::new(), required, is_key: false, slot: "", group: None }, description)
}

/// A choice of three to five words.
fn open_enum(dice: &mut Dice) -> Kind {
    let pool = dice.pick(&["adjective", "codename", "color", "material", "genre", "tag", "skill"]);
    let count = 3 + dice.below(3);
    let mut items: Vec<&'static str> = Vec::new();
    while items.len() < count {
        let item = dice.pick(&tables().pool(pool).1);
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Kind::Enum(items)
}
