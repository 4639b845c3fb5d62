//! What is found in conversations that are wrong, and what is left when it is dropped.

use super::*;
use serde_json::{Value as Json, json};
use std::fs;
use tempfile::TempDir;

fn turn(role: &str, content: &str) -> Json {
    json!({"role": role, "content": content})
}

fn call(id: &str, name: &str, arguments: &Json) -> Json {
    let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
    json!({"role": "assistant", "content": null, "tool_calls": [call]})
}

fn result(id: &str) -> Json {
    json!({"role": "tool", "content": "{}", "tool_call_id": id})
}

/// A line with a function `book` that wants one to nine nights.
fn line(messages: &[Json]) -> String {
    let parameters =
        json!({"type": "object", "properties": {"nights": {"type": "integer", "maximum": 9}}, "required": ["nights"]});
    let tool = json!({"type": "function", "function": {"name": "book", "parameters": parameters}});
    json!({"messages": messages, "tools": [tool]}).to_string()
}

fn booked(request: &str, nights: u32) -> String {
    line(&[
        turn("user", request),
        call("a", "book", &json!({"nights": nights})),
        result("a"),
        turn("assistant", "Done."),
    ])
}

struct Scratch(TempDir);

impl Scratch {
    fn new(lines: &[String], test: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train.jsonl"), lines.join("\n")).unwrap();
        fs::write(folder.path().join("test.jsonl"), test.join("\n")).unwrap();
        Self(folder)
    }

    fn options(&self) -> CheckOptions {
        let path = |name: &str| self.0.path().join(name);
        CheckOptions {
            files: vec![path("train.jsonl")],
            against: vec![path("test.jsonl")],
            similarity: 0.8,
            shown: 10,
            ..CheckOptions::default()
        }
    }

    fn fixed(&self, drop: &[Problem]) -> Result<Report, DataError> {
        run(&CheckOptions { drop: drop.to_vec(), out: Some(self.0.path().join("out.jsonl")), ..self.options() })
    }

    fn out(&self) -> Vec<String> {
        fs::read_to_string(self.0.path().join("out.jsonl")).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The problem of a conversation, if it has one.
fn problem(text: String) -> Option<(Problem, String)> {
    let scratch = Scratch::new(&[text], &[]);
    let first = run(&scratch.options()).unwrap().first;
    assert!(first.len() <= 1, "{first:?}");
    first.into_iter().next().map(|finding| (finding.problem, finding.detail))
}

fn assert_problem(text: String, kind: Problem, words: &str) {
    let (found, detail) = problem(text).unwrap();
    assert!(found == kind && detail.contains(words), "{found:?} {detail}");
}

#[test]
fn a_proper_conversation_has_no_problem() {
    assert_eq!(problem(booked("Three nights, please.", 3)), None);
    let again = [
        turn("user", "3"),
        call("a", "book", &json!({"nights": 3})),
        turn("user", "4"),
        call("b", "book", &json!({"nights": 4})),
    ];
    assert_eq!(problem(line(&again)), None, "calls may go without results");
}

/// Two calls in one turn, the results of those named, and an answer.
fn answered(results: &[&str]) -> String {
    let both = json!({"role": "assistant", "content": null, "tool_calls": [
        call("a", "book", &json!({"nights": 1}))["tool_calls"][0], call("b", "book", &json!({"nights": 2}))["tool_calls"][0]]});
    let results = results.iter().map(|id| result(id));
    let messages: Vec<Json> =
        [turn("user", "Two."), both].into_iter().chain(results).chain([turn("assistant", "Done.")]).collect();
    line(&messages)
}

#[test]
fn every_call_of_an_answered_turn_has_one_result_in_any_order() {
    assert_eq!(problem(answered(&["b", "a"])), None);
    assert_problem(answered(&["b"]), Problem::Turns, "messages[3]: the call `a` before it has no result");
    assert_problem(answered(&["a", "b", "a"]), Problem::Turns, "messages[4]: the call `a` has a result already");
}

#[test]
fn functions_have_names_of_their_own() {
    let twice = booked("One.", 1);
    let tool = &twice
        [twice.find("{\"type\":\"function\",\"function\":{\"name\":\"book\",\"parameters\"").unwrap()..twice.len() - 2];
    let twice = twice.replace(tool, &format!("{tool},{tool}"));
    assert_problem(twice, Problem::Schema, "two functions are called `book`");
}

#[test]
fn every_call_is_held_against_its_functions_schema() {
    assert_problem(
        booked("Ten.", 10),
        Problem::Call,
        "call of `book`, at `/nights`: 10 is greater than the maximum of 9",
    );
    let missing = [turn("user", "Some."), call("a", "book", &json!({}))];
    assert_problem(line(&missing), Problem::Call, "\"nights\" is a required property");
    let unknown = [turn("user", "Sing."), call("a", "sing", &json!({}))];
    assert_problem(line(&unknown), Problem::Call, "function `sing` is not offered");
    assert_problem(booked("One.", 1).replace("\"integer\"", "7"), Problem::Schema, "parameters of `book`");
}

#[test]
fn turns_out_of_place_are_found() {
    let done = turn("assistant", "Done.");
    let three = call("a", "book", &json!({"nights": 3}));
    let mut wanted = three.clone();
    wanted["role"] = json!("user");
    for (messages, words) in [
        (vec![done.clone()], "the user does not speak first"),
        (vec![turn("user", "a"), turn("user", "b"), done.clone()], "messages[1]: the same role twice"),
        (vec![turn("user", "a"), done.clone(), done.clone()], "messages[2]: the same role twice"),
        (vec![turn("user", "a")], "the last message is not the assistant's"),
        (vec![turn("user", "a"), turn("assistant", " ")], "the assistant says nothing"),
        (vec![turn("user", " "), done.clone()], "messages[0]: the user says nothing"),
        (vec![wanted, done.clone()], "messages[0]: only the assistant calls"),
        (vec![turn("user", "a"), done.clone(), result("a"), done.clone()], "messages[2]: a result without a call"),
        (
            vec![turn("user", "a"), three.clone(), result("b"), done.clone()],
            "no call of the turn before has the id `b`",
        ),
        (vec![turn("user", "a"), three.clone(), result("a"), three.clone()], "the call id `a` is used twice"),
        (vec![turn("user", "a"), turn("system", "b"), done.clone()], "a system message inside"),
        (vec![turn("user", "a"), three, result("a"), turn("user", "b"), done], "does not answer a result"),
    ] {
        assert_problem(line(&messages), Problem::Turns, words);
    }
}

#[test]
fn rows_that_are_no_conversations_are_unreadable() {
    assert_problem("{\"messages\":".to_owned(), Problem::Unreadable, "cut off");
    assert_problem("{}".to_owned(), Problem::Unreadable, "`messages`: is missing");
}

/// Words enough for many shingles.
fn long(last: &str) -> String {
    let words: String = (0..60).map(|n| format!("room{n} ")).collect();
    format!("Three nights in {words}{last}")
}

#[test]
fn duplicates_near_duplicates_and_overlap_are_found_and_dropped_on_request() {
    let lines = [
        booked(&long("please"), 3),
        booked(&long("please"), 3).replace("\"a\"", "\"other\""),
        booked(&long("thanks"), 3),
        booked("A room of my own.", 2),
        booked("Two  NIGHTS of the test.", 2),
    ];
    let scratch = Scratch::new(&lines, &[booked("Two nights of the test.", 1)]);
    let report = run(&scratch.options()).unwrap();
    let expected = [(Problem::Duplicate, 1), (Problem::NearDuplicate, 1), (Problem::Overlap, 1)];
    assert_eq!(report.found.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!((report.conversations, report.kept, report.left), (5, 5, 3));
    let kinds = expected.map(|(kind, _)| kind);
    let report = scratch.fixed(&kinds).unwrap();
    assert_eq!((report.kept, report.left), (2, 0));
    assert_eq!(report.dropped, kinds.map(|kind| (kind, 1)).into());
    assert_eq!(scratch.out(), [lines[0].clone(), lines[3].clone()]);
}

#[test]
fn a_short_request_and_a_later_one_overlap_with_the_same_call_alone() {
    let later = |request: &str, nights: u32| {
        line(&[
            turn("user", "Book a room for me, please."),
            turn("assistant", "May I?"),
            turn("user", request),
            call("a", "book", &json!({"nights": nights})),
        ])
    };
    let test = [booked("Yes.", 3), booked("Three nights in the tower.", 3)];
    let overlaps = |text: String| {
        let scratch = Scratch::new(&[text], &test);
        run(&scratch.options()).unwrap().found.contains_key(&Problem::Overlap)
    };
    assert!(
        !overlaps(booked("yes.", 4))
            && !overlaps(later("Yes.", 4))
            && !overlaps(later("Three nights in the tower.", 4))
    );
    assert!(
        overlaps(booked("yes.", 3)) && overlaps(later("Yes.", 3)) && overlaps(later("Three nights in the tower.", 3))
    );
    assert!(overlaps(booked("three nights in the tower.", 4)));
}

#[test]
fn what_is_kept_stays_as_it_stands() {
    let own = r#"{"id": 7, "messages": [{"role": "user", "content": "w?", "tag": 1}, {"role": "assistant", "content": "\u0078"}], "meta": {"a": 1.50}}"#;
    let scratch = Scratch::new(&[own.to_owned(), own.to_owned()], &[]);
    assert_eq!(scratch.fixed(&[Problem::Duplicate]).unwrap().kept, 1);
    assert_eq!(scratch.out(), [own]);
}

#[test]
fn what_is_not_to_be_dropped_is_kept_and_reported() {
    let lines = [booked("Ten.", 10), booked("Nine.", 9), booked("Nine.", 9)];
    let scratch = Scratch::new(&lines, &[]);
    let report = scratch.fixed(&[Problem::Duplicate]).unwrap();
    assert_eq!((report.kept, report.left), (2, 1));
    assert_eq!(scratch.out(), lines[..2]);
}

#[test]
fn unreadable_rows_cannot_be_kept_so_nothing_is_written_unless_they_may_go() {
    let scratch = Scratch::new(&[booked("Nine.", 9), "{".to_owned()], &[]);
    let error = scratch.fixed(&[]).unwrap_err().to_string();
    assert!(error.contains("drop-unreadable") && error.contains("train.jsonl:2: unreadable"), "{error}");
    assert!(!scratch.0.path().join("out.jsonl").exists());
    assert_eq!(scratch.fixed(&[Problem::Unreadable]).unwrap().left, 0);
    assert_eq!(scratch.out().len(), 1);
}
