//! Counting what was right: function, whole call, call or no call; apart by naming, number offered and word order.
//!
//! Knows no model and no generator: wanted and found calls in, a table out.

use super::judged::Figure;
use crate::loss::Ratio;
use callsmith::chat::Message;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A function's name and its arguments.
pub type Call = (String, Value);

/// What a turn wants of the assistant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Single,
    /// Several calls of one function.
    ParallelSame,
    /// Calls of several functions.
    ParallelDifferent,
    /// Words, because no function fits.
    NoCall,
    /// Words, because nothing was asked for.
    Chat,
}

impl Class {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single call",
            Self::ParallelSame => "parallel calls, one function",
            Self::ParallelDifferent => "parallel calls, several functions",
            Self::NoCall => "no call",
            Self::Chat => "small talk",
        }
    }
}

/// One wanted turn.
#[derive(Debug, Clone)]
pub struct Turn {
    pub class: Class,
    /// Of generated turns.
    pub detail: Option<Detail>,
    pub calls: Vec<Call>,
    /// What its dialogue is an example of.
    pub scenario: Option<String>,
}

/// What the generator knows of a turn.
#[derive(Debug, Clone)]
pub struct Detail {
    pub naming: String,
    /// Functions to choose from.
    pub offered: usize,
    pub noun_last: bool,
}

/// Right functions and right whole calls of one group of turns.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    function: Ratio,
    exact: Ratio,
}

/// All counts of an evaluation.
#[derive(Debug, Clone, Default)]
pub struct Score {
    groups: BTreeMap<String, Cell>,
    /// Turns that want no call: those without one.
    no_call: Ratio,
    /// Small talk: turns without a call.
    chat: Ratio,
    /// Turns that want a call: those without one (the fewer the better).
    false_no_call: Ratio,
    /// All turns: those answered as wanted, by what their dialogues are examples of.
    scenarios: BTreeMap<String, Ratio>,
}

impl Score {
    /// Counts a turn and the calls that were made in it; returns whether it was answered as wanted. Without any answer (`None`)
    /// it was not, also where silence is wanted.
    pub fn add(&mut self, turn: &Turn, calls: Option<&[Call]>) -> bool {
        let right = self.judge(turn, calls);
        if let Some(scenario) = &turn.scenario {
            self.scenarios.entry(scenario.clone()).or_default().add(right);
        }
        right
    }

    fn judge(&mut self, turn: &Turn, calls: Option<&[Call]>) -> bool {
        let silent = calls.is_some_and(<[Call]>::is_empty);
        match turn.class {
            Class::NoCall => self.no_call.add(silent),
            Class::Chat => self.chat.add(silent),
            Class::Single | Class::ParallelSame | Class::ParallelDifferent => {
                return self.add_call(turn, calls.unwrap_or_default());
            }
        }
        silent
    }

    fn add_call(&mut self, turn: &Turn, calls: &[Call]) -> bool {
        let (function, exact) = (same_functions(&turn.calls, calls), same_calls(&turn.calls, calls));
        self.false_no_call.add(calls.is_empty());
        for group in groups(turn) {
            let cell = self.groups.entry(group).or_default();
            cell.function.add(function);
            cell.exact.add(exact);
        }
        exact
    }

    /// The numbers for people.
    pub fn figures(&self) -> Vec<Figure> {
        let cell = |(name, cell): (&String, &Cell)| {
            [Figure::of(format!("{name}: function"), cell.function), Figure::of(format!("{name}: exact"), cell.exact)]
        };
        let silence = [
            Figure::of("no call recognised", self.no_call),
            Figure::of("small talk without a call", self.chat),
            Figure::of("false no-call", self.false_no_call),
        ];
        let scenarios = self.scenarios.iter().map(|(name, &right)| Figure::of(format!("class {name}"), right));
        self.groups.iter().flat_map(cell).chain(silence).chain(scenarios).collect()
    }

    /// The same numbers for programs.
    pub fn to_json(&self) -> Value {
        let share = |ratio: Ratio| json!({"right": ratio.right, "total": ratio.total, "share": ratio.share()});
        let cell = |cell: &Cell| json!({"turns": cell.exact.total, "function": cell.function.share(), "exact": cell.exact.share()});
        let groups: Map<String, Value> = self.groups.iter().map(|(name, found)| (name.clone(), cell(found))).collect();
        let scenarios: Map<String, Value> =
            self.scenarios.iter().map(|(name, &right)| (name.clone(), share(right))).collect();
        json!({
            "groups": groups,
            "classes": scenarios,
            "no_call_recognised": share(self.no_call),
            "small_talk_without_call": share(self.chat),
            "false_no_call": share(self.false_no_call),
        })
    }
}

/// The groups a call turn belongs to. The splits by naming, number and word order are of single calls.
fn groups(turn: &Turn) -> Vec<String> {
    let mut groups = vec![turn.class.name().to_owned()];
    if matches!(turn.class, Class::ParallelSame | Class::ParallelDifferent) {
        groups.push("parallel calls".to_owned());
    }
    if let (Class::Single, Some(detail)) = (turn.class, &turn.detail) {
        let order = if detail.noun_last { "noun last" } else { "noun not last" };
        let few = (detail.offered <= 4).then(|| "single call, 1-4 offered".to_owned());
        groups.extend(few);
        groups.extend([
            format!("single call, naming {}", detail.naming),
            format!("single call, {:>2} offered", detail.offered),
            format!("single call, {order}"),
        ]);
    }
    groups
}

/// The calls of an assistant message.
pub fn calls_of(message: &Message) -> Vec<Call> {
    message.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
}

/// Whether the functions are those that are wanted, in any order.
pub fn same_functions(wanted: &[Call], found: &[Call]) -> bool {
    matches(wanted, found, |wanted, found| wanted.0 == found.0)
}

/// Whether the arguments are too.
pub fn same_calls(wanted: &[Call], found: &[Call]) -> bool {
    matches(wanted, found, |wanted, found| wanted.0 == found.0 && same(&wanted.1, &found.1))
}

/// Whether the two lists pair up, in any order.
fn matches<T>(wanted: &[T], found: &[T], equal: impl Fn(&T, &T) -> bool) -> bool {
    let mut left: Vec<&T> = found.iter().collect();
    let each = wanted.iter().all(|wanted| {
        let place = left.iter().position(|&found| equal(wanted, found));
        place.map(|place| left.swap_remove(place)).is_some()
    });
    each && left.is_empty()
}

/// Equality of JSON values: 1 equals 1.0, the order of fields does not matter.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(class: Class, calls: &[(&str, Value)]) -> Turn {
        let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), arguments.clone())).collect();
        let detail = Detail { naming: "overlap".into(), offered: 3, noun_last: false };
        Turn { class, detail: Some(detail), calls, scenario: None }
    }

    fn add(score: &mut Score, wanted: &Turn, calls: &[(&str, Value)]) -> bool {
        score.add(wanted, Some(&turn(Class::Single, calls).calls))
    }

    #[test]
    fn arguments_are_compared_as_values() {
        let mut score = Score::default();
        let wanted = turn(Class::Single, &[("f", json!({"a": 1, "b": [2.0]}))]);
        assert!(add(&mut score, &wanted, &[("f", json!({"b": [2], "a": 1.0}))]));
        assert!(!add(&mut score, &wanted, &[("f", json!({"a": "1", "b": [2]}))]));
        assert!(!add(&mut score, &wanted, &[("g", json!({"a": 1, "b": [2]}))]));
        assert!(!add(&mut score, &wanted, &[]));
        let json = score.to_json();
        assert_eq!(json["groups"]["single call"], json!({"turns": 4, "function": 0.5, "exact": 0.25}));
        assert_eq!(json["groups"]["single call, noun not last"]["turns"], 4);
        assert_eq!(json["false_no_call"]["share"], 0.25);
    }

    #[test]
    fn parallel_calls_match_in_any_order_but_in_number() {
        let mut score = Score::default();
        let (a, b) = (("f", json!({"x": 1})), ("f", json!({"x": 2})));
        let wanted = turn(Class::ParallelSame, &[a.clone(), b.clone()]);
        assert!(add(&mut score, &wanted, &[b.clone(), a.clone()]));
        assert!(!add(&mut score, &wanted, &[a.clone(), a.clone()]));
        assert!(!add(&mut score, &wanted, &[a.clone(), b, a]));
        assert_eq!(score.to_json()["groups"]["parallel calls"]["function"], 2.0 / 3.0);
    }

    #[test]
    fn turns_are_counted_by_the_class_of_their_dialogue() {
        let mut score = Score::default();
        let wanted = Turn { scenario: Some("chat".to_owned()), ..turn(Class::Chat, &[]) };
        assert!(add(&mut score, &wanted, &[]));
        assert!(!add(&mut score, &wanted, &[("f", json!({}))]));
        add(&mut score, &turn(Class::Chat, &[]), &[]);
        assert_eq!(score.to_json()["classes"], json!({"chat": {"right": 1, "total": 2, "share": 0.5}}));
        assert!(score.figures().contains(&Figure { name: "class chat".to_owned(), share: Some(0.5), of: 2 }));
    }

    #[test]
    fn a_call_where_none_is_wanted_counts_against_the_recall() {
        let mut score = Score::default();
        assert!(add(&mut score, &turn(Class::NoCall, &[]), &[]));
        assert!(!add(&mut score, &turn(Class::NoCall, &[]), &[("f", json!({}))]));
        assert!(add(&mut score, &turn(Class::Chat, &[]), &[]));
        assert_eq!(score.to_json()["no_call_recognised"], json!({"right": 1, "total": 2, "share": 0.5}));
        let no_call = Figure { name: "no call recognised".to_owned(), share: Some(0.5), of: 2 };
        assert!(score.figures().contains(&no_call));
    }

    #[test]
    fn without_an_answer_not_even_silence_is_right() {
        let mut score = Score::default();
        for class in [Class::NoCall, Class::Chat] {
            assert!(!score.add(&turn(class, &[]), None));
        }
        assert!(!score.add(&turn(Class::Single, &[("f", json!({}))]), None));
        let none = json!({"right": 0, "total": 1, "share": 0.0});
        let found = score.to_json();
        assert_eq!((&found["no_call_recognised"], &found["small_talk_without_call"]), (&none, &none));
        assert_eq!(found["groups"]["single call"], json!({"turns": 1, "function": 0.0, "exact": 0.0}));
        assert_eq!(found["false_no_call"]["share"], 1.0);
    }
}
