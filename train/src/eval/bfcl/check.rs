//! BFCL's rules for the calls of a turn (its AST evaluation): how many, of which functions, with which arguments.
//!
//! Source: ast_checker.py of ShishirPatil/gorilla (Berkeley Function-Calling Leaderboard v4), restated. Pure: calls and gold
//! answers in, a verdict out.

use super::value::{self, Wrong};
use crate::eval::score::Call;
use serde_json::{Map, Value};

/// What is wanted of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One call (`simple`, `multiple`).
    One,
    /// Several, in any order (`parallel`, `parallel_multiple`).
    Several,
    /// None, because no function fits (`irrelevance`).
    Silence,
    /// At least one, whatever it is (`live_relevance`).
    Any,
}

/// A wanted call: a function, and for each argument the values that are allowed; `""` among them means that it may be absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Gold {
    pub function: String,
    pub arguments: Map<String, Value>,
}

/// The first rule that the calls break.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("{found} calls instead of {wanted}")]
    Count { found: usize, wanted: usize },
    #[error("calls `{found}` instead of `{wanted}`")]
    Function { found: String, wanted: String },
    #[error("the required `{0}` is missing")]
    Required(String),
    #[error("`{0}` is not expected")]
    Unexpected(String),
    #[error("`{0}` is of a wrong type")]
    Type(String),
    #[error("`{0}` has a wrong value")]
    Value(String),
    #[error("`{0}` is missing")]
    Missing(String),
    #[error("no call is the wanted one of `{0}`")]
    Unmatched(String),
    #[error("calls a function although none fits")]
    Called,
    #[error("calls nothing")]
    Silent,
    #[error("the arguments of a call are no JSON object")]
    Undecodable,
    #[error("no answer: {0}")]
    Refused(String),
}

impl Fault {
    /// The name under which faults are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Count { .. } => "wrong_count",
            Self::Function { .. } => "wrong_function",
            Self::Required(_) => "missing_required",
            Self::Unexpected(_) => "unexpected_argument",
            Self::Type(_) => "wrong_type",
            Self::Value(_) => "wrong_value",
            Self::Missing(_) => "missing_argument",
            Self::Unmatched(_) => "unmatched_call",
            Self::Called => "unwanted_call",
            Self::Silent => "no_call",
            Self::Undecodable => "undecodable",
            Self::Refused(_) => "refused",
        }
    }
}

/// Checks the calls of a turn. `functions` are those on offer, as the leaderboard's files have them. Calls of which one cannot be
/// decoded are none: wrong, but for silence.
///
/// # Errors
/// The first rule that is broken.
pub fn check(form: Form, functions: &[Value], gold: &[Gold], calls: &[Call]) -> Result<(), Fault> {
    if calls.iter().any(|(_, arguments)| !arguments.is_object()) {
        return if form == Form::Silence { Ok(()) } else { Err(Fault::Undecodable) };
    }
    match form {
        Form::Silence => {
            if calls.is_empty() {
                Ok(())
            } else {
                Err(Fault::Called)
            }
        }
        Form::Any => {
            if calls.is_empty() {
                Err(Fault::Silent)
            } else {
                Ok(())
            }
        }
        _ if calls.is_empty() => Err(Fault::Silent),
        _ if calls.len() != gold.len() => Err(Fault::Count { found: calls.len(), wanted: gold.len() }),
        Form::One => gold.iter().zip(calls).try_for_each(|(gold, call)| check_call(functions, gold, call)),
        Form::Several => check_any_order(functions, gold, calls),
    }
}

/// Each wanted call takes the first that fits of those left.
fn check_any_order(functions: &[Value], gold: &[Gold], calls: &[Call]) -> Result<(), Fault> {
    let mut left: Vec<&Call> = calls.iter().collect();
    for wanted in gold {
        let place = left.iter().position(|call| check_call(functions, wanted, call).is_ok());
        let place = place.ok_or_else(|| Fault::Unmatched(wanted.function.clone()))?;
        left.remove(place);
    }
    Ok(())
}

fn check_call(functions: &[Value], gold: &Gold, (name, arguments): &Call) -> Result<(), Fault> {
    if *name != gold.function {
        return Err(Fault::Function { found: name.clone(), wanted: gold.function.clone() });
    }
    let function = functions.iter().find(|function| function["name"] == gold.function.as_str());
    let schema = function.map_or(&Value::Null, |function| &function["parameters"]);
    let arguments = arguments.as_object().ok_or(Fault::Undecodable)?;
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|name| !arguments.contains_key(*name)) {
        return Err(Fault::Required(missing.to_owned()));
    }
    arguments.iter().try_for_each(|argument| check_argument(schema, gold, argument))?;
    let missing = |(name, values): &(&String, &Value)| !arguments.contains_key(*name) && !may_be_absent(values);
    match gold.arguments.iter().find(missing) {
        Some((name, _)) => Err(Fault::Missing(name.clone())),
        None => Ok(()),
    }
}

fn check_argument(schema: &Value, gold: &Gold, (name, value): (&String, &Value)) -> Result<(), Fault> {
    let known = schema["properties"].get(name).zip(gold.arguments.get(name).and_then(Value::as_array));
    let (schema, allowed) = known.ok_or_else(|| Fault::Unexpected(name.clone()))?;
    value::check(value, allowed, schema).map_err(|wrong| match wrong {
        Wrong::Type => Fault::Type(name.clone()),
        Wrong::Value => Fault::Value(name.clone()),
    })
}

fn may_be_absent(values: &Value) -> bool {
    values.as_array().is_some_and(|values| values.iter().any(|one| one == ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn functions() -> Vec<Value> {
        let parameters = json!({"type": "dict", "required": ["city"], "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"type": "string"}}});
        vec![json!({"name": "get.weather", "parameters": parameters}), json!({"name": "other", "parameters": {}})]
    }

    fn gold(city: &str) -> Gold {
        let arguments = json!({"city": [city], "days": [3], "unit": ["C", ""]});
        Gold { function: "get.weather".to_owned(), arguments: arguments.as_object().unwrap().clone() }
    }

    fn call(arguments: Value) -> Call {
        ("get.weather".to_owned(), arguments)
    }

    fn one(arguments: Value) -> Result<(), Fault> {
        check(Form::One, &functions(), &[gold("Rome")], &[call(arguments)])
    }

    #[test]
    fn one_call_keeps_every_rule() {
        assert_eq!(one(json!({"city": "rome", "days": 3})), Ok(()));
        assert_eq!(one(json!({"unit": "c", "days": 3, "city": "Rome"})), Ok(()));
    }

    #[test]
    fn each_broken_rule_is_named() {
        assert_eq!(one(json!({"days": 3})), Err(Fault::Required("city".to_owned())));
        assert_eq!(one(json!({"city": "Rome"})), Err(Fault::Missing("days".to_owned())));
        assert_eq!(one(json!({"city": "Rome", "days": 3, "at": 1})), Err(Fault::Unexpected("at".to_owned())));
        assert_eq!(one(json!({"city": "Rome", "days": "3"})), Err(Fault::Type("days".to_owned())));
        assert_eq!(one(json!({"city": "Oslo", "days": 3})), Err(Fault::Value("city".to_owned())));
    }

    #[test]
    fn a_call_that_cannot_be_decoded_is_wrong_even_without_required_arguments_and_counts_as_silence() {
        let right = call(json!({"city": "Rome", "days": 3}));
        for broken in [Value::Null, json!("x"), json!([1])] {
            assert_eq!(one(broken.clone()), Err(Fault::Undecodable));
            let optional = Gold { function: "other".to_owned(), arguments: Map::new() };
            let found = check(Form::One, &functions(), &[optional], &[("other".to_owned(), broken.clone())]);
            assert_eq!(found, Err(Fault::Undecodable));
            let calls = [right.clone(), call(broken)];
            assert_eq!(check(Form::Any, &functions(), &[], &calls), Err(Fault::Undecodable));
            assert_eq!(check(Form::Silence, &functions(), &[], &calls), Ok(()));
        }
    }

    #[test]
    fn an_argument_that_the_gold_answer_does_not_have_is_not_expected() {
        let bare = Gold { arguments: json!({"city": ["Rome"]}).as_object().unwrap().clone(), ..gold("Rome") };
        let found = check(Form::One, &functions(), &[bare], &[call(json!({"city": "Rome", "days": 3}))]);
        assert_eq!(found, Err(Fault::Unexpected("days".to_owned())));
    }

    #[test]
    fn one_call_means_one_of_the_right_function() {
        let right = call(json!({"city": "Rome", "days": 3}));
        let found = |calls: &[Call]| check(Form::One, &functions(), &[gold("Rome")], calls);
        assert_eq!(found(&[right.clone(), right]), Err(Fault::Count { found: 2, wanted: 1 }));
        assert_eq!(found(&[]), Err(Fault::Silent));
        let wrong = found(&[("other".to_owned(), json!({"city": "Rome", "days": 3}))]);
        assert_eq!(wrong, Err(Fault::Function { found: "other".to_owned(), wanted: "get.weather".to_owned() }));
    }

    #[test]
    fn several_calls_match_in_any_order_each_once() {
        let (rome, oslo) = (call(json!({"city": "Rome", "days": 3})), call(json!({"city": "Oslo", "days": 3})));
        let found = |calls: &[Call]| check(Form::Several, &functions(), &[gold("Rome"), gold("Oslo")], calls);
        assert_eq!(found(&[oslo.clone(), rome.clone()]), Ok(()));
        assert_eq!(found(&[rome.clone(), rome.clone()]), Err(Fault::Unmatched("get.weather".to_owned())));
        assert_eq!(found(std::slice::from_ref(&rome)), Err(Fault::Count { found: 1, wanted: 2 }));
        assert_eq!(found(&[rome.clone(), oslo, rome]), Err(Fault::Count { found: 3, wanted: 2 }));
    }

    #[test]
    fn where_no_function_fits_silence_is_right_and_where_one_does_any_call() {
        let any = [call(json!({}))];
        assert_eq!(check(Form::Silence, &functions(), &[], &[]), Ok(()));
        assert_eq!(check(Form::Silence, &functions(), &[], &any), Err(Fault::Called));
        assert_eq!(check(Form::Any, &functions(), &[], &any), Ok(()));
        assert_eq!(check(Form::Any, &functions(), &[], &[]), Err(Fault::Silent));
    }
}
