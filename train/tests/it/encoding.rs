//! Conversations as samples: what is trained, and that it is what the server would show and force.

use crate::fixture;
use callsmith::chat::{Conversation, Message, Role};
use callsmith_train::data::native;
use callsmith_train::data::synth::{SynthConfig, generate};
use callsmith_train::data::world::{self, Class, WorldConfig};
use callsmith_train::dataset::Tag;
use callsmith_train::dataset::encode::Weights;

#[test]
fn every_answer_follows_the_prompt_the_server_would_show() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = fixture::encoder(dir.path());
    for index in 0..40 {
        let conversation = generate(&SynthConfig::default(), index).conversation;
        let example = encoder.example(&conversation, Weights::default()).unwrap();
        let assistant: Vec<_> =
            (0..conversation.messages.len()).filter(|&n| conversation.messages[n].role == Role::Assistant).collect();
        assert_eq!(example.answers.len(), assistant.len());
        for (answer, &message) in example.answers.iter().zip(&assistant) {
            let mut head = conversation.clone();
            head.messages.truncate(message);
            assert_eq!(encoder.prompt(&head, true).unwrap(), example.tokens[..answer.start]);
            let wanted = &conversation.messages[message];
            let text = encoder.tokenizer.decode(&example.tokens[answer.clone()]);
            let expected = match wanted.tool_calls.is_empty() {
                true => wanted.content.clone(),
                false => encoder.dialect.render_calls(&wanted.tool_calls),
            };
            assert_eq!(text, expected);
            assert!(encoder.tokenizer.eos_token_ids().contains(&example.tokens[answer.end - 1]));
        }
    }
}

#[test]
fn only_answers_are_trained_and_the_rest_as_the_weights_say() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = fixture::encoder(dir.path());
    let conversation = generate(&SynthConfig::default(), 3).conversation;
    let example = encoder.example(&conversation, Weights { lm: 0.25, name: 3.0 }).unwrap();
    let mut opening = conversation.clone();
    opening.messages.retain(|message| message.role == Role::System);
    let opening = encoder.prompt(&opening, false).unwrap().len();
    assert!(opening > 0);
    for at in 0..example.tokens.len() {
        let answer = example.answers.iter().any(|answer| answer.contains(&at));
        let expected = match (answer, example.tags[at]) {
            (_, Tag::Name) => 3.0,
            (true, _) => 1.0,
            (false, _) if at < opening => 0.0,
            (false, _) => 0.25,
        };
        assert_eq!(example.weights[at], expected, "token {at}");
    }
}

#[test]
fn the_first_token_of_each_function_name_is_tagged() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = fixture::encoder(dir.path());
    let (mut calls, mut values) = (0, 0);
    for index in 0..40 {
        let conversation = generate(&SynthConfig::default(), index).conversation;
        let example = encoder.example(&conversation, Weights::default()).unwrap();
        let names: Vec<_> = conversation
            .messages
            .iter()
            .flat_map(|message| &message.tool_calls)
            .map(|call| call.name.as_str())
            .collect();
        let tagged: Vec<_> = (0..example.tokens.len()).filter(|&at| example.tags[at] == Tag::Name).collect();
        assert_eq!(tagged.len(), names.len());
        for (&at, name) in tagged.iter().zip(&names) {
            let rest = encoder.tokenizer.decode(&example.tokens[at..]);
            // A token may hold the end of the envelope before the name.
            assert!(
                rest.trim_start_matches(|c| "functions.".contains(c))
                    .starts_with(name.trim_start_matches(|c| "functions.".contains(c))),
                "{name}: {rest}"
            );
        }
        calls += names.len();
        values += example.tags.iter().filter(|&&tag| tag == Tag::Value).count();
    }
    assert!(calls > 20 && values > calls);
}

#[test]
fn a_conversation_without_an_answer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = fixture::encoder(dir.path());
    let conversation = Conversation { messages: vec![Message::text(Role::User, "hello")], ..Conversation::default() };
    let message = encoder.example(&conversation, Weights::default()).unwrap_err().to_string();
    assert!(message.contains("no assistant message"), "{message}");
}

#[test]
fn a_turn_of_weight_zero_is_shown_but_not_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = fixture::encoder(dir.path());
    let line = r#"{"messages":[{"role":"user","content":"get A-1"},{"role":"assistant","weight":0,"content":"A-2?"},{"role":"user","content":"no"},{"role":"assistant","content":"A-1"}]}"#;
    let dialogue = native::dialogue_from_line(line, "test").unwrap();
    let (all, some) = (
        encoder.example(&dialogue.conversation, Weights { lm: 0.5, name: 1.0 }).unwrap(),
        encoder.dialogue(&dialogue, Weights { lm: 0.5, name: 1.0 }).unwrap(),
    );
    assert_eq!(some.tokens, all.tokens);
    assert_eq!(some.answers, all.answers[1..]);
    let wrong = all.answers[0].clone();
    assert!(!wrong.is_empty() && some.weights[wrong.clone()].iter().all(|weight| *weight == 0.0));
    for at in (0..all.tokens.len()).filter(|at| !wrong.contains(at)) {
        assert_eq!(some.weights[at], all.weights[at], "token {at}");
    }
    let none =
        native::dialogue_from_line(&line.replace(r#""content":"A-1"}]"#, r#""weight":0,"content":"A-1"}]"#), "test");
    assert!(
        encoder.dialogue(&none.unwrap(), Weights::default()).unwrap_err().to_string().contains("no assistant message")
    );
}

#[test]
fn mistakes_of_generated_dialogues_carry_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = fixture::encoder(dir.path());
    let classes = [(Class::SelfCorrection, 1.0), (Class::FunctionSuppliedLater, 1.0)].into();
    let config = WorldConfig { classes, distractors: (0, 2), ..WorldConfig::default() };
    for index in 0..12 {
        let sample = world::generate(&config, index).unwrap();
        let example = encoder.dialogue(&sample.dialogue, Weights::default()).unwrap();
        let all = encoder.example(&sample.dialogue.conversation, Weights::default()).unwrap();
        assert_eq!(example.answers.len(), sample.turns.len());
        assert_eq!(all.answers.len(), sample.turns.len() + sample.dialogue.untrained.len());
        let trained: f32 = example.weights.iter().sum();
        assert!(trained > 0.0 && trained < all.weights.iter().sum());
    }
}
