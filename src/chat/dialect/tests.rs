use super::super::json::JsonStyle;
use super::super::{Message, Role, ToolCall};
use super::*;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

const EOS: u32 = 256;

/// One token per byte, and the end of the turn.
struct Bytes(TokTrie);

impl TokenizerEnv for Bytes {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        bytes.iter().map(|&byte| byte.into()).collect()
    }
}

fn byte_env() -> TokEnv {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    words.push(b"\xff<|end|>".to_vec());
    Arc::new(Bytes(TokTrie::from(&TokRxInfo::new(257, EOS), &words)))
}

fn tools() -> Vec<(String, Value)> {
    let closed = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    let weather = closed(
        json!({"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 10}}),
        json!(["city"]),
    );
    vec![("weather".into(), weather), ("now".into(), closed(json!({}), json!([])))]
}

fn matcher(dialect: &str, choice: &ToolChoice, parallel: bool) -> Matcher {
    let tools = tools();
    let lark = by_name(dialect).unwrap().grammar(&TurnSpec { tools: &tools, choice, parallel });
    let mut factory = ParserFactory::new_simple(&byte_env()).unwrap();
    factory.quiet();
    let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(lark.clone())));
    assert!(!matcher.is_error(), "{:?}\n{lark}", matcher.get_error());
    matcher
}

/// Whether the grammar lets the turn be exactly `text`.
fn accepts(dialect: &str, choice: &ToolChoice, parallel: bool, text: &str) -> bool {
    let mut matcher = matcher(dialect, choice, parallel);
    let allowed = text.bytes().map(u32::from).all(|token| {
        matcher.compute_mask_or_eos().unwrap().is_allowed(token) && matcher.try_consume_tokens(&[token]).unwrap() == 1
    });
    allowed && matcher.is_accepting().unwrap()
}

fn check(dialect: &str, choice: &ToolChoice, parallel: bool, table: &[(&str, bool)]) {
    for (text, expected) in table {
        assert_eq!(
            accepts(dialect, choice, parallel, text),
            *expected,
            "{dialect} {choice:?} parallel={parallel}: {text}"
        );
    }
}

fn named(name: &str) -> ToolChoice {
    ToolChoice::Named(name.into())
}

const ROME: &str =
    r#"{"tool_uses":[{"recipient_name":"functions.weather","parameters":{"city":"Rome {\"}\\","days":3}}]}"#;
const NOW: &str = r#"{"tool_uses":[{"recipient_name":"functions.now","parameters":{}}]}"#;
const BOTH: &str = r#"{"tool_uses":[{"recipient_name":"functions.now","parameters":{}},{"recipient_name":"functions.weather","parameters":{"city":"é"}}]}"#;

#[test]
fn tool_uses_required_takes_calls_only() {
    let table = [
        (ROME, true),
        (NOW, true),
        (BOTH, true),
        ("", false),
        ("words", false),
        (r#"{"tool_uses":[]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"functions.other","parameters":{}}]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"now","parameters":{}}]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"functions.weather","parameters":{}}]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"functions.weather","parameters":{"city":"x","days":11}}]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"functions.weather","parameters":{"city": "x"}}]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"functions.now","parameters":{"a":1}}]}"#, false),
        (r#"{"tool_uses":[{"recipient_name":"functions.now","parameters":{}}]} ok"#, false),
    ];
    check("tool_uses", &ToolChoice::Required, true, &table);
}

#[test]
fn tool_uses_auto_takes_words_that_cannot_be_mistaken() {
    let table = [
        (ROME, true),
        (BOTH, true),
        ("Hello {you}!\n😀", true),
        (" \n ok", true),
        ("", false),
        ("{", false),
        (r#"{"a": 1}"#, false),
        (" {\"tool_uses\":[]}", false),
    ];
    check("tool_uses", &ToolChoice::Auto, true, &table);
}

#[test]
fn tool_uses_none_takes_any_words_but_a_call() {
    let table =
        [("Hello", true), (r#"{"a": 1}"#, true), ("{", true), ("", false), (NOW, false), ("\n { \"tool_uses\"", false)];
    check("tool_uses", &ToolChoice::None, true, &table);
}

#[test]
fn one_call_means_one_call() {
    check("tool_uses", &ToolChoice::Required, false, &[(ROME, true), (NOW, true), (BOTH, false)]);
    check("tool_uses", &ToolChoice::Auto, false, &[("Hi", true), (NOW, true), (BOTH, false)]);
    check("tool_uses", &named("now"), true, &[(NOW, true), (ROME, false), (BOTH, false), ("Hi", false)]);
    let twice = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    check("hermes", &ToolChoice::Required, false, &[(&twice[..twice.len() / 2], true), (twice, false)]);
}

#[test]
fn parallel_calls_are_bounded() {
    let calls = |count: usize| vec![ToolCall { id: String::new(), name: "now".into(), arguments: json!({}) }; count];
    for name in ["tool_uses", "hermes"] {
        let dialect = by_name(name).unwrap();
        assert!(accepts(name, &ToolChoice::Required, true, &dialect.render_calls(&calls(16))));
        assert!(!accepts(name, &ToolChoice::Required, true, &dialect.render_calls(&calls(17))));
    }
}

fn hermes_call(name: &str, arguments: &str) -> String {
    format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
}

#[test]
fn hermes_takes_words_then_calls() {
    let rome = hermes_call("weather", r#"{"city": "Rome </tool_call> {\"", "days": 3}"#);
    let both = format!("{}\n{rome}", hermes_call("now", "{}"));
    let led = format!("Let me see.\n{both}");
    let auto = [
        (rome.as_str(), true),
        (&both, true),
        (&led, true),
        ("Just <b>words</b> <tool_cal", true),
        ("", false),
        ("<tool_call>", false),
        ("Hi <tool_call> there", false),
    ];
    check("hermes", &ToolChoice::Auto, true, &auto);
    let trailing = format!("{rome} ok");
    let required = [
        (rome.as_str(), true),
        (&both, true),
        (&led, false),
        ("words", false),
        (&trailing, false),
        (&hermes_call("other", "{}"), false),
        (&hermes_call("weather", "{}"), false),
        (&hermes_call("weather", r#"{"city":"compact"}"#), false),
    ];
    check("hermes", &ToolChoice::Required, true, &required);
    check("hermes", &named("now"), true, &[(&hermes_call("now", "{}"), true), (&rome, false), (&both, false)]);
    check(
        "hermes",
        &ToolChoice::None,
        true,
        &[("words", true), ("{\"a\": 1}", true), ("", false), (&rome, false), ("a <tool_call>", false)],
    );
}

#[test]
fn a_call_without_functions_is_refused_by_the_compiler() {
    let factory = ParserFactory::new_simple(&byte_env()).unwrap();
    for choice in [ToolChoice::Required, named("other")] {
        let spec = [("weather".to_owned(), json!({"type": "object"}))];
        let tools = if choice == ToolChoice::Required { &[][..] } else { &spec };
        let lark = by_name("tool_uses").unwrap().grammar(&TurnSpec { tools, choice: &choice, parallel: true });
        assert!(factory.create_parser(TopLevelGrammar::from_lark(lark)).is_err());
    }
    assert!(accepts("hermes", &ToolChoice::Auto, true, "words"));
}

#[test]
fn dialects_are_found_by_name_and_by_template() {
    assert_eq!(by_name("hermes").unwrap().name(), "hermes");
    let error = by_name("x").err().unwrap().to_string();
    assert!(error.contains("`x`") && error.contains("tool_uses, hermes"), "{error}");
    assert_eq!(for_template(Some("… <tool_call> …")).name(), "hermes");
    assert_eq!(for_template(Some("…")).name(), "tool_uses");
    assert_eq!(for_template(None).name(), "tool_uses");
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

fn parse<'a>(dialect: &str, pieces: impl IntoIterator<Item = &'a str>) -> Turn {
    let mut parser = by_name(dialect).unwrap().parser();
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
        for words in [
            "Hello",
            "{\"a\": 1}",
            " {x",
            "\n\n hi \n",
            "{\"tool_uses\": 3}",
            "a < b <tool",
            "<tool_call> no",
            "{",
            " ",
        ] {
            assert_eq!(parse(dialect, [words]), turn(words, &[]), "{dialect}");
        }
    }
    let led = format!("Let me see. \n\n{}\n{}\n", hermes_call("a", "{}"), hermes_call("b", r#"{"x": "</tool_call>"}"#));
    let expected = turn("Let me see.", &[("a", "{}", true), ("b", r#"{"x": "</tool_call>"}"#, true)]);
    assert_eq!(parse("hermes", [led.as_str()]), expected);
}

#[test]
fn text_streams_as_soon_as_it_is_certain() {
    let mut parser = by_name("hermes").unwrap().parser();
    assert_eq!(parser.push("Hello wor"), [Delta::Text("Hello wor".into())]);
    assert_eq!(parser.push("ld <tool"), [Delta::Text("ld".into())]);
    assert_eq!(parser.push("box"), [Delta::Text(" <toolbox".into())]);
    assert_eq!(parser.finish(), []);
}

#[test]
fn arguments_stream_as_they_arrive() {
    let mut parser = by_name("tool_uses").unwrap().parser();
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
    assert_eq!(parse("tool_uses", [r#"{"tool_uses":[{"rec"#]), turn(r#"{"tool_uses":[{"rec"#, &[]));
    assert_eq!(parse("tool_uses", [&BOTH[..70]]), turn("", &[("now", "{}", true)]));
    assert_eq!(
        parse("hermes", ["Hi\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a"]),
        turn("Hi", &[("f", "{\"a", false)])
    );
}

#[test]
fn prompts_describe_the_tools_and_the_choice() {
    let tool = Tool { name: "now".into(), description: Some("The time".into()), parameters: None, strict: false };
    let prompt = by_name("tool_uses").unwrap().system_prompt(std::slice::from_ref(&tool), &named("now"));
    assert!(
        prompt.contains("// The time\ntype now = (_: {}) => any;")
            && prompt.ends_with("Call the function functions.now."),
        "{prompt}"
    );
    let prompt = by_name("hermes").unwrap().system_prompt(&[tool], &ToolChoice::Required);
    let line = r#"{"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}"#;
    assert!(
        prompt.contains(&format!("<tools>\n{line}\n</tools>")) && prompt.ends_with("Answer with function calls only."),
        "{prompt}"
    );
}

#[test]
fn results_are_shown_in_order() {
    let results = [Message::text(Role::Tool, r#" {"a": 1} "#), Message::text(Role::Tool, "not \"json\"")];
    assert_eq!(by_name("tool_uses").unwrap().render_results(&results), r#"[{"a": 1},"not \"json\""]"#);
    let expected = "<tool_response>\n {\"a\": 1} \n</tool_response>\n<tool_response>\nnot \"json\"\n</tool_response>";
    assert_eq!(by_name("hermes").unwrap().render_results(&results), expected);
}

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
        for (dialect, style) in [("tool_uses", JsonStyle::compact()), ("hermes", JsonStyle::spaced())] {
            let text = by_name(dialect).unwrap().render_calls(&calls);
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
            "<tool_call>", "</tool_call>", "<tool", "_call>", "{\"tool_uses\":[", "{\"recipient_name\":", "\"functions.f\"", ",", "\"parameters\":",
            "{}", "{\"a\": \"}\"}", "}", "]}", "{\"name\": ", "\"f\"", "\"arguments\": ", " ", "\n", "word", "\"", "\\", "é",
        ]), 1..14),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let text = pieces.concat();
        for dialect in ["tool_uses", "hermes"] {
            let whole = parse(dialect, [text.as_str()]);
            prop_assert_eq!(parse(dialect, split(&text, &cuts)), whole.clone());
            let one_by_one = text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]);
            prop_assert_eq!(parse(dialect, one_by_one), whole);
        }
    }
}
