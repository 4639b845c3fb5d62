//! What verification refuses.

use super::*;

/// What verification says of a dialogue after a change.
fn after(class: Class, index: u64, change: impl FnOnce(&mut Sample, &mut Script)) -> Result<(), Flaw> {
    let (mut sample, mut script) = scripted(&WorldConfig::default(), class, index);
    assert_eq!(check(&sample, &script), Ok(()));
    change(&mut sample, &mut script);
    check(&sample, &script)
}

/// The message with the first calls.
fn first_call(sample: &mut Sample) -> (usize, &mut Message) {
    let messages = &mut sample.dialogue.conversation.messages;
    messages.iter_mut().enumerate().find(|(_, message)| !message.tool_calls.is_empty()).unwrap()
}

#[test]
fn a_result_that_the_call_does_not_return_is_refused() {
    for index in 0..20 {
        let changed = after(Class::Single, index, |sample, _| {
            let (at, _) = first_call(sample);
            sample.dialogue.conversation.messages[at + 1].content = r#"{"id":"ACC-1"}"#.to_owned();
        });
        assert!(matches!(changed, Err(Flaw::Result { .. })), "{changed:?}");
    }
}

#[test]
fn a_call_that_breaks_its_schema_or_names_no_function_is_refused() {
    for index in 0..20 {
        let extra = after(Class::Single, index, |sample, _| {
            first_call(sample).1.tool_calls[0].arguments["never_heard_of"] = 1.into();
        });
        assert!(matches!(extra, Err(Flaw::Schema { .. })), "{extra:?}");
        let unknown = after(Class::ZeroArguments, index, |sample, _| {
            first_call(sample).1.tool_calls[0].name = "nobody_offers_this".to_owned();
        });
        assert!(matches!(unknown, Err(Flaw::Unknown { .. })), "{unknown:?}");
    }
}

#[test]
fn a_value_that_nobody_has_said_is_refused() {
    for index in 0..20 {
        let unsaid = after(Class::Single, index, |sample, _| {
            for message in &mut sample.dialogue.conversation.messages {
                if message.role == Role::User {
                    message.content = "Please do it.".to_owned();
                }
            }
        });
        assert!(matches!(unsaid, Err(Flaw::Ungrounded { .. })), "{unsaid:?}");
    }
}

#[test]
fn an_end_that_was_not_asked_for_is_refused() {
    for index in 0..20 {
        let missed = after(Class::ConfirmWrite, index, |_, script| {
            let family = script.offers.iter().find(|offer| !script.before.records(offer.deed.family).is_empty());
            let family = family.unwrap().deed.family;
            script.goal.store(family).records.pop();
        });
        assert_eq!(missed, Err(Flaw::Goal));
    }
}

#[test]
fn messages_out_of_order_or_without_label_are_refused() {
    for index in 0..20 {
        let unanswered = after(Class::Single, index, |sample, _| {
            let (at, _) = first_call(sample);
            sample.dialogue.conversation.messages.truncate(at + 1);
        });
        assert!(matches!(unanswered, Err(Flaw::Order(_))), "{unanswered:?}");
        let unlabelled = after(Class::Single, index, |sample, _| sample.turns.truncate(0));
        assert!(matches!(unlabelled, Err(Flaw::Label(_))), "{unlabelled:?}");
    }
}
