//! What the dialects accept and how they are read back: one table per dialect, and properties that hold for all.

mod bfcl;
mod bytes;
mod tables;

use super::super::json::JsonStyle;
use super::super::{Message, Role, ToolCall};
use super::*;
use bytes::{byte_env, control, encode};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use proptest::prelude::*;
use serde_json::json;
use tables::{BOTH, ROME, hermes_call};

fn tools() -> Vec<(String, Value)> {
    let closed = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    let weather = closed(
        json!({"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 10}}),
        json!(["city"]),
    );
    vec![("weather".into(), weather), ("now".into(), closed(json!({}), json!([])))]
}

/// A turn of a dialect, as tests describe it.
#[derive(Clone)]
struct Case<'a> {
    dialect: &'a str,
    choice: ToolChoice,
    parallel: bool,
    reasoning: Reasoning,
    control: ControlTokens,
}

impl<'a> Case<'a> {
    fn new(dialect: &'a str, choice: ToolChoice) -> Self {
        Self { dialect, choice, parallel: true, reasoning: Reasoning::Absent, control: ControlTokens::new() }
    }

    fn lark(&self) -> String {
        let (tools, control) = (tools(), &self.control);
        let turn = TurnSpec {
            tools: &tools,
            choice: &self.choice,
            parallel: self.parallel,
            reasoning: self.reasoning,
            control,
            answer: None,
        };
        by_name(self.dialect).unwrap().grammar(&turn).unwrap()
    }

    fn matcher(&self) -> Matcher {
        let lark = self.lark();
        let mut factory = ParserFactory::new_simple(&byte_env()).unwrap();
        factory.quiet();
        let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(lark.clone())));
        assert!(!matcher.is_error(), "{:?}\n{lark}", matcher.get_error());
        matcher
    }

    /// Whether the grammar lets the turn be exactly `text`.
    fn accepts(&self, text: &str) -> bool {
        let mut matcher = self.matcher();
        let allowed = encode(text, &self.control).into_iter().all(|token| {
            matcher.compute_mask_or_eos().unwrap().is_allowed(token)
                && matcher.try_consume_tokens(&[token]).unwrap() == 1
        });
        allowed && matcher.is_accepting().unwrap()
    }

    fn check(&self, table: &[(&str, bool)]) {
        for (text, expected) in table {
            assert_eq!(self.accepts(text), *expected, "{} {:?}: {text}\n{}", self.dialect, self.choice, self.lark());
        }
    }
}

fn accepts(dialect: &str, choice: &ToolChoice, parallel: bool, text: &str) -> bool {
    Case { parallel, ..Case::new(dialect, choice.clone()) }.accepts(text)
}

fn check(dialect: &str, choice: &ToolChoice, parallel: bool, table: &[(&str, bool)]) {
    Case { parallel, ..Case::new(dialect, choice.clone()) }.check(table);
}

fn named(name: &str) -> ToolChoice {
    ToolChoice::Named(name.into())
}

#[test]
fn a_call_without_functions_is_refused_by_the_compiler() {
    let factory = ParserFactory::new_simple(&byte_env()).unwrap();
    for choice in [ToolChoice::Required, named("other")] {
        let spec = [("weather".to_owned(), json!({"type": "object"}))];
        let tools = if choice == ToolChoice::Required { &[][..] } else { &spec };
        let control = ControlTokens::new();
        let turn = TurnSpec {
            tools,
            choice: &choice,
            parallel: true,
            reasoning: Reasoning::Absent,
            control: &control,
            answer: None,
        };
        let lark = by_name("tool_uses").unwrap().grammar(&turn).unwrap();
        assert!(factory.create_parser(TopLevelGrammar::from_lark(lark)).is_err());
    }
    assert!(accepts("hermes", &ToolChoice::Auto, true, "words"));
}

/// What a client would have put together.
#[derive(Debug, Default, PartialEq, Clone)]
struct Turn {
    text: String,
    calls: Vec<(String, String, bool)>,
}

impl Turn {
    fn take(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            match delta {
                Delta::Thought(text) => panic!("a dialect's parser sees no thoughts: {text}"),
                Delta::Text(text) => self.text.push_str(&text),
                Delta::CallStart { index, name } => {
                    assert_eq!(index, self.calls.len(), "calls are numbered in order");
                    self.calls.push((name, String::new(), false));
                }
                Delta::CallArguments { index, fragment } => {
                    assert!(!fragment.is_empty());
                    self.calls[index].1.push_str(&fragment);
                }
                Delta::CallEnd { index } => self.calls[index].2 = true,
            }
        }
    }
}

/// What words the grammar takes, the parser reads as words; what calls, as calls.
#[test]
fn grammar_and_parser_agree_about_white_space() {
    let now = |dialect: &str| {
        by_name(dialect).unwrap().render_calls(&[ToolCall {
            id: String::new(),
            name: "now".into(),
            arguments: json!({}),
        }])
    };
    for name in Dialects::built_in().names() {
        for space in ["", " ", "\n", "\u{a0}", "\u{3000}", "\u{c}", " \u{a0}\n"] {
            for lead in ["", "Hi", "<think>hm</think>"] {
                let reasoning = Reasoning::Optional;
                let text = format!("{lead}{space}{}", now(name));
                if !(Case { reasoning, ..Case::new(name, ToolChoice::Auto) }).accepts(&text) {
                    continue;
                }
                let answer = crate::chat::reasoning::split(reasoning, &text).rest;
                let turn = parse(name, [answer.as_str()]);
                let required = Case { reasoning, ..Case::new(name, ToolChoice::Required) }.accepts(&text);
                let called = turn.calls == [("now".to_owned(), "{}".to_owned(), true)];
                let words_first = !turn.text.is_empty();
                assert!(called || turn.calls.is_empty(), "{name}: {text:?} {turn:?}");
                assert!(called || !required, "{name}: {text:?} {turn:?}");
                assert!(!words_first || !required, "{name}: {text:?} {turn:?}");
            }
        }
    }
}

/// A user's tag of several bytes a character may be cut anywhere.
#[test]
fn a_tag_need_not_be_ascii() {
    let source = "name = \"own\"\nwords = \"before\"\njson = \"compact\"\nbegin = \"<｜tool▁calls▁begin｜>\"\n\
        call = \"<｜call▁$NAME｜>$ARGUMENTS\"\nbetween = \"\\n\"\nend = \"<｜end｜>\"\n[prompt]\nsystem = \"s\"\nresults = \"r\"\n";
    let dialect = super::envelope::Envelope::parse(source).unwrap();
    let mut parser = dialect.parser(&[]);
    assert_eq!(parser.push("Hello"), [Delta::Text("Hello".into())]);
    assert_eq!(parser.push("<｜to"), []);
    assert_eq!(parser.finish(), [Delta::Text("<｜to".into())]);
}

fn parse<'a>(dialect: &str, pieces: impl IntoIterator<Item = &'a str>) -> Turn {
    let mut parser = by_name(dialect).unwrap().parser(&tools());
    let mut turn = Turn::default();
    pieces.into_iter().for_each(|piece| turn.take(parser.push(piece)));
    turn.take(parser.finish());
    turn
}

fn turn(text: &str, calls: &[(&str, &str, bool)]) -> Turn {
    Turn {
        text: text.into(),
        calls: calls.iter().map(|(name, arguments, ended)| ((*name).into(), (*arguments).into(), *ended)).collect(),
    }
}

#[test]
fn arguments_pass_through_as_they_were_written() {
    let expected = turn("", &[("weather", r#"{"city":"Rome {\"}\\","days":3}"#, true)]);
    assert_eq!(parse("tool_uses", [ROME]), expected);
    let odd = r#"{ "tool_uses" : [ {"recipient_name": "functions.f" , "parameters" : { "a" : 1.0 } } ] } "#;
    assert_eq!(parse("tool_uses", [odd]), turn("", &[("f", r#"{ "a" : 1.0 }"#, true)]));
}

#[test]
fn words_and_calls_are_told_apart() {
    for dialect in ["tool_uses", "hermes"] {
        for words in
            ["Hello", "{\"a\": 1}", " {x", "\n\n hi \n", "{\"tool_uses\": 3}", "a < b <tool", "<tool_call> no", " "]
        {
            assert_eq!(parse(dialect, [words]), turn(words, &[]), "{dialect}");
        }
    }
    // The beginning of what may stand before a call is none.
    assert_eq!(parse("llama3", ["<|"]), turn("<|", &[]));
    let led = format!("Let me see. \n\n{}\n{}\n", hermes_call("a", "{}"), hermes_call("b", r#"{"x": "</tool_call>"}"#));
    let expected = turn("Let me see.", &[("a", "{}", true), ("b", r#"{"x": "</tool_call>"}"#, true)]);
    assert_eq!(parse("hermes", [led.as_str()]), expected);
}

#[test]
fn text_streams_as_soon_as_it_is_certain() {
    let mut parser = by_name("hermes").unwrap().parser(&[]);
    assert_eq!(parser.push("Hello wor"), [Delta::Text("Hello wor".into())]);
    assert_eq!(parser.push("ld <tool"), [Delta::Text("ld".into())]);
    assert_eq!(parser.push("box"), [Delta::Text(" <toolbox".into())]);
    assert_eq!(parser.finish(), []);
}

#[test]
fn arguments_stream_as_they_arrive() {
    let mut parser = by_name("tool_uses").unwrap().parser(&[]);
    assert_eq!(parser.push(r#"{"tool_uses":[{"recipient_name":"functions.f","parameters":"#), []);
    let first = [
        Delta::CallStart { index: 0, name: "f".into() },
        Delta::CallArguments { index: 0, fragment: r#"{"a":"x"#.into() },
    ];
    assert_eq!(parser.push(r#"{"a":"x"#), first);
    let last = [Delta::CallArguments { index: 0, fragment: r#"}"}"#.into() }, Delta::CallEnd { index: 0 }];
    assert_eq!(parser.push(r#"}"}}]}"#), last);
}

#[test]
fn a_cut_turn_yields_what_was_there() {
    assert_eq!(
        parse("tool_uses", [&ROME[..ROME.len() - 13]]),
        turn("", &[("weather", r#"{"city":"Rome {\"}\\""#, false)])
    );
    assert_eq!(parse("tool_uses", [r#"{"tool_uses":[{"rec"#]), turn("", &[]));
    assert_eq!(parse("hermes", ["Hi\n<tool_call>\n{\"name"]), turn("Hi", &[]));
    assert_eq!(parse("hermes", ["Hi <tool"]), turn("Hi <tool", &[]));
    assert_eq!(parse("tool_uses", [&BOTH[..70]]), turn("", &[("now", "{}", true)]));
    assert_eq!(
        parse("hermes", ["Hi\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a"]),
        turn("Hi", &[("f", "{\"a", false)])
    );
}

#[test]
fn prompts_describe_the_tools_and_the_choice() {
    let tool = Tool { name: "now".into(), description: Some("The time".into()), parameters: None, strict: false };
    let prompt = by_name("tool_uses").unwrap().system_prompt(std::slice::from_ref(&tool), &named("now")).unwrap();
    assert!(
        prompt.contains("// The time\ntype now = (_: {}) => any;")
            && prompt.ends_with("Call the function functions.now."),
        "{prompt}"
    );
    let prompt = by_name("hermes").unwrap().system_prompt(&[tool], &ToolChoice::Required).unwrap();
    let line = r#"{"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}"#;
    assert!(
        prompt.contains(&format!("<tools>\n{line}\n</tools>")) && prompt.ends_with("Answer with function calls only."),
        "{prompt}"
    );
}

#[test]
fn results_are_shown_in_order() {
    let results = [Message::text(Role::Tool, r#" {"a": 1} "#), Message::text(Role::Tool, "not \"json\"")];
    assert_eq!(by_name("tool_uses").unwrap().render_results(&results).unwrap(), r#"[{"a": 1},"not \"json\""]"#);
    let expected = "<tool_response>\n {\"a\": 1} \n</tool_response>\n<tool_response>\nnot \"json\"\n</tool_response>";
    assert_eq!(by_name("hermes").unwrap().render_results(&results).unwrap(), expected);
}

type Style = fn() -> JsonStyle;

/// The dialects of JSON in fixed text, and how each spells it.
const STYLES: [(&str, Style); 6] = [
    ("tool_uses", JsonStyle::compact),
    ("hermes", JsonStyle::spaced),
    ("llama3", JsonStyle::spaced),
    ("mistral", JsonStyle::spaced),
    ("mistral_args", JsonStyle::spaced),
    ("llama_functions", JsonStyle::compact),
];
/// Those with one call a turn.
const SINGLE: [&str; 1] = ["llama_functions"];

fn json_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-z{}\\[\\]\"\\\\<>/ é😀\n]{0,8}", Just("</tool_call>".to_owned()), Just("]}".to_owned())];
    let leaf = prop_oneof![
        text.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null)
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[a-z\"{}\\\\]{0,4}", inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn random_calls() -> impl Strategy<Value = Vec<ToolCall>> {
    let arguments = prop::collection::vec(("[a-z\"}]{0,4}", json_value()), 0..3)
        .prop_map(|pairs| Value::Object(pairs.into_iter().collect()));
    let call =
        ("[a-zA-Z0-9_-]{1,8}", arguments).prop_map(|(name, arguments)| ToolCall { id: String::new(), name, arguments });
    prop::collection::vec(call, 1..4)
}

/// Cuts `text` at character boundaries, as the detokenizer does.
fn split<'a>(text: &'a str, cuts: &[prop::sample::Index]) -> Vec<&'a str> {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| places[cut.index(places.len())]).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn rendered_calls_parse_back_however_they_are_split(calls in random_calls(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        for (dialect, style) in STYLES {
            let calls = if SINGLE.contains(&dialect) { &calls[..1] } else { &calls[..] };
            let style = style();
            let text = by_name(dialect).unwrap().render_calls(calls);
            let found = parse(dialect, split(&text, &cuts));
            let expected: Vec<_> = calls.iter().map(|call| (call.name.clone(), style.text(&call.arguments), true)).collect();
            prop_assert_eq!(&found.calls, &expected);
            prop_assert_eq!(&found.text, "");
            let one_by_one = text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]);
            prop_assert_eq!(parse(dialect, one_by_one), found);
        }
    }

    #[test]
    fn any_text_gives_the_same_turn_however_it_is_split(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "<tool", "_call>", "[TOOL_CALLS]", "[", "[ARGS]", "now", "; ", "{\"function_call\":", "\"id\": \"abcdefghi\"", "<|python_tag|>", "{\"tool_uses\":[", "{\"recipient_name\":", "\"functions.f\"", ",", "\"parameters\":",
            "{}", "{\"a\": \"}\"}", "}", "]}", "{\"name\": ", "\"f\"", "\"arguments\": ", " ", "\n", "word", "\"", "\\", "é",
        ]), 1..14),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let text = pieces.concat();
        for (dialect, _) in STYLES {
            let whole = parse(dialect, [text.as_str()]);
            prop_assert_eq!(parse(dialect, split(&text, &cuts)), whole.clone());
            let one_by_one = text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]);
            prop_assert_eq!(parse(dialect, one_by_one), whole);
        }
    }
}
