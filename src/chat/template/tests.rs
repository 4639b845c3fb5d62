use super::super::dialect::{ControlTokens, Delta, TurnSpec, by_name, for_template};
use super::super::reasoning;
use super::*;
use crate::grammar::schema::admit_parameters;
use crate::grammar::text::{TextGrammars, verdict};
use crate::testing::data_set;
use proptest::prelude::*;

const EMBEDDED: &str = include_str!("../../../models/embedded/chat_template.jinja");
const EMBEDDED_CONTROL: [&str; 7] =
    ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|functions|>", "<|end|>", "<|pad|>"];

macro_rules! golden {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("golden/", $name, ".txt")))),*] };
}

const GOLDEN: [(&str, &str); 5] = golden![
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "meta-llama-Llama-3.1-8B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
];

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn embedded() -> ChatTemplate {
    let dialect = by_name("tool_uses").unwrap();
    ChatTemplate::new(Some(EMBEDDED), dialect, owned(&EMBEDDED_CONTROL), None, Some("<|end|>".into())).unwrap()
}

fn plain(source: Option<&str>, dialect: &str) -> ChatTemplate {
    let control = owned(&["<|im_start|>", "<|im_end|>", "<s>", "</s>"]);
    ChatTemplate::new(source, by_name(dialect).unwrap(), control, Some("<s>".into()), Some("<|im_end|>".into()))
        .unwrap()
}

fn text(segments: &[Segment]) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Control(text) | Segment::Text(text) => text.clone(),
    };
    segments.iter().map(part).collect()
}

fn controls(segments: &[Segment]) -> Vec<String> {
    let control = |segment: &Segment| match segment {
        Segment::Control(text) => Some(text.clone()),
        Segment::Text(_) => None,
    };
    segments.iter().filter_map(control).collect()
}

fn call(id: &str, name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments }
}

fn calls(calls: Vec<ToolCall>) -> Message {
    Message { tool_calls: calls, ..Message::text(Role::Assistant, "") }
}

fn result(id: &str, content: &str) -> Message {
    Message { tool_call_id: Some(id.into()), name: Some("weather".into()), ..Message::text(Role::Tool, content) }
}

fn weather() -> Tool {
    let parameters = json!({"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Name of the city"},
        "days": {"type": "integer", "minimum": 1, "maximum": 10, "default": 2},
        "unit": {"enum": ["c", "f", 3]},
        "spots": {"type": "array", "items": {"type": "object", "required": ["x"], "properties": {
            "x": {"type": "number", "exclusiveMinimum": 0}, "tags": {"type": "array", "items": {"type": ["string", "null"]}}}}}}});
    Tool {
        name: "weather".into(),
        description: Some("Weather of\na city".into()),
        parameters: Some(parameters),
        strict: false,
    }
}

fn now() -> Tool {
    Tool { name: "now".into(), description: None, parameters: None, strict: false }
}

/// System, question, one call, its result, answer, next question.
fn conversation() -> Conversation {
    Conversation {
        messages: vec![
            Message::text(Role::System, " Be brief. "),
            Message::text(Role::User, "Weather in Rome?"),
            calls(vec![call("call_0123456789", "weather", json!({"unit": "c", "city": "Rome"}))]),
            result("call_0123456789", r#"{"sky": "CLEAR"}"#),
            Message::text(Role::Assistant, "Clear."),
            Message::text(Role::User, "Thanks"),
        ],
        tools: vec![weather(), now()],
        parallel_tool_calls: true,
        ..Conversation::default()
    }
}

#[test]
fn the_embedded_template_renders_its_documented_format() {
    let expected = concat!(
        "<|system|>Be brief.\n\nnamespace functions {\n// Weather of a city\ntype weather = (_: {\ncity: string, // Name of the city\n",
        "days?: integer /* 1..10, default 2 */,\nunit?: \"c\" | \"f\" | 3,\n",
        "spots?: { x: number /* >0.. */, tags?: (string | null)[] }[],\n}) => any;\ntype now = (_: {\n}) => any;\n}<|end|>",
        "<|user|>Weather in Rome?<|end|>",
        "<|assistant|>{\"tool_uses\":[{\"recipient_name\":\"functions.weather\",\"parameters\":{\"unit\":\"c\",\"city\":\"Rome\"}}]}<|end|>",
        "<|tool|>[{\"sky\": \"CLEAR\"}]<|end|><|assistant|>Clear.<|end|>",
        "<|user|>Thanks<|end|><|assistant|>",
    );
    assert_eq!(text(&embedded().render(&conversation(), true).unwrap()), expected);
}

#[test]
fn the_embedded_template_without_tools_shows_no_functions() {
    let mut chat = conversation();
    chat.tool_choice = ToolChoice::None;
    chat.messages.truncate(2);
    assert_eq!(
        text(&embedded().render(&chat, true).unwrap()),
        "<|system|>Be brief.<|end|><|user|>Weather in Rome?<|end|><|assistant|>"
    );
    chat.messages.remove(0);
    assert_eq!(text(&embedded().render(&chat, false).unwrap()), "<|user|>Weather in Rome?<|end|>");
}

#[test]
fn the_embedded_templates_calls_are_those_of_the_dialect() {
    let made = vec![call("a", "weather", json!({"z": "é<\"\n", "a": [1, 2.5, {}]})), call("b", "now", json!({}))];
    let expected = by_name("tool_uses").unwrap().render_calls(&made);
    let results = [result("a", " {\"x\": 1} "), result("b", "it's \"noon\"")];
    let shown = by_name("tool_uses").unwrap().render_results(&results).unwrap();
    let mut chat = conversation();
    chat.messages.splice(2..4, [calls(made)].into_iter().chain(results));
    let prompt = text(&embedded().render(&chat, true).unwrap());
    assert!(prompt.contains(&format!("<|assistant|>{expected}<|end|><|tool|>{shown}<|end|>")), "{prompt}");
}

#[test]
fn a_prompt_is_a_prefix_of_the_longer_conversation() {
    let mut chat = conversation();
    chat.messages.push(calls(vec![call("b", "now", json!({})), call("c", "now", json!({}))]));
    chat.messages.extend([result("b", "noon"), result("c", "[1]"), Message::text(Role::Assistant, "Noon.")]);
    let whole = text(&embedded().render(&chat, false).unwrap());
    let assistant_turns = chat.messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant);
    for (turn, _) in assistant_turns {
        let before = Conversation { messages: chat.messages[..turn].to_vec(), ..chat.clone() };
        let prompt = text(&embedded().render(&before, true).unwrap());
        assert!(whole.starts_with(&prompt), "turn {turn}: {prompt}");
    }
}

#[test]
fn deeply_nested_schemas_are_an_error_or_a_prompt_but_never_a_crash() {
    let mut schema = json!({"type": "string"});
    for _ in 0..120 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    let mut chat = conversation();
    chat.tools[0].parameters = Some(schema);
    let result = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || embedded().render(&chat, true).map(drop))
        .unwrap();
    let _either = result.join().unwrap();
}

#[test]
fn without_a_template_the_dialect_describes_the_tools() {
    let prompt = text(&plain(None, "hermes").render(&conversation(), true).unwrap());
    assert!(prompt.starts_with("<s><|im_start|>system\n Be brief. \n\n# Tools\n\nYou may call"), "{prompt}");
    let call =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"unit\": \"c\", \"city\": \"Rome\"}}\n</tool_call>";
    assert!(prompt.contains(&format!("<|im_start|>assistant\n{call}<|im_end|>\n")), "{prompt}");
    assert!(
        prompt.contains("<|im_start|>tool\n<tool_response>\n{\"sky\": \"CLEAR\"}\n</tool_response><|im_end|>"),
        "{prompt}"
    );
    assert!(prompt.ends_with("<|im_start|>assistant\n"), "{prompt}");
}

#[test]
fn a_system_message_is_made_when_there_is_none_and_tools_are_left_out_on_request() {
    let template = plain(None, "tool_uses");
    let mut chat = conversation();
    chat.messages.remove(0);
    assert!(text(&template.render(&chat, true).unwrap()).starts_with("<s><|im_start|>system\n# Tools\n\n## functions"));
    chat.tool_choice = ToolChoice::None;
    assert!(text(&template.render(&chat, true).unwrap()).starts_with("<s><|im_start|>user\nWeather in Rome?"));
}

#[test]
fn a_template_that_shows_functions_alone_leaves_calls_to_the_dialect() {
    let source = "{% if tools %}[{% for tool in tools %}{{ tool.function.name }}{% endfor %}]{% endif %}\
        {% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let shown = text(&plain(Some(source), "viggo").render(&conversation(), false).unwrap());
    let expected = "[weathernow]<system> Be brief. <user>Weather in Rome?<assistant>weather(unit[c], city[Rome])<tool>{\"sky\": \"CLEAR\"}";
    assert!(shown.starts_with(expected), "{shown}");
}

#[test]
fn a_template_that_shows_calls_beside_functions_alone_is_used_as_it_is() {
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\
        {% if tools %}{% for call in m.tool_calls %}<<{{ call.function.name }}>>{% endfor %}{% endif %}{% endfor %}";
    let shown = text(&plain(Some(source), "viggo").render(&conversation(), false).unwrap());
    assert!(shown.contains("<assistant><<weather>><tool>"), "{shown}");
}

#[test]
fn roles_that_a_template_refuses_become_user_messages() {
    let source = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}\
        [{{ m.role }}]{{ m.content }}{% endfor %}";
    let mut chat = conversation();
    let second = result("b", "2");
    chat.messages.insert(4, second);
    let prompt = text(&plain(Some(source), "tool_uses").render(&chat, true).unwrap());
    assert!(prompt.starts_with("[user] Be brief. \n\n# Tools"), "{prompt}");
    assert!(prompt.contains("[user][{\"sky\": \"CLEAR\"},2][assistant]Clear."), "{prompt}");
}

#[test]
fn mistrals_nine_character_ids_are_made_from_any_id() {
    let source = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ raise_exception('id') if c.id|length != 9 }}({{ c.id }}){{ c.function.name }}\
        {% endfor %}({{ m.tool_call_id }}){% endfor %}{{ tools|length }}";
    let prompt = text(&plain(Some(source), "tool_uses").render(&conversation(), true).unwrap());
    let ids: Vec<_> = prompt.split(['(', ')']).filter(|part| part.len() == 9).collect();
    assert_eq!(ids.len(), 2, "{prompt}");
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_template_that_renders_nothing_it_is_given_is_refused_with_its_own_words() {
    let error = ChatTemplate::new(
        Some("{{ raise_exception('no chat model') }}"),
        by_name("hermes").unwrap(),
        vec![],
        None,
        None,
    );
    assert!(error.err().unwrap().to_string().contains("no chat model"));
}

/// The golden files are what Python's jinja2 3.1.6 makes of `conversation()`, set up as Hugging Face's transformers set it up.
#[test]
fn real_templates_render_as_hugging_face_renders_them() {
    let Some(templates) = data_set("chat-templates") else { return };
    for (name, expected) in GOLDEN {
        let source = std::fs::read_to_string(templates.join(format!("{name}.jinja"))).unwrap();
        let control = owned(&["<|im_start|>", "<|im_end|>", "<|eot_id|>", "[INST]", "[/INST]", "<s>", "</s>"]);
        let (bos, eos) = (Some("<s>".to_owned()), Some("</s>".to_owned()));
        let template =
            ChatTemplate::new(Some(&source), for_template(Some(&source)).unwrap(), control, bos, eos).unwrap();
        let prompt = text(&template.render(&conversation(), true).unwrap_or_else(|error| panic!("{name}: {error}")));
        assert_eq!(prompt, expected, "{name}");
        assert!(prompt.contains("\"weather\"") && prompt.contains("CLEAR"), "{name}");
    }
}

/// A call's text as a template shows it must be what the dialect's grammar lets the model write, and be read back as that call.
#[test]
fn calls_of_real_templates_are_accepted_and_read_back() {
    let Some(templates) = data_set("chat-templates") else { return };
    for (name, _) in GOLDEN {
        let source = std::fs::read_to_string(templates.join(format!("{name}.jinja"))).unwrap();
        let dialect = for_template(Some(&source)).unwrap();
        let ends = ["<|im_end|>", "<|eot_id|>", "</s>"];
        let (bos, eos) = (Some("<s>".to_owned()), Some("</s>".to_owned()));
        let template = ChatTemplate::new(Some(&source), dialect.clone(), owned(&ends), bos, eos).unwrap();
        let mut chat = conversation();
        // Mistral's template moves the system message to the last question.
        chat.messages.remove(0);
        if template.several_calls() {
            let turn = &mut chat.messages[1].tool_calls;
            turn.push(call("call_9876543210", "now", json!({})));
            chat.messages.insert(2, result("call_9876543210", "noon"));
        }
        let before = Conversation { messages: chat.messages[..1].to_vec(), ..chat.clone() };
        let upto = Conversation { messages: chat.messages[..2].to_vec(), ..chat.clone() };
        let prompt = template.render(&before, true).unwrap();
        let shown = text(&template.render(&upto, false).unwrap());
        let turn = shown.strip_prefix(&text(&prompt)).unwrap_or_else(|| panic!("{name}: {shown}")).trim_end();
        let turn = ends.iter().find_map(|end| turn.strip_suffix(end)).unwrap_or_else(|| panic!("{name}: {turn}"));
        let reasoning = template.reasoning_after(&prompt);
        assert_eq!(reasoning == Reasoning::Optional, name.contains("Qwen3"), "{name}");
        check_turn(name, dialect.as_ref(), reasoning, turn, &chat.messages[1].tool_calls);
        let whole = text(&template.render(&chat, true).unwrap());
        assert!(whole.contains("CLEAR") && (!template.several_calls() || whole.contains("noon")), "{name}: {whole}");
    }
}

fn check_turn(name: &str, dialect: &dyn Dialect, reasoning: Reasoning, turn: &str, calls: &[ToolCall]) {
    let admit = |tool: Tool| (tool.name.clone(), admit_parameters(&tool.parameters).unwrap());
    let (tools, control) = ([admit(weather_in_order()), admit(now())], ControlTokens::new());
    let spec = TurnSpec {
        tools: &tools,
        choice: &ToolChoice::Auto,
        parallel: true,
        reasoning,
        control: &control,
        answer: None,
    };
    let constraint = TextGrammars::new().unwrap().compile(&dialect.grammar(&spec).unwrap()).unwrap();
    let verdict = verdict(constraint, turn.as_bytes()).unwrap();
    assert!(verdict.accepted, "{name} ({}): {} << {verdict:?}", dialect.name(), &turn[..verdict.at]);
    let answer = reasoning::split(reasoning, turn).rest;
    let mut parser = dialect.parser(&tools);
    let mut read: Vec<(String, String)> = Vec::new();
    for delta in [parser.push(&answer), parser.finish()].concat() {
        match delta {
            Delta::CallStart { name, .. } => read.push((name, String::new())),
            Delta::CallArguments { index, fragment } => read[index].1.push_str(&fragment),
            Delta::Text(text) => panic!("{name}: {text}"),
            _ => {}
        }
    }
    let read: Vec<(String, Value)> =
        read.into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect();
    let expected: Vec<_> = calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
    assert_eq!(read, expected, "{name}");
}

/// The tool of `conversation()` with its properties in the order of the call there.
fn weather_in_order() -> Tool {
    let parameters = json!({"type": "object", "required": ["city"], "properties": {"unit": {"enum": ["c", "f", 3]}, "city": {"type": "string"}}});
    Tool { parameters: Some(parameters), ..weather() }
}

#[test]
fn a_template_of_single_calls_is_given_single_calls() {
    let source = "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls|length != 1 %}{{ raise_exception('one') }}{% endif %}\
        ({{ m.tool_calls[0].function.name }}){% endif %}{{ m.content }}{% endfor %}{{ tools or '' }}";
    let template = plain(Some(source), "llama3");
    assert!(!template.several_calls() && plain(None, "hermes").several_calls());
    let mut chat = conversation();
    chat.messages[2].tool_calls.push(call("b", "now", json!({})));
    chat.messages.insert(3, result("b", "noon"));
    let prompt = text(&template.render(&chat, true).unwrap());
    assert!(prompt.contains("(weather){\"sky\": \"CLEAR\"}(now)noonClear."), "{prompt}");
}

/// The conversation with caller-written strings in every place that takes one.
fn filled(strings: &[String; 7]) -> Conversation {
    let [system, user, name, key, value, answer, output] = strings.clone();
    let mut chat = conversation();
    chat.messages[0].content = system;
    chat.messages[1].content = user.clone();
    chat.messages[2] = calls(vec![call(&value, &name, json!({key.clone(): value.clone()}))]);
    chat.messages[3] =
        Message { tool_call_id: Some(value), name: Some(name.clone()), ..Message::text(Role::Tool, output) };
    chat.messages[4].content = answer;
    let property = json!({"description": user, "enum": [key]});
    let parameters = json!({"type": "object", "properties": {key.clone(): property}, "required": [key]});
    chat.tools = vec![Tool { name, description: Some(user), parameters: Some(parameters), strict: false }];
    chat
}

fn hostile_string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(EMBEDDED_CONTROL.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec!["<|im_start|>", "<|im_end|>", "<s>", "</s>"]).prop_map(str::to_owned),
        prop::sample::select(vec![
            "<", "<|", "|>", ">", "end|>", "<|end", "<|im_", "im_end|>", " ", "\n", "\"", "\\", "x", "{", "é"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn segments_equal_except_content(template: &ChatTemplate, hostile: &[String; 7]) {
    let benign = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned);
    let expected = controls(&template.render(&filled(&benign), true).unwrap());
    let found = template.render(&filled(hostile), true).unwrap();
    assert_eq!(controls(&found), expected, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn content_never_changes_the_control_tokens(hostile in prop::array::uniform7(hostile_string())) {
        segments_equal_except_content(&embedded(), &hostile);
        segments_equal_except_content(&plain(None, "hermes"), &hostile);
        segments_equal_except_content(&plain(None, "tool_uses"), &hostile);
    }

    #[test]
    fn content_comes_out_as_it_went_in(hostile in hostile_string()) {
        let chat = Conversation { messages: vec![Message::text(Role::User, hostile.clone())], ..Conversation::default() };
        let expected = format!("<|user|>{}<|end|><|assistant|>", hostile.trim());
        prop_assert_eq!(text(&embedded().render(&chat, true).unwrap()), expected);
    }
}
