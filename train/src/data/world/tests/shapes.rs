//! What a dialogue of each class looks like.

use super::*;
use serde_json::Value as Json;

/// The calls of each assistant turn that makes any.
fn turns(sample: &Sample) -> Vec<Vec<&callsmith::chat::ToolCall>> {
    let calling = messages(sample).iter().filter(|message| !message.tool_calls.is_empty());
    calling.map(|message| message.tool_calls.iter().collect()).collect()
}

/// What the assistant does, turn by turn; a turn that is not trained on is left out.
fn moves(sample: &Sample) -> Vec<Move> {
    sample.turns.iter().map(|turn| turn.does).filter(|does| *does != Move::Chat).collect()
}

fn results(sample: &Sample) -> Vec<Json> {
    let tool = messages(sample).iter().filter(|message| message.role == Role::Tool);
    tool.map(|message| serde_json::from_str(&message.content).unwrap()).collect()
}

fn failed(result: &Json) -> Option<&str> {
    result["error"]["code"].as_str()
}

/// What users have said up to a message.
fn said_before(sample: &Sample, end: usize) -> String {
    let users = messages(sample)[..end].iter().filter(|message| message.role == Role::User);
    users.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

fn strings(value: &Json) -> Vec<&str> {
    match value {
        Json::String(text) => vec![text],
        Json::Array(items) => items.iter().flat_map(strings).collect(),
        Json::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

fn of(class: Class) -> Vec<Sample> {
    let mut all = samples(&only(class), 40);
    all.extend(samples(&WorldConfig { split: Split::HeldOut, ..only(class) }, 15));
    all
}

#[test]
fn single_calls_stand_alone_and_distractors_crowd() {
    for sample in of(Class::Single) {
        assert_eq!(moves(&sample), [Move::Call, Move::Answer]);
        assert_eq!(turns(&sample).concat().len(), 1);
    }
    assert!(of(Class::Distractors).iter().all(|sample| sample.dialogue.conversation.tools.len() > 5));
}

#[test]
fn parallel_calls_are_of_one_turn() {
    for sample in of(Class::ParallelSame) {
        let turns = turns(&sample);
        assert!(turns.len() == 1 && turns[0].len() >= 2);
        assert!(turns[0].iter().all(|call| call.name == turns[0][0].name));
        assert!(turns[0].iter().skip(1).all(|call| call.arguments != turns[0][0].arguments));
    }
    for sample in of(Class::ParallelDifferent) {
        let turns = turns(&sample);
        let names: BTreeSet<&str> = turns[0].iter().map(|call| call.name.as_str()).collect();
        assert!(turns.len() == 1 && names.len() == turns[0].len() && names.len() >= 2);
    }
}

#[test]
fn a_dependent_call_takes_an_argument_that_only_an_earlier_result_holds() {
    let mut longest = 0;
    for class in [Class::Dependent, Class::ParallelThenDependent] {
        for sample in of(class) {
            let calling: Vec<usize> =
                (0..messages(&sample).len()).filter(|&at| !messages(&sample)[at].tool_calls.is_empty()).collect();
            longest = longest.max(calling.len());
            assert!((2..=6).contains(&calling.len()));
            let taken = calling[1..].iter().any(|&at| {
                let said = said_before(&sample, at);
                let earlier: String = messages(&sample)[..at]
                    .iter()
                    .filter(|m| m.role == Role::Tool)
                    .map(|m| m.content.clone())
                    .collect();
                let calls = &messages(&sample)[at].tool_calls;
                calls
                    .iter()
                    .flat_map(|call| strings(&call.arguments))
                    .any(|text| !said.contains(text) && earlier.contains(text))
            });
            assert!(taken, "{:#?}", messages(&sample));
            if class == Class::ParallelThenDependent {
                assert_eq!(turns(&sample).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
            }
        }
    }
    assert!(longest >= 4, "{longest}");
}

#[test]
fn what_is_missing_or_impossible_is_asked_for_before_the_call() {
    for class in [Class::MissingArgument, Class::InvalidValue] {
        for sample in of(class) {
            let moves = moves(&sample);
            let asked = moves.iter().position(|does| *does == Move::Ask).unwrap();
            assert!(moves[asked + 1..].starts_with(&[Move::Call, Move::Answer]), "{moves:?}");
            let unknown_id = class == Class::InvalidValue && asked == 1;
            assert!(asked == 0 || unknown_id, "{moves:?}");
            if unknown_id {
                assert_eq!(failed(&results(&sample)[0]), Some("not_found"));
            }
        }
    }
}

#[test]
fn errors_lead_to_another_try_another_function_or_a_report() {
    let mut seen = BTreeSet::new();
    for sample in of(Class::ToolError) {
        let results = results(&sample);
        let code = failed(&results[0]).unwrap().to_owned();
        let turns = turns(&sample);
        assert!(turns.len() <= 3, "no more than three tries");
        match code.as_str() {
            "timeout" if turns.len() == 1 => assert_eq!(moves(&sample), [Move::Call, Move::Report]),
            "rate_limited" | "timeout" => {
                assert!(turns.len() > 1 && turns.iter().all(|turn| turn[0].arguments == turns[0][0].arguments))
            }
            "permission_denied" | "conflict" => assert_eq!(moves(&sample), [Move::Call, Move::Report]),
            _ => assert!(turns.len() > 1 && failed(&results[1]).is_none(), "{results:?}"),
        }
        seen.insert(code);
    }
    assert!(seen.len() >= 4, "{seen:?}");
}

#[test]
fn a_part_of_the_calls_fails() {
    for sample in of(Class::PartialFailure) {
        let first = turns(&sample)[0].len();
        let failures = results(&sample)[..first].iter().filter(|result| failed(result).is_some()).count();
        assert!(first >= 2 && failures == 1, "{failures} of {first}");
        assert_eq!(moves(&sample).last(), Some(&Move::Answer));
    }
}

#[test]
fn the_assistants_own_mistakes_are_shown_but_not_trained_on() {
    for sample in of(Class::SelfCorrection) {
        assert!(!sample.dialogue.untrained.is_empty());
        let turns = turns(&sample);
        let (wrong, right) = (turns[0][0], turns[1][0]);
        assert_eq!(wrong.name, right.name);
        assert_ne!(wrong.arguments, right.arguments);
        let line = crate::data::native::dialogue_to_json(&sample.dialogue);
        let at = *sample.dialogue.untrained.iter().next().unwrap();
        assert_eq!(line["messages"][at]["weight"], 0);
        assert!(!messages(&sample)[at].tool_calls.is_empty());
        assert_eq!(moves(&sample), [Move::Call, Move::Answer]);
    }
}

#[test]
fn nothing_is_called_that_is_not_there_or_not_asked_for() {
    for sample in of(Class::Irrelevant) {
        assert_eq!(moves(&sample), [Move::Decline]);
        assert!(!sample.dialogue.conversation.tools.is_empty());
    }
    for sample in of(Class::Chat) {
        assert!(turns(&sample).is_empty() && moves(&sample).is_empty());
        assert!(!sample.dialogue.conversation.tools.is_empty());
    }
    for sample in of(Class::FunctionSuppliedLater) {
        assert_eq!(moves(&sample), [Move::Call, Move::Answer]);
        let refusal = *sample.dialogue.untrained.iter().next().unwrap();
        assert!(messages(&sample)[refusal].tool_calls.is_empty());
    }
}

#[test]
fn half_of_the_refusals_stand_beside_functions_of_the_same_things() {
    let near = |index| {
        let (sample, script) = scripted(&WorldConfig::default(), Class::Irrelevant, index);
        let asked = &messages(&sample).iter().find(|message| message.role == Role::User).unwrap().content;
        script
            .offers
            .iter()
            .any(|offer| [offer.deed.family.one, offer.deed.family.many].iter().any(|noun| asked.contains(noun)))
    };
    let count = (0..100).filter(|&index| near(index)).count();
    assert!((25..75).contains(&count), "{count}");
}

#[test]
fn no_write_is_repeated_after_a_time_out_that_could_be_done_twice() {
    for index in 0..150 {
        let (sample, script) = scripted(&WorldConfig::default(), Class::ToolError, index);
        for pair in messages(&sample).windows(2).filter(|pair| pair[1].role == Role::Assistant) {
            let repeated = pair[1].tool_calls.first().filter(|_| pair[0].content.contains("\"timeout\""));
            let offer = repeated.and_then(|call| script.offers.iter().find(|offer| offer.tool.name == call.name));
            assert!(offer.is_none_or(|offer| offer.deed.function.is_repeatable()), "{:#?}", messages(&sample));
        }
    }
}

#[test]
fn an_answer_comes_from_the_result_without_another_call() {
    for sample in of(Class::AnswerFromResult) {
        assert!(moves(&sample).starts_with(&[Move::Call, Move::Answer, Move::Answer]));
        assert_eq!(turns(&sample).len(), 1);
    }
}

#[test]
fn the_last_word_of_the_user_counts() {
    let mut afterwards = 0;
    for sample in of(Class::ChangeOfMind) {
        let moves = moves(&sample);
        assert!(moves == [Move::Call, Move::Answer] || moves == [Move::Call, Move::Answer, Move::Call, Move::Answer]);
        afterwards += usize::from(moves.len() == 4);
    }
    assert!(afterwards > 5);
}

#[test]
fn rich_arguments_have_every_shape() {
    let mut shapes: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in samples(&only(Class::RichArguments), 150) {
        for value in turns(&sample)[0][0].arguments.as_object().unwrap().values() {
            let shape = match value {
                Json::Array(items) if items[0].is_object() => "objects in a list",
                Json::Array(_) => "list",
                Json::Object(_) => "object",
                Json::Bool(_) => "flag",
                Json::String(text) if !text.is_ascii() => "unicode",
                Json::Number(_) => "number",
                _ => "text",
            };
            *shapes.entry(shape).or_default() += 1;
        }
    }
    assert!(shapes.len() == 7 && shapes.values().all(|count| *count > 4), "{shapes:?}");
}

#[test]
fn a_long_result_is_long_and_one_of_it_is_used() {
    for sample in of(Class::LongResult) {
        let first = &results(&sample)[0];
        assert!(first["count"].as_u64().unwrap() >= 6);
        assert_eq!(turns(&sample).len(), 2);
    }
}

#[test]
fn nothing_is_written_before_it_is_confirmed() {
    let (mut refused, mut read) = (0, 0);
    for index in 0..60 {
        let (sample, script) = scripted(&WorldConfig::default(), Class::ConfirmWrite, index);
        assert_eq!(messages(&sample)[0].role, Role::System);
        let moves = moves(&sample);
        let called = turns(&sample).first().map(|calls| calls[0].name.as_str());
        let writes = |name: &str| script.offers.iter().any(|o| o.tool.name == name && o.deed.function.writes());
        assert_eq!(moves[0] == Move::Confirm, called.is_none_or(writes), "{moves:?}");
        refused += usize::from(called.is_none());
        read += usize::from(moves[0] == Move::Call);
    }
    assert!((5..30).contains(&refused) && (10..35).contains(&read), "{refused} {read}");
}

#[test]
fn functions_without_arguments_get_none() {
    for sample in of(Class::ZeroArguments) {
        assert_eq!(turns(&sample)[0][0].arguments, serde_json::json!({}));
    }
}
