//! The metrics of ViGGO as Levanter's tutorial on fine-tuning for semantic parsing defines them, and strict exact match.
//!
//! Text in, numbers out: knows no model, and no order or type of attributes.

use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static FUNCTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^(\w+)\(").ok());
static ATTRIBUTE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(\w+)\[([^\]]*)\]").ok());

/// What a text says, as far as the metrics look at it. White space around it and capitals do not count.
#[derive(Debug, PartialEq)]
pub struct Meaning {
    /// `None` where the text does not begin with one.
    pub function: Option<String>,
    /// Of several with one name the last.
    pub attributes: BTreeMap<String, String>,
}

/// How close a text comes to the wanted one. All from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Closeness {
    /// Its function is the same.
    pub function: f64,
    /// It has the same attributes, in any order.
    pub attribute_set: f64,
    /// Share of the wanted attributes that it has with the same value; further ones are not held against it.
    pub attribute_values: f64,
    /// It is the same text, letter by letter, but for white space around it.
    pub exact: f64,
}

impl Meaning {
    /// Reads a text, whatever it is.
    pub fn of(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        let function = FUNCTION.as_ref().and_then(|function| Some(function.captures(&text)?[1].to_owned()));
        let attributes = ATTRIBUTE.iter().flat_map(|attribute| attribute.captures_iter(&text));
        Self { function, attributes: attributes.map(|found| (found[1].to_owned(), found[2].to_owned())).collect() }
    }
}

impl Closeness {
    /// Compares a text with the wanted one.
    pub fn of(wanted_text: &str, found_text: &str) -> Self {
        let (wanted, found) = (Meaning::of(wanted_text), Meaning::of(found_text));
        let same = |(name, value): &(&String, &String)| found.attributes.get(*name) == Some(value);
        let right = wanted.attributes.iter().filter(same).count();
        Self {
            function: one_if(wanted.function == found.function),
            attribute_set: one_if(wanted.attributes.keys().eq(found.attributes.keys())),
            attribute_values: match wanted.attributes.len() {
                0 => 1.0,
                count => right as f64 / count as f64,
            },
            exact: one_if(wanted_text.trim() == found_text.trim()),
        }
    }

    /// The plain mean of the three that look inside.
    pub fn overall(&self) -> f64 {
        (self.function + self.attribute_set + self.attribute_values) / 3.0
    }

    /// The means over many.
    pub fn mean(all: &[Self]) -> Self {
        let mean = |part: fn(&Self) -> f64| all.iter().map(part).sum::<f64>() / all.len() as f64;
        Self {
            function: mean(|one| one.function),
            attribute_set: mean(|one| one.attribute_set),
            attribute_values: mean(|one| one.attribute_values),
            exact: mean(|one| one.exact),
        }
    }
}

fn one_if(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "inform(name[Portal 2], genres[puzzle, platformer], has_mac_release[yes])";

    fn closeness(found: &str) -> [f64; 4] {
        let close = Closeness::of(WANTED, found);
        [close.function, close.attribute_set, close.attribute_values, close.exact]
    }

    #[test]
    fn the_same_text_is_right_in_everything() {
        assert_eq!(closeness(&format!(" {WANTED}\n")), [1.0; 4]);
        assert_eq!(Closeness::of(WANTED, WANTED).overall(), 1.0);
    }

    #[test]
    fn capitals_and_order_count_for_exact_match_alone() {
        assert_eq!(closeness(&WANTED.to_uppercase()), [1.0, 1.0, 1.0, 0.0]);
        let turned = "inform(has_mac_release[yes], genres[puzzle, platformer], name[Portal 2])";
        assert_eq!(closeness(turned), [1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn further_attributes_break_the_set_but_not_the_values() {
        let more = "inform(name[Portal 2], genres[puzzle, platformer], has_mac_release[yes], rating[good])";
        assert_eq!(closeness(more), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn values_are_compared_whole_and_a_missing_one_is_wrong() {
        let close = closeness("inform(name[Portal 2], genres[platformer, puzzle])");
        assert_eq!(close, [1.0, 0.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn of_two_attributes_with_one_name_the_last_counts() {
        let close = closeness("inform(name[Portal], genres[puzzle, platformer], has_mac_release[yes], name[Portal 2])");
        assert_eq!(close, [1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn a_function_counts_at_the_beginning_alone() {
        assert_eq!(Meaning::of("I inform(name[x])").function, None);
        assert_eq!(closeness(&format!("It is {WANTED}")), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(closeness(""), [0.0; 4]);
    }

    #[test]
    fn without_wanted_attributes_all_values_are_right() {
        let close = Closeness::of("inform()", "confirm(name[x])");
        assert_eq!((close.function, close.attribute_set, close.attribute_values), (0.0, 0.0, 1.0));
        assert_eq!(close.overall(), 1.0 / 3.0);
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let close = Closeness::of("request_attribute(esrb[])", "request_attribute(esrb[t (for teen)])");
        assert_eq!((close.attribute_set, close.attribute_values), (1.0, 0.0));
    }
}
