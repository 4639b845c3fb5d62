//! Each rule with a value that keeps it and one that breaks it.

use super::*;
use serde_json::json;

fn checked(schema: &str, value: &Value, allowed: &Value) -> Result<(), Wrong> {
    let schema = match schema.split_once(" of ") {
        Some((outer, inner)) => json!({"type": outer, "items": {"type": inner}}),
        None => json!({"type": schema}),
    };
    check(value, allowed.as_array().unwrap(), &schema)
}

fn verdicts(table: &[(&str, Value, Value, Result<(), Wrong>)]) {
    for (schema, value, allowed, expected) in table {
        assert_eq!(checked(schema, value, allowed), *expected, "{value} as {schema} among {allowed}");
    }
}

#[test]
fn a_whole_number_is_a_float_but_a_float_is_no_integer() {
    verdicts(&[
        ("float", json!(5), json!([5.0]), Ok(())),
        ("float", json!(5.0), json!([5.0]), Ok(())),
        ("float", json!(5), json!([5]), Ok(())),
        ("integer", json!(5.0), json!([5]), Err(Wrong::Type)),
        ("integer", json!(6), json!([5]), Err(Wrong::Value)),
        ("float", json!("5"), json!([5.0]), Err(Wrong::Type)),
    ]);
}

#[test]
fn a_boolean_is_no_number_and_no_text() {
    verdicts(&[
        ("boolean", json!(true), json!([true]), Ok(())),
        ("boolean", json!(false), json!([true]), Err(Wrong::Value)),
        ("integer", json!(true), json!([1]), Err(Wrong::Type)),
        ("boolean", json!(1), json!([true]), Err(Wrong::Type)),
        ("boolean", json!("true"), json!([true]), Err(Wrong::Type)),
        ("string", json!(null), json!(["a"]), Err(Wrong::Type)),
    ]);
}

#[test]
fn texts_are_compared_without_spaces_signs_and_capitals() {
    verdicts(&[
        ("string", json!("New York, N.Y."), json!(["new-york/ny"]), Ok(())),
        ("string", json!("x^2 * 3"), json!(["X2 3"]), Ok(())),
        ("string", json!("it's"), json!(["IT\"S"]), Ok(())),
        ("string", json!("New York!"), json!(["New York"]), Err(Wrong::Value)),
        ("string", json!("Boston"), json!(["New York", ""]), Err(Wrong::Value)),
        ("string", json!(""), json!(["New York", ""]), Ok(())),
    ]);
}

#[test]
fn a_value_of_the_golds_own_type_stands_for_a_variable() {
    verdicts(&[
        ("integer", json!("user_count"), json!(["user_count"]), Ok(())),
        ("integer", json!("user count"), json!(["user_count"]), Err(Wrong::Value)),
        ("any", json!(5), json!([5]), Ok(())),
        ("any", json!("a b"), json!(["ab"]), Ok(())),
        ("string", json!(5), json!(["5"]), Err(Wrong::Type)),
        ("dict", json!("config"), json!(["config"]), Ok(())),
    ]);
}

#[test]
fn a_list_must_be_one_of_the_allowed_in_order() {
    verdicts(&[
        ("array of integer", json!([1, 2]), json!([[1, 2]]), Ok(())),
        ("array of integer", json!([2, 1]), json!([[1, 2]]), Err(Wrong::Value)),
        ("array of integer", json!([1]), json!([[1, 2]]), Err(Wrong::Value)),
        ("array of integer", json!([1, 2]), json!([[3], [1, 2]]), Ok(())),
        ("array of string", json!(["New York"]), json!([["new_york"]]), Ok(())),
        ("tuple of float", json!([1.5, 2.5]), json!([[1.5, 2.5]]), Ok(())),
        ("array", json!([1, "a"]), json!([[1, "A"]]), Ok(())),
        ("array of integer", json!(1), json!([[1]]), Err(Wrong::Type)),
        ("array of integer", json!([]), json!([]), Ok(())),
        ("array of integer", json!([1]), json!([]), Err(Wrong::Value)),
    ]);
}

#[test]
fn items_of_a_list_are_typed_one_level_deep() {
    verdicts(&[
        ("array of integer", json!([1, "2"]), json!([[1, 2]]), Err(Wrong::Type)),
        ("array of integer", json!([1.0]), json!([[1]]), Err(Wrong::Type)),
        // The gold items' own type is as good as the schema's.
        ("array of float", json!([1, 2]), json!([[1, 2]]), Ok(())),
        ("array of float", json!([1, 2]), json!([[1.0, 2.0]]), Err(Wrong::Type)),
        ("array of array", json!([[1, "x"]]), json!([[[1, "x"]]]), Ok(())),
    ]);
}

#[test]
fn a_dict_has_an_allowed_value_for_each_member() {
    let allowed = json!([{"city": ["New York"], "days": [3, 4], "unit": ["C", ""]}]);
    verdicts(&[
        ("dict", json!({"city": "new york", "days": 4}), allowed.clone(), Ok(())),
        ("dict", json!({"days": 3, "unit": "c", "city": "New York"}), allowed.clone(), Ok(())),
        ("dict", json!({"city": "New York"}), allowed.clone(), Err(Wrong::Value)),
        ("dict", json!({"city": "New York", "days": 5}), allowed.clone(), Err(Wrong::Value)),
        ("dict", json!({"city": "New York", "days": 3, "more": 1}), allowed.clone(), Err(Wrong::Value)),
        ("dict", json!([1]), allowed, Err(Wrong::Type)),
    ]);
}

#[test]
fn dicts_in_a_list_come_in_number_and_order() {
    let allowed = json!([[{"a": [1]}, {"a": [2], "b": ["x", ""]}]]);
    verdicts(&[
        ("array of dict", json!([{"a": 1}, {"a": 2}]), allowed.clone(), Ok(())),
        ("array of dict", json!([{"a": 1}, {"a": 2, "b": "X"}]), allowed.clone(), Ok(())),
        ("array of dict", json!([{"a": 2}, {"a": 1}]), allowed.clone(), Err(Wrong::Value)),
        ("array of dict", json!([{"a": 1}]), allowed.clone(), Err(Wrong::Value)),
        ("array of dict", json!([]), allowed, Err(Wrong::Value)),
    ]);
}

#[test]
fn an_optional_list_of_dicts_may_be_empty() {
    let optional = json!([[{"a": [1]}], ""]);
    verdicts(&[
        ("array of dict", json!([]), optional.clone(), Ok(())),
        ("array of dict", json!([{"a": 1}]), optional.clone(), Ok(())),
        ("array of dict", json!([{"a": 2}]), optional, Err(Wrong::Value)),
    ]);
}
