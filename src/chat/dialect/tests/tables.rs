//! One table per dialect: what the grammar of a turn takes and what it refuses.

use super::*;

pub(super) const ROME: &str =
    r#"{"tool_uses":[{"recipient_name":"functions.weather","parameters":{"city":"Rome {\"}\\","days":3}}]}"#;
pub(super) const NOW: &str = r#"{"tool_uses":[{"recipient_name":"functions.now","parameters":{}}]}"#;
pub(super) const BOTH: &str = r#"{"tool_uses":[{"recipient_name":"functions.now","parameters":{}},{"recipient_name":"functions.weather","parameters":{"city":"é"}}]}"#;

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
    for name in ["tool_uses", "hermes", "llama3", "mistral", "mistral_args"] {
        let dialect = by_name(name).unwrap();
        assert!(accepts(name, &ToolChoice::Required, true, &dialect.render_calls(&calls(16))));
        assert!(!accepts(name, &ToolChoice::Required, true, &dialect.render_calls(&calls(17))));
    }
}

pub(super) fn hermes_call(name: &str, arguments: &str) -> String {
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
fn llama3_takes_json_with_or_without_its_tag() {
    let rome = r#"{"name": "weather", "parameters": {"city": "Rome", "days": 3}}"#;
    let now = r#"{"name": "now", "parameters": {}}"#;
    let (tagged, both) = (format!("<|python_tag|>{now}"), format!("{now}; {rome}"));
    let calls = [
        (rome, true),
        (tagged.as_str(), true),
        (&both, true),
        ("", false),
        ("words", false),
        (r#"{"name": "now", "parameters": {}} "#, false),
        (r#"{"name": "now", "arguments": {}}"#, false),
        (r#"{"name":"now","parameters":{}}"#, false),
        (r#"{"name": "other", "parameters": {}}"#, false),
        ("<|python_tag|>now.call()", false),
    ];
    let auto =
        [(now, true), (tagged.as_str(), true), ("It is <b>noon</b>.", true), ("{", false), ("<b>", true), ("", false)];
    let none = [("Hi", true), ("{\"a\": 1}", true), (now, false), ("", false)];
    for control in [ControlTokens::new(), control()] {
        let case = |choice| Case { control: control.clone(), ..Case::new("llama3", choice) };
        case(ToolChoice::Required).check(&calls);
        case(ToolChoice::Auto).check(&auto);
        case(ToolChoice::None).check(&none);
        case(named("now")).check(&[(now, true), (&tagged, true), (rome, false), (&both, false)]);
    }
}

/// Words that spell a tag out, in tokens that are not the tag, would be read as a call.
#[test]
fn words_cannot_spell_a_control_tokens_text() {
    for (dialect, tag) in [("llama3", "<|python_tag|>"), ("mistral", "[TOOL_CALLS]"), ("mistral_args", "[TOOL_CALLS]")]
    {
        for choice in [ToolChoice::Auto, ToolChoice::None] {
            let case = Case { control: control(), ..Case::new(dialect, choice.clone()) };
            let mut matcher = case.matcher();
            let bytes: Vec<u32> = format!("{tag}{{\"name\": \"x\"").bytes().map(u32::from).collect();
            let taken = matcher.try_consume_tokens(&bytes).unwrap();
            // A turn that cannot call is not read for calls.
            assert!(taken < tag.len() || (choice == ToolChoice::None && dialect == "llama3"), "{dialect} {taken}");
        }
    }
}

#[test]
fn mistral_takes_a_list_after_its_tag_with_ids_of_nine() {
    let rome = r#"[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}, "id": "aB3456789"}]"#;
    let now = r#"[TOOL_CALLS][{"name": "now", "arguments": {}}]"#;
    let both = r#"[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}, "id": "123456789"}]"#;
    let led = format!("Let me see. {rome}");
    let calls = [
        (rome, true),
        (now, true),
        (both, true),
        (&led, false),
        ("[TOOL_CALLS][]", false),
        (r#"[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "12345678"}]"#, false),
        (r#"[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "12345678-"}]"#, false),
        (r#"[{"name": "now", "arguments": {}}]"#, false),
    ];
    let auto = [(now, true), (led.as_str(), true), ("A list: [1, 2]", true), ("[TOOL_CALLS]", false), ("", false)];
    for control in [ControlTokens::new(), control()] {
        let case = |choice| Case { control: control.clone(), ..Case::new("mistral", choice) };
        case(ToolChoice::Required).check(&calls);
        case(ToolChoice::Auto).check(&auto);
        case(ToolChoice::None).check(&[("words [1]", true), (now, false), (&led, false)]);
    }
}

#[test]
fn mistral_args_takes_name_id_and_arguments() {
    let now = "[TOOL_CALLS]now[ARGS]{}";
    let rome = r#"[TOOL_CALLS]weather[CALL_ID]aB3456789[ARGS]{"city": "Rome"}"#;
    let (both, led) = (format!("{now}{rome}"), format!("See: {rome}"));
    let calls = [
        (now, true),
        (rome, true),
        (&both, true),
        ("[TOOL_CALLS]now{}", false),
        ("[TOOL_CALLS]other[ARGS]{}", false),
        ("[TOOL_CALLS]now[CALL_ID]12345678[ARGS]{}", false),
    ];
    for control in [ControlTokens::new(), control()] {
        let case = |choice| Case { control: control.clone(), ..Case::new("mistral_args", choice) };
        case(ToolChoice::Required).check(&calls);
        case(ToolChoice::Auto).check(&[(&led, true), ("words", true), ("[TOOL_CALLS]", false)]);
    }
}

#[test]
fn llama_functions_takes_one_call() {
    let now = r#"{"function_call":{"name":"now","arguments":{}}}"#;
    let rome = r#"{"function_call":{"name":"weather","arguments":{"city":"Rome"}}}"#;
    let twice = format!("{now}\n{now}");
    let table =
        [(now, true), (rome, true), (&twice, false), (r#"{"function_call": {"name": "now", "arguments": {}}}"#, false)];
    check("llama_functions", &ToolChoice::Required, true, &table);
    check("llama_functions", &ToolChoice::Auto, true, &[(now, true), ("Hello", true), ("{\"a\":1}", false)]);
}

#[test]
fn thoughts_may_stand_before_calls_and_words() {
    let call = hermes_call("now", "{}");
    let thought = format!("<think>\nIt is <late>.\n</think>\n\n{call}");
    let close = |text: &str| format!("hm\n</think>\n\n{text}");
    let case = |reasoning, choice| Case { reasoning, ..Case::new("hermes", choice) };
    let both = [
        (thought.as_str(), true),
        (&call, true),
        ("<think>never ending", false),
        ("<think></think>", false),
        (&thought[..thought.len() - 1], false),
    ];
    case(Reasoning::Optional, ToolChoice::Required).check(&both);
    case(Reasoning::Optional, ToolChoice::Auto).check(&both);
    let words = [("<think>a</think>Hello", true), ("Hello", true), ("Hello <think>", true), ("<think>a", false)];
    case(Reasoning::Optional, ToolChoice::Auto).check(&words);
    case(Reasoning::Open, ToolChoice::Required).check(&[(&close(&call), true), (&call, false), (&thought, true)]);
    case(Reasoning::Absent, ToolChoice::Required).check(&[(&thought, false), (&call, true)]);
    for dialect in ["tool_uses", "llama3", "mistral", "mistral_args", "llama_functions", "viggo"] {
        let calls = [ToolCall { id: String::new(), name: "now".into(), arguments: json!({}) }];
        let text = format!("<think>hm</think>\n{}", by_name(dialect).unwrap().render_calls(&calls));
        for choice in [ToolChoice::Auto, ToolChoice::Required] {
            let case = Case { reasoning: Reasoning::Optional, ..Case::new(dialect, choice) };
            case.check(&[(&text, true), ("<think>hm", false)]);
        }
    }
}
