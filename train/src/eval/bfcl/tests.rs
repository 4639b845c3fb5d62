//! Files of the leaderboard: what is asked, that gold answers are right, and what is refused.

use super::*;
use crate::testing::data_set;
use serde_json::Map;
use std::fs;

const NAMED: &str = r#"{"id":"multiple_0","question":[[{"role":"user","content":"5!"}]],"function":[{"name":"math.factorial","description":"d","parameters":{"type":"dict","properties":{"n":{"type":"integer"},"scale":{"type":"float"}},"required":["n"]}},{"name":"math_factorial","parameters":{"type":"dict","properties":{}}}]}"#;
const GOLD: &str = r#"{"id":"multiple_0","ground_truth":[{"math.factorial":{"n":[5],"scale":["",1.0]}}]}"#;

/// A folder with questions and answers.
fn files(questions: &str, answers: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("questions.json"), questions).unwrap();
    fs::write(root.path().join("answers.json"), answers).unwrap();
    root
}

fn open(root: &tempfile::TempDir, gold: bool) -> Result<Bfcl> {
    let answers = root.path().join("answers.json");
    Bfcl::open(&root.path().join("questions.json"), gold.then_some(answers.as_path()), None)
}

fn called(name: &str, arguments: Value) -> Reply {
    Reply { calls: vec![(name.to_owned(), arguments)], ..Reply::default() }
}

#[test]
fn models_see_standard_types_and_names_without_dots_and_are_judged_by_the_files_own() {
    let bfcl = open(&files(NAMED, GOLD), true).unwrap();
    let tools = &bfcl.cases()[0].conversation.tools;
    assert_eq!((tools[0].name.as_str(), tools[1].name.as_str()), ("math_factorial_2", "math_factorial"));
    let parameters = tools[0].parameters.as_ref().unwrap();
    assert_eq!((&parameters["type"], &parameters["properties"]["scale"]["type"]), (&json!("object"), &json!("number")));
    let judge = |reply| bfcl.judge(&[reply]).metrics;
    assert_eq!(judge(called("math_factorial_2", json!({"n": 5})))["accuracy"], 1.0);
    let wrong = judge(called("math_factorial", json!({"n": 5})));
    assert_eq!((&wrong["accuracy"], &wrong["faults"]), (&json!(0.0), &json!({"wrong_function": 1})));
    assert_eq!(judge(Reply::refusal("too long"))["faults"], json!({"refused": 1}));
}

#[test]
fn irrelevance_needs_no_gold_answers_and_wants_silence() {
    let bfcl = open(&files(&NAMED.replace("multiple_0", "live_irrelevance_0-0-0"), ""), false).unwrap();
    let judged = bfcl.judge(&[called("math_factorial_2", json!({"n": 5}))]);
    assert_eq!(judged.metrics["categories"], json!({"live_irrelevance": 0.0}));
    assert_eq!(judged.verdicts[0].functions, ("(no call)".to_owned(), "math.factorial".to_owned()));
    let words = Reply { text: "No.".to_owned(), ..Reply::default() };
    assert_eq!(bfcl.judge(&[words]).metrics["accuracy"], 1.0);
    assert_eq!(bfcl.judge(&[Reply::refusal("too long")]).metrics["accuracy"], 0.0);
}

#[test]
fn wrong_lines_are_named_by_number_field_and_remedy() {
    let refusal = |questions: &str, answers: &str| open(&files(questions, answers), true).err().unwrap().to_string();
    for (questions, answers, expected) in [
        (format!("{NAMED}\n{{"), GOLD.to_owned(), "questions.json:2: not JSON"),
        (
            NAMED.to_owned(),
            GOLD.replace("multiple_0", "x"),
            "questions.json:1: `id`: no gold answer to multiple_0; name",
        ),
        (NAMED.replace("\"id\":\"multiple_0\"", "\"id\":7"), GOLD.to_owned(), "questions.json:1: `id`: must be a text"),
        (NAMED.replace("multiple_0", "multi_turn_base_0"), GOLD.to_owned(), "multi_turn_base cannot be measured"),
        (
            NAMED.replace("\"function\"", "\"functions\""),
            GOLD.to_owned(),
            "questions.json:1: `function`: must be a list",
        ),
        (NAMED.replace("[[", "[").replace("]]", "]"), GOLD.to_owned(), "questions.json:1: `messages"),
        (NAMED.replace("\"user\"", "\"robot\""), GOLD.to_owned(), "`messages[0].role`: unknown role `robot`"),
        (NAMED.to_owned(), GOLD.replace("ground_truth", "truth"), "answers.json:1: `ground_truth`: must be a list"),
        (
            format!("{NAMED}\n{NAMED}"),
            GOLD.to_owned(),
            "questions.json:2: `id`: multiple_0 is the id of an earlier question",
        ),
        (String::new(), GOLD.to_owned(), "questions.json: holds no question"),
    ] {
        let message = refusal(&questions, &answers);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    let bfcl = open(&files(&format!("\u{feff}{NAMED}"), &format!("\u{feff}{GOLD}")), true).unwrap();
    assert_eq!(bfcl.judge(&[called("math_factorial_2", json!({"n": 5}))]).metrics["accuracy"], 1.0);
}

/// The call that a gold answer describes by its first values.
fn first(gold: &Gold, wanted: &Wanted) -> Call {
    let chosen = |(name, values): (&String, &Value)| {
        let values = values.as_array()?;
        let value = if values.is_empty() { json!([]) } else { of_dicts(values.iter().find(|value| **value != "")?) };
        Some((name.clone(), value))
    };
    let known = |(name, _): &(&String, &Value)| {
        let function = wanted.functions.iter().find(|function| function["name"] == gold.function.as_str()).unwrap();
        function["parameters"]["properties"].get(name).is_some()
    };
    let arguments: Map<String, Value> = gold.arguments.iter().filter(known).filter_map(chosen).collect();
    let seen = wanted.names.iter().find(|(_, given)| *given == gold.function).map(|(seen, _)| seen.clone());
    (seen.unwrap(), Value::Object(arguments))
}

/// In dicts, alone or in a list, each member is again a list of allowed values.
fn of_dicts(value: &Value) -> Value {
    let member = |(name, values): (&String, &Value)| {
        let value = values.as_array()?.iter().find(|value| **value != "")?;
        Some((name.clone(), value.clone()))
    };
    match value {
        Value::Object(dict) => Value::Object(dict.iter().filter_map(member).collect()),
        Value::Array(items) if items.iter().all(Value::is_object) => items.iter().map(of_dicts).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_gold_answer_of_the_leaderboard_is_right() {
    let Some(folder) = data_set("bfcl") else { return };
    let mut rows = 0;
    for category in ["simple_python", "multiple", "parallel", "parallel_multiple", "live_simple"] {
        let file = format!("BFCL_v4_{category}.json");
        let answers = folder.join("possible_answer").join(&file);
        let bfcl = Bfcl::open(&folder.join(&file), Some(&answers), None).unwrap();
        // In their own order: where two gold calls allow the same, the rule gives each the first that fits.
        let calls = |wanted: &Wanted| wanted.gold.iter().map(|gold| first(gold, wanted)).collect();
        let reply = |wanted: &Wanted| Reply { calls: calls(wanted), ..Reply::default() };
        let judged = bfcl.judge(&bfcl.wanted.iter().map(reply).collect::<Vec<_>>());
        let wrong = bfcl.cases().iter().zip(&judged.verdicts).filter(|(_, verdict)| !verdict.right);
        let wrong: Vec<_> = wrong.map(|(case, verdict)| (&case.id, &verdict.fault, &verdict.wanted)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(judged.metrics["accuracy"], 1.0);
        rows += bfcl.cases().len();
    }
    assert_eq!(rows, 1258);
    let silence = Bfcl::open(&folder.join("BFCL_v4_irrelevance.json"), None, None).unwrap();
    assert_eq!(silence.judge(&vec![Reply::default(); silence.cases().len()]).metrics["accuracy"], 1.0);
}
