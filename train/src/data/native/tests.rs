//! Lines that are read and written again, and what is said of those that are wrong.

use super::*;

const LINE: &str = r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"b\":1,\"a\":[\"é\"]}"}}]},{"role":"tool","content":"{}","tool_call_id":"call_1","name":"f"}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]}"#;

fn error_of(line: &str) -> String {
    from_line(line, "x.jsonl line 3").err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn a_conversation_survives_the_round_trip() {
    let read = from_line(LINE, "test").unwrap();
    assert_eq!(to_json(&read).to_string(), LINE);
    assert_eq!(read.messages[1].tool_calls[0].arguments.to_string(), r#"{"b":1,"a":["é"]}"#);
    assert!(read.parallel_tool_calls);
}

#[test]
fn an_error_names_line_and_field() {
    assert_eq!(error_of("{"), "x.jsonl line 3: not JSON: EOF while parsing an object at line 1 column 1");
    assert_eq!(error_of("{}"), "x.jsonl line 3: `messages`: is missing");
    assert!(
        error_of(r#"{"messages":[{"role":"robot","content":""}]}"#)
            .contains("`messages[0].role`: unknown role `robot`")
    );
    assert!(error_of(r#"{"messages":[{"role":"user"}]}"#).contains("`messages[0].content`: is missing"));
    let broken = LINE.replace(r#"{\"b\":1,\"a\":[\"é\"]}"#, "[");
    assert!(error_of(&broken).contains("`messages[1].tool_calls[0].function.arguments`: is not JSON text"));
    assert!(error_of(&LINE.replace("\"tools\":[", "\"tools\":[3,")).contains("`tools[0]`: must be an object"));
    assert!(error_of(r#"{"messages":[{"role":"user","content":"a"}],"tool_choice":"any"}"#).contains("unknown `any`"));
}

#[test]
fn the_older_form_of_calls_is_refused_with_the_name_of_the_newer_one() {
    let older = |place: &str, text: &str| error_of(&LINE.replacen(place, &format!("{place}{text}"), 1));
    let call = older(r#""content":null,"#, r#""function_call":{"name":"f","arguments":"{}"},"#);
    assert!(call.contains("`messages[1].function_call`: is the older form") && call.contains("`tool_calls`"), "{call}");
    assert!(older("{", r#""functions":[{"name":"f"}],"#).contains("`functions`: is the older form"));
    assert!(older("{", r#""function_call":"auto","#).contains("write it as `tool_choice`"));
    assert_eq!(older("{", r#""functions":null,"#), "");
}

#[test]
fn content_may_be_a_list_of_text_parts() {
    let parts = r#""content":[{"type":"text","text":"h"},{"type":"text","text":"i"}]"#;
    let line = LINE.replace(r#""content":"hi""#, parts);
    assert_eq!(to_json(&from_line(&line, "test").unwrap()).to_string(), LINE);
    let image = error_of(&line.replacen(r#""type":"text""#, r#""type":"image_url""#, 1));
    assert!(image.contains("`messages[0].content[0]`: is a part of type `image_url`; only text"), "{image}");
}

#[test]
fn arguments_that_name_a_key_twice_are_refused() {
    let twice = error_of(&LINE.replace(r#"{\"b\":1,"#, r#"{\"b\":1,\"b\":2,"#));
    assert!(twice.contains("function.arguments`: is not JSON text: the key `b` stands twice"), "{twice}");
}

#[test]
fn every_choice_of_tools_survives_the_round_trip() {
    for choice in [ToolChoice::None, ToolChoice::Auto, ToolChoice::Required, ToolChoice::Named("f".into())] {
        let mut conversation = from_line(LINE, "test").unwrap();
        (conversation.tool_choice, conversation.parallel_tool_calls) = (choice.clone(), false);
        let again = from_json(&to_json(&conversation), "test").unwrap();
        assert_eq!((again.tool_choice, again.parallel_tool_calls), (choice, false));
    }
}

#[test]
fn weights_and_class_survive_the_round_trip() {
    let line = LINE.replace(r#""content":null,"#, r#""weight":0,"content":null,"#);
    let read = dialogue_from_line(&line, "test").unwrap();
    assert_eq!(read.untrained, BTreeSet::from([1]));
    assert_eq!(read.trained().count(), 0);
    let again = dialogue_from_line(&dialogue_to_json(&read).to_string(), "test").unwrap();
    assert_eq!(again.untrained, read.untrained);
    let of_class = line.replace("\"tools\":", "\"metadata\":{\"class\":\"single\"},\"tools\":");
    let read = dialogue_from_line(&of_class, "test").unwrap();
    assert_eq!(dialogue_to_json(&read)["metadata"], json!({"class": "single"}));
    let one = LINE.replace(r#""content":null,"#, r#""weight":1,"content":null,"#);
    assert_eq!(dialogue_from_line(&one, "test").unwrap().trained().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_weight_is_zero_or_one_and_the_assistants() {
    let with = |weight: &str| LINE.replace(r#""content":null,"#, &format!(r#""weight":{weight},"content":null,"#));
    for wrong in ["0.5", "2", "-1", "true", r#""0""#] {
        let message = error_of(&with(wrong));
        assert!(message.contains("`messages[1].weight`: must be 0"), "{wrong}: {message}");
    }
    let users = LINE.replace(r#""content":"hi""#, r#""content":"hi","weight":0"#);
    assert!(error_of(&users).contains("`messages[0].weight`: belongs to assistant messages"));
}
