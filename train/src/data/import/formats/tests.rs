//! A row of each format, and what becomes of it.

use super::*;
use callsmith::chat::{Conversation, Role};
use serde_json::json;

fn imported(row: &Json) -> Result<Conversation, Flaw> {
    let options = ImportOptions { distractors: 1, ..ImportOptions::default() };
    let conversation = detect(row)?.reader(&options).row(row, &mut Rules::new())?;
    Ok(conversation.unwrap().conversation)
}

/// A conversation as text: a line for each function, message and call.
fn shown(conversation: &Conversation) -> Vec<String> {
    let tools = conversation.tools.iter().map(|tool| {
        let parameters = tool.parameters.as_ref().map(Json::to_string).unwrap_or_default();
        format!("{} {parameters}", tool.name)
    });
    let messages = conversation.messages.iter().flat_map(|message| {
        let who = match message.role {
            Role::Tool => message.tool_call_id.clone().unwrap_or_default(),
            role => format!("{role:?}").to_lowercase(),
        };
        let words = (!message.content.is_empty()).then(|| format!("{who}: {}", message.content));
        let calls =
            message.tool_calls.iter().map(|call| format!("{who}: {} = {} {}", call.id, call.name, call.arguments));
        words.into_iter().chain(calls).collect::<Vec<_>>()
    });
    tools.chain(messages).collect()
}

fn check(row: &Json, format: FormatName, expected: &[&str]) {
    assert_eq!(detect(row).unwrap(), format, "{row}");
    assert_eq!(shown(&imported(row).unwrap()), expected, "{row}");
}

fn flaw_of(row: &Json) -> String {
    imported(row).unwrap_err().to_string()
}

const WEATHER: &str = r#"[{"name":"weather","description":"Tells.","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}]"#;
const DECLARED: &str = r#"weather {"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;

#[test]
fn sharegpt_dialogues_keep_their_calls_and_results() {
    let row = json!({"tools": WEATHER, "system": "Be brief.", "conversations": [
        {"from": "human", "value": "Bonn and Rome?"},
        {"from": "function_call", "value": r#"[{"name": "weather", "arguments": {"city": "Bonn"}}, {"name": "weather", "arguments": {"city": "Rome"}}]"#},
        {"from": "observation", "value": r#"[{"sky": "grey"}, "blue"]"#},
        {"from": "gpt", "value": "Grey and blue."},
        {"from": "human", "value": "Oslo?"},
        {"from": "function_call", "value": r#"{"name": "weather", "arguments": {"city": "Oslo"}}"#},
        {"from": "observation", "value": "[1, 2]"},
        {"from": "gpt", "value": "Odd."}]});
    let expected = [
        DECLARED,
        "system: Be brief.",
        "user: Bonn and Rome?",
        r#"assistant: call_1 = weather {"city":"Bonn"}"#,
        r#"assistant: call_2 = weather {"city":"Rome"}"#,
        r#"call_1: {"sky":"grey"}"#,
        "call_2: blue",
        "assistant: Grey and blue.",
        "user: Oslo?",
        r#"assistant: call_3 = weather {"city":"Oslo"}"#,
        "call_3: [1, 2]",
        "assistant: Odd.",
    ];
    check(&row, FormatName::Sharegpt, &expected);
    let turn = |from: &str, value: &str| json!({"conversations": [{"from": from, "value": value}]});
    assert!(flaw_of(&turn("robot", "?")).contains("unknown speaker `robot`"));
    assert!(flaw_of(&turn("function_call", "{\"name\": ")).contains("unreadable call: EOF"));
    assert!(flaw_of(&turn("observation", "{}")).contains("a result without a call"));
    assert!(flaw_of(&turn("human", "Hello?")).contains("the assistant says nothing"));
}

#[test]
fn hermes_marks_become_functions_calls_and_results() {
    let system =
        format!("You may call functions within <tools></tools>:\n<tools>\n{WEATHER}\n</tools>\nUse <tool_call>.");
    let row = json!({"conversations": [
        {"from": "system", "value": system},
        {"from": "human", "value": "Bonn?"},
        {"from": "gpt", "value": "I look.\n<tool_call>\n{'name': 'weather', 'arguments': {'city': 'Bonn'}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"city\": \"Köln\"}, \"name\": \"weather\"}\n</tool_call>"},
        {"from": "tool", "value": "<tool_response>\n{\"sky\": \"grey\"}\n</tool_response>\n<tool_response>\n1\n</tool_response>"},
        {"from": "gpt", "value": "Grey."}]});
    let expected = [
        DECLARED,
        "user: Bonn?",
        "assistant: I look.",
        r#"assistant: call_1 = weather {"city":"Bonn"}"#,
        r#"assistant: call_2 = weather {"city":"Köln"}"#,
        r#"call_1: {"sky": "grey"}"#,
        "call_2: 1",
        "assistant: Grey.",
    ];
    check(&row, FormatName::Hermes, &expected);
}

#[test]
fn hermes_rows_keep_their_system_text_and_marks_that_do_not_end_are_flaws() {
    let row = |answer: &str, from: &str| {
        json!({"system": "Be brief.", "tools": WEATHER, "conversations": [
            {"from": "human", "value": "Bonn?"},
            {"from": "gpt", "value": "<tool_call>{\"name\": \"weather\"}</tool_call>"},
            {"from": from, "value": answer}]})
    };
    let expected = [DECLARED, "system: Be brief.", "user: Bonn?", "assistant: call_1 = weather {}", "assistant: Grey."];
    check(&row("Grey.", "gpt"), FormatName::Hermes, &expected);
    assert!(flaw_of(&row("<tool_call>{\"name\": \"weather\"}", "gpt")).contains("a <tool_call> that does not end"));
    assert!(flaw_of(&row("<tool_response>{}", "tool")).contains("a <tool_response> that does not end"));
}

#[test]
fn functions_and_system_text_stand_beside_an_exchange_too() {
    let called = r#"{"function_call": {"name": "weather", "arguments": {"city": "Bonn"}}, "content": "I look."}"#;
    let call = r#"assistant: call_1 = weather {"city":"Bonn"}"#;
    let row = json!({"prompt": "Bonn?", "response": called, "tools": WEATHER, "system": "Be brief."});
    let expected = [DECLARED, "system: Be brief.", "user: Bonn?", "assistant: I look.", call];
    check(&row, FormatName::PromptResponse, &expected);
    let row = json!({"instruction": "Bonn?", "output": called, "tools": WEATHER});
    check(&row, FormatName::Instruction, &[DECLARED, "user: Bonn?", "assistant: I look.", call]);
}

#[test]
fn xlam_answers_become_one_turn_of_calls() {
    let row = json!({"id": 3, "query": "Bonn?",
        "tools": r#"[{"name": "weather", "description": "Tells.", "parameters": {"city": {"type": "str", "description": "Where."}, "days": {"type": "int, optional", "description": "d", "default": 1}}}]"#,
        "answers": r#"[{"name": "weather", "arguments": {"city": "Bonn"}}, {"name": "weather", "arguments": {"city": "Rome", "days": 2}}]"#});
    let expected = [
        r#"weather {"type":"object","properties":{"city":{"type":"string","description":"Where."},"days":{"type":"integer","description":"d","default":1}},"required":["city"]}"#,
        "user: Bonn?",
        r#"assistant: call_1 = weather {"city":"Bonn"}"#,
        r#"assistant: call_2 = weather {"city":"Rome","days":2}"#,
    ];
    check(&row, FormatName::Xlam, &expected);
    assert!(flaw_of(&json!({"query": "?", "tools": "[]", "answers": "[]"})).contains("an empty list of calls"));
}

#[test]
fn openai_rows_are_native_already() {
    let row = json!({"messages": [
        {"role": "user", "content": "Bonn?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bonn\"}"}}]}],
        "tools": [{"type": "function", "function": serde_json::from_str::<Json>(WEATHER).unwrap()[0]}]});
    check(&row, FormatName::Openai, &[DECLARED, "user: Bonn?", r#"assistant: x = weather {"city":"Bonn"}"#]);
    assert!(flaw_of(&json!({"messages": []})).contains("`messages`: must hold at least one message"));
}

#[test]
fn llama_prompts_come_apart_into_functions_and_turns() {
    let functions = r#"{"functions": [{"name": "weather", "description": "Tells.", "parameters": [{"name": "city", "type": "string"}, {"name": "days", "type": "integer", "optional": true}]}]}"#;
    let input =
        format!("[INST] <<SYS>>\nUse these:\n<<API>>\n```json\n{functions}\n```\n<</API>>\n<</SYS>>\n\nBonn? [/INST]");
    let row = json!({"input": input, "output": " {\"function_call\": {\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}} "});
    let expected = [
        r#"weather {"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}"#,
        "user: Bonn?",
        r#"assistant: call_1 = weather {"city":"Bonn"}"#,
    ];
    check(&row, FormatName::LlamaFunctions, &expected);
    let chat = json!({"input": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] More? [/INST]", "output": " No. "});
    let expected = ["system: Be kind.", "user: Hi", "assistant: Hello!", "user: More?", "assistant: No."];
    check(&chat, FormatName::LlamaFunctions, &expected);
    let broken = json!({"input": input, "output": "{\"function_call\": {\"name\": "});
    assert!(flaw_of(&broken).contains("unreadable call: EOF"));
}

#[test]
fn prompts_and_instructions_are_asked_by_the_user() {
    let row = json!({"prompt": "Bonn?", "response": "Grey."});
    check(&row, FormatName::PromptResponse, &["user: Bonn?", "assistant: Grey."]);
    let row = json!({"instruction": "Translate.", "input": "grau", "output": "grey", "history": [["a", "b"]]});
    let expected = ["user: a", "assistant: b", "user: Translate.\n\ngrau", "assistant: grey"];
    check(&row, FormatName::Instruction, &expected);
    let row = json!({"instruction_field": "Say hi.", "input": "", "output": {"function_call": {"name": "hi", "arguments": {}}}});
    check(&row, FormatName::Instruction, &["user: Say hi.", "assistant: call_1 = hi {}"]);
    assert!(flaw_of(&json!({"instruction": "a", "output": 3})).contains("`output` must be text or an object"));
    assert!(flaw_of(&json!({"instruction": 3, "output": "a"})).contains("`instruction` must be text"));
}

#[test]
fn the_example_of_an_instruction_shows_types_and_no_values() {
    let call = json!({"name": "book", "arguments": {"nights": 3, "guests": ["Ada"], "pay": {"card": "visa"}}});
    let row = json!({"instruction": "Call.", "input": {"user_question": "A room?", "function_call_example": call}, "output": {"function_call": call}});
    let expected = [
        r#"book {"type":"object","properties":{"nights":{"type":"number"},"guests":{"type":"array","items":{"type":"string"}},"pay":{"type":"object","properties":{"card":{"type":"string"}},"required":["card"]}},"required":["nights","guests","pay"]}"#,
        "system: Call.",
        "user: A room?",
        r#"assistant: call_1 = book {"nights":3,"guests":["Ada"],"pay":{"card":"visa"}}"#,
    ];
    check(&row, FormatName::InstructionTune, &expected);
    let other = json!({"instruction": "", "input": {"user_question": "?", "function_call_example": call}, "output": {"function_call": {"name": "sing"}}});
    assert!(flaw_of(&other).contains("`sing` is called, but the example shows another function"));
}

fn function(name: &str) -> Json {
    json!({"api_name": name, "api_description": "Does.", "field": "x",
        "parameters": {"n": {"type": "int", "description": "d"}, "s": {"type": "str", "description": "e"}}, "required": ["n"], "responses": {}})
}

#[test]
fn seal_tools_queries_offer_their_functions_among_others() {
    let mut reader = seal_tools::SealTools::new(2, 0);
    let mut rules = Rules::new();
    for name in ["a", "b", "c", "d", "e"] {
        assert!(reader.row(&function(name), &mut rules).unwrap().is_none());
    }
    let query = |api: &str, value: &str| json!({"id": "1", "query": "Do.", "calling": [{"api": api, "parameters": {"n": 1, "s": value}, "responses": ["API_call_0"]}]});
    let read = reader.row(&query("c", "x"), &mut rules).unwrap().unwrap();
    let read = read.conversation;
    assert!(read.tools.iter().any(|tool| tool.name == "c") && (2..=3).contains(&read.tools.len()));
    assert_eq!(shown(&read)[read.tools.len()..], ["user: Do.", r#"assistant: call_1 = c {"n":1,"s":"x"}"#]);
    assert_eq!(rules.into_values().collect::<Vec<_>>(), [5]);
    let mut flaw_of = |row: &Json| reader.row(row, &mut Rules::new()).unwrap_err().to_string();
    assert!(flaw_of(&query("z", "x")).contains("`z` is not declared; import the catalogue first"));
    assert!(flaw_of(&query("a", "API_call_0")).contains("`s` is the result of another call"));
    assert!(flaw_of(&function("a")).contains("a second function `a`"));
}

#[test]
fn every_format_is_named_as_on_the_command_line() {
    for name in FormatName::value_variants() {
        assert_eq!(name.to_possible_value().unwrap().get_name(), name.text());
    }
}
