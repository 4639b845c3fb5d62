//! Rows of Glaive, and each rule on rows that it changes and rows that it leaves.

use super::*;
use crate::data::rows::Flaw;
use callsmith::chat::{Conversation, Message, Role};
use clap::ValueEnum;
use serde_json::json;

const SYSTEM: &str = "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n{\n  \"name\": \"rate\",\n  \"description\": \"d\",\n  \"parameters\": {\"type\": \"object\", \"properties\": {\"to\": {\"type\": \"string\"}}}\n}\n\n{\n  \"name\": \"now\", \"description\": \"t\", \"parameters\": {}\n}\n";
const NONE: &str = "SYSTEM: You are a helpful assistant, with no access to external functions.\n";
const CALL: &str =
    "ASSISTANT: <functioncall> {\"name\": \"rate\", \"arguments\": '{\"to\": \"EUR\"}'} <|endoftext|>\n\n\n";
const RESULT: &str = "FUNCTION RESPONSE: {\"rate\": 2}\n\n\n";

fn clean(rules: &[Rule], system: &str, chat: &str) -> (Result<Option<Conversation>, Flaw>, Vec<&'static str>) {
    let mut counts = Rules::new();
    let read = Glaive::new(rules, 3).row(&json!({"system": system, "chat": chat}), &mut counts);
    (read.map(|read| read.map(|dialogue| dialogue.conversation)), counts.into_keys().collect())
}

/// Who speaks in the cleaned dialogue, and the rules that changed it.
fn roles(rules: &[Rule], chat: &str) -> (String, Vec<&'static str>) {
    let (read, applied) = clean(rules, SYSTEM, chat);
    let letter = |message: &Message| match message.role {
        Role::Assistant if !message.tool_calls.is_empty() => 'c',
        Role::System => 's',
        Role::User => 'u',
        Role::Assistant => 'a',
        Role::Tool => 't',
    };
    let letters = |conversation: Conversation| conversation.messages.iter().map(letter).collect();
    (read.unwrap().map_or("dropped".to_owned(), letters), applied)
}

fn chat(turns: &[(&str, &str)]) -> String {
    turns.iter().map(|(who, text)| format!("{who}: {text} <|endoftext|>\n\n\n")).collect()
}

#[test]
fn a_row_becomes_functions_and_turns() {
    let chat = format!("USER: Rate?\n\n\n{CALL}{RESULT}ASSISTANT: Two, but as an AI, I wonder. <|endoftext|>");
    let (read, applied) = clean(Rule::value_variants(), SYSTEM, &chat);
    let read = read.unwrap().unwrap();
    assert_eq!(read.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["rate", "now"]);
    let call = &read.messages[1].tool_calls[0];
    assert_eq!((call.name.as_str(), &call.arguments), ("rate", &json!({"to": "EUR"})));
    assert!(applied.contains(&"glaive: phrase removed"));
    if let Some(last) = read.messages.get(3) {
        assert_eq!(last.content, "Two, I wonder.");
    }
    let words: Vec<_> = read.messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(words[0], "Rate?");
}

#[test]
fn what_cannot_be_read_is_a_flaw_or_text_as_its_rule_says() {
    let broken_call = "USER: a?\n\n\nASSISTANT: <functioncall> {\"name\": <|endoftext|>";
    let broken_result = format!("USER: a?\n\n\n{CALL}FUNCTION RESPONSE: ok then\n\n\nASSISTANT: Done. <|endoftext|>");
    let broken_tools = SYSTEM.replace("\"name\": \"now\"", "\"name\": now");
    let whole = "USER: a?\n\n\nASSISTANT: Yes. <|endoftext|>";
    for (rule, system, chat, letters) in [
        (Rule::Calls, SYSTEM, broken_call, "ua"),
        (Rule::Results, SYSTEM, &broken_result, "ucta"),
        (Rule::Functions, &broken_tools, whole, "sua"),
    ] {
        let (flawed, applied) = clean(&[rule], system, chat);
        let flaw = flawed.unwrap_err().to_string();
        assert!(flaw.starts_with("unreadable"), "{flaw}");
        assert_eq!(applied, [rule.text()]);
        let text = clean(&[], system, chat).0.unwrap().unwrap();
        assert_eq!(text.messages.len(), letters.len(), "{text:?}");
    }
}

#[test]
fn a_system_text_of_its_own_and_a_turn_that_is_too_short_are_not_lost_silently() {
    let pirate = SYSTEM.replace("a helpful assistant", "a pirate");
    let text = chat(&[("USER", "aa"), ("ASSISTANT", "bb")]);
    let read = clean(&[], &pirate, &text).0.unwrap().unwrap();
    assert_eq!((read.messages[0].role, read.messages[0].content.as_str()), (Role::System, "You are a pirate"));
    let short = chat(&[("USER", "2 + 3?"), ("ASSISTANT", "5")]);
    let (dropped, applied) = clean(&[Rule::Phrases], SYSTEM, &short);
    assert!(dropped.is_err(), "the assistant says nothing");
    assert_eq!(applied, ["glaive: phrase removed"]);
}

#[test]
fn improper_turns_are_dropped() {
    let twice = chat(&[("USER", "aa"), ("USER", "bb"), ("ASSISTANT", "cc")]);
    assert_eq!(roles(&[Rule::Turns], &twice), ("dropped".into(), vec!["glaive: improper turns, dropped"]));
    assert_eq!(roles(&[], &twice).0, "uua");
    let open = chat(&[("USER", "aa"), ("ASSISTANT", "bb"), ("USER", "cc")]);
    assert_eq!(roles(&[Rule::Turns], &open).0, "dropped");
    assert_eq!(roles(&[Rule::Turns], &open[..open.len() / 2 + 8]).0, "ua");
}

#[test]
fn rows_without_functions_are_dropped_on_request() {
    let text = chat(&[("USER", "aa"), ("ASSISTANT", "bb")]);
    assert!(clean(&[Rule::WithoutFunctions], NONE, &text).0.unwrap().is_none());
    assert!(clean(&[Rule::WithoutFunctions], SYSTEM, &text).0.unwrap().is_some());
    assert!(clean(&[], NONE, &text).0.unwrap().unwrap().messages.len() == 2);
}

/// Of 200 rows with a number in the text, how many a rule keeps.
fn kept(rule: Rule, text: impl Fn(usize) -> String) -> usize {
    let mut glaive = Glaive::new(&[rule], 5);
    let row = |number| json!({"system": SYSTEM, "chat": text(number)});
    (0..200).filter(|&number| glaive.row(&row(number), &mut Rules::new()).unwrap().is_some()).count()
}

#[test]
fn frequent_requests_are_thinned_out() {
    let refused = |n| chat(&[("USER", &format!("Can you order {n} pizzas?")), ("ASSISTANT", "I'm sorry, I cannot.")]);
    assert!((8..35).contains(&kept(Rule::Frequent, refused)), "a tenth");
    let stock = |n| chat(&[("USER", &format!("The stock price of {n}?"))]) + CALL + RESULT + "ASSISTANT: Two.";
    assert!((22..60).contains(&kept(Rule::Frequent, stock)), "a fifth");
    let other = |n| chat(&[("USER", &format!("What is {n}?")), ("ASSISTANT", "A number.")]);
    assert_eq!(kept(Rule::Frequent, other), 200);
}

#[test]
fn thanks_and_refusals_at_the_end_are_cut() {
    let thanks = "You're welcome! If you need more, feel free to ask.";
    let long = chat(&[("USER", "aa"), ("ASSISTANT", "bb"), ("USER", "Thanks"), ("ASSISTANT", thanks)]);
    assert_eq!(roles(&[Rule::Endings], &long), ("ua".into(), vec!["glaive: last exchange cut"]));
    assert_eq!(roles(&[], &long).0, "uaua");
    let short = chat(&[("USER", "Thanks"), ("ASSISTANT", thanks)]);
    assert_eq!(roles(&[Rule::Endings], &short).0, "ua");
}

#[test]
fn some_dialogues_end_with_a_question_or_a_call() {
    let asked = |n| {
        chat(&[("USER", &format!("Rate {n}?")), ("ASSISTANT", "To what?"), ("USER", "Euro")])
            + CALL
            + RESULT
            + "ASSISTANT: Two."
    };
    let mut lengths = std::collections::BTreeMap::new();
    for rule in [Rule::Questions, Rule::CallEndings] {
        let mut glaive = Glaive::new(&[rule], 5);
        for number in 0..200 {
            let row = json!({"system": SYSTEM, "chat": asked(number)});
            let read = glaive.row(&row, &mut Rules::new()).unwrap().unwrap();
            *lengths.entry((rule.text(), read.conversation.messages.len())).or_insert(0) += 1;
        }
    }
    let of = |rule: Rule, length| lengths.get(&(rule.text(), length)).copied().unwrap_or(0);
    assert!((70..130).contains(&of(Rule::Questions, 2)), "half: {lengths:?}");
    assert!((90..150).contains(&of(Rule::CallEndings, 4)), "six in ten: {lengths:?}");
    assert_eq!(of(Rule::Questions, 2) + of(Rule::Questions, 6), 200);
}

#[test]
fn a_dialogue_that_was_there_is_dropped() {
    let text = chat(&[("USER", "aa"), ("ASSISTANT", "bb")]);
    assert_eq!(kept(Rule::Duplicates, |_| text.clone()), 1);
    assert_eq!(kept(Rule::Duplicates, |n| format!("{text}USER: {n}{n}")), 200);
}
