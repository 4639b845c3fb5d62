//! Acts: what the grammar takes, how their text is read, and what cannot be written.

use super::super::{ControlTokens, Delta};
use super::*;
use crate::chat::reasoning::Reasoning;
use crate::grammar::schema::admit_parameters;
use crate::grammar::testing::{Lab, byte_env};
use crate::testing::data_set;
use serde_json::json;

fn inform() -> Function {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string"},
        "release_year": {"type": "integer", "minimum": 1950, "maximum": 2050},
        "rating": {"enum": ["good", "poor"]},
        "genres": {"type": "array", "items": {"type": "string"}},
        "has_mac_release": {"type": "boolean"}}, "required": ["name"]});
    ("inform".to_owned(), admit_parameters(&Some(schema)).unwrap())
}

fn thanks() -> Function {
    ("thanks".to_owned(), admit_parameters(&None).unwrap())
}

fn lark(tools: &[Function], choice: &ToolChoice) -> Result<String, ChatError> {
    let control = ControlTokens::new();
    Viggo.grammar(&TurnSpec {
        tools,
        choice,
        parallel: true,
        reasoning: Reasoning::Absent,
        control: &control,
        answer: None,
    })
}

fn check(choice: &ToolChoice, table: &[(&str, bool)]) {
    let lab = Lab::new(byte_env());
    let lark = lark(&[inform(), thanks()], choice).unwrap();
    let constraint = lab.compiler.compile_blocking(&lark).unwrap();
    for (text, expected) in table {
        assert_eq!(lab.accepts(constraint.fork(), text), *expected, "{text}\n{lark}");
    }
}

#[test]
fn an_act_has_its_attributes_in_order_and_no_others() {
    let table = [
        ("thanks()", true),
        ("inform(name[Dirt: Showdown])", true),
        ("inform(name[], release_year[2012], genres[driving/racing, sport], has_mac_release[no])", true),
        ("inform(name[x], genres[])", true),
        ("inform(name[x], rating[good])", true),
        ("inform()", false),
        ("inform(genres[a], name[x])", false),
        ("inform(name[x], rating[fine])", false),
        ("inform(name[x], release_year[1900])", false),
        ("inform(name[x], genres[a,b])", false),
        ("inform(name[x],rating[good])", false),
        ("inform(name[x]) ", false),
        ("inform(name[a[b]])", false),
        ("other()", false),
        ("words", false),
    ];
    check(&ToolChoice::Required, &table);
    check(&ToolChoice::Named("thanks".into()), &[("thanks()", true), ("inform(name[x])", false)]);
}

#[test]
fn words_cannot_be_mistaken_for_an_act() {
    let auto = [("Hello (you)", true), ("informed", true), ("thanks()", true), ("inform(", false), ("", false)];
    check(&ToolChoice::Auto, &auto);
    check(&ToolChoice::None, &[("Hello", true), ("thanks()", false), ("thanks a lot", true)]);
}

/// The text a client would see, and the call's arguments.
fn read(pieces: &[&str]) -> (String, Option<Value>) {
    let mut parser = Viggo.parser(&[inform(), thanks()]);
    let mut deltas: Vec<Delta> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    let (mut text, mut arguments) = (String::new(), String::new());
    for delta in deltas {
        match delta {
            Delta::Text(more) => text.push_str(&more),
            Delta::CallArguments { fragment, .. } => arguments.push_str(&fragment),
            _ => {}
        }
    }
    (text, serde_json::from_str(&arguments).ok())
}

#[test]
fn attributes_become_arguments_of_their_types_however_the_text_is_split() {
    let text = "inform(name[Dirt: \"S\"], release_year[2012], genres[driving/racing, sport], has_mac_release[no])";
    let expected = json!({"name": "Dirt: \"S\"", "release_year": 2012, "genres": ["driving/racing", "sport"], "has_mac_release": false});
    for cut in 0..text.len() {
        let (words, arguments) = read(&[&text[..cut], &text[cut..]]);
        assert_eq!((words.as_str(), arguments.as_ref()), ("", Some(&expected)), "{cut}");
    }
    assert_eq!(read(&["thanks()"]).1, Some(json!({})));
    assert_eq!(read(&["thanks a lot (really)"]), ("thanks a lot (really)".to_owned(), None));
    assert_eq!(read(&["inform(name[Dirt"]), (String::new(), None), "a cut call is not closed");
}

#[test]
fn what_an_act_cannot_hold_is_refused_by_name() {
    let refused = [
        json!({"a": {"type": "object", "properties": {"b": {"type": "string"}}}}),
        json!({"a": {"type": "string", "pattern": "^x"}}),
        json!({"a": {"enum": ["x]"]}}),
        json!({"a": {"enum": [1, "1"]}}),
        json!({"a": {"type": ["string", "integer"]}}),
        json!({"a": {"type": "array", "items": {"enum": ["x, y"]}}}),
        json!({"a b": {"type": "string"}}),
    ];
    for properties in refused {
        let schema = json!({"type": "object", "properties": properties});
        let tool = ("f".to_owned(), admit_parameters(&Some(schema)).unwrap());
        let error = lark(&[tool], &ToolChoice::Required).unwrap_err();
        assert!(matches!(&error, ChatError::Inexpressible { function, .. } if function == "f"), "{error}");
    }
    let nullable = json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}}});
    let tool = ("f".to_owned(), admit_parameters(&Some(nullable)).unwrap());
    assert!(lark(&[tool], &ToolChoice::Required).is_ok(), "without a value it is left out");
}

/// The functions and attributes of the ViGGO task.
fn task() -> Vec<Function> {
    let text = json!({"type": "string"});
    let list = json!({"type": "array", "items": text});
    let properties = json!({
        "name": text, "exp_release_date": text, "release_year": text, "developer": text, "esrb": text,
        "rating": text, "genres": list, "player_perspective": list, "has_multiplayer": text,
        "platforms": list, "available_on_steam": text, "has_linux_release": text, "has_mac_release": text, "specifier": text});
    let schema = admit_parameters(&Some(json!({"type": "object", "properties": properties}))).unwrap();
    let acts =
        "inform request give_opinion confirm verify_attribute suggest request_explanation recommend request_attribute";
    acts.split(' ').map(|act| (act.to_owned(), schema.clone())).collect()
}

#[test]
fn every_meaning_of_viggo_is_taken_and_read_back() {
    let Some(viggo) = data_set("viggo") else { return };
    let lab = Lab::new(byte_env());
    let tools = task();
    let constraint = lab.compiler.compile_blocking(&lark(&tools, &ToolChoice::Required).unwrap()).unwrap();
    let mut meanings: Vec<String> = ["train.csv", "valid.csv"]
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(viggo.join(file)).unwrap();
            text.lines().skip(1).map(|line| meaning(line).to_owned()).collect::<Vec<_>>()
        })
        .collect();
    meanings.sort();
    meanings.dedup();
    assert!(meanings.len() > 1_500, "{}", meanings.len());
    for text in &meanings {
        assert!(lab.accepts(constraint.fork(), text), "{text}");
        let mut parser = Viggo.parser(&tools);
        let deltas = [parser.push(text), parser.finish()].concat();
        let name = deltas.iter().find_map(|delta| match delta {
            Delta::CallStart { name, .. } => Some(name.clone()),
            _ => None,
        });
        let arguments: String = deltas
            .iter()
            .filter_map(|delta| match delta {
                Delta::CallArguments { fragment, .. } => Some(fragment.as_str()),
                _ => None,
            })
            .collect();
        let arguments = serde_json::from_str(&arguments).unwrap();
        let call = ToolCall { id: String::new(), name: name.unwrap(), arguments };
        assert_eq!(Viggo.render_calls(&[call]), *text);
    }
}

/// The first field of a CSV line: quoted where it contains commas.
fn meaning(line: &str) -> &str {
    match line.strip_prefix('"') {
        Some(quoted) => quoted.split("\",").next().unwrap(),
        None => line.split(',').next().unwrap(),
    }
}

#[test]
fn the_prompt_says_a_set_of_values_once() {
    let tool = |name: &str, values: Value| Tool {
        name: name.into(),
        description: None,
        parameters: Some(json!({"properties": {"rating": {"enum": values}, "n": {"type": "integer"}}})),
        strict: false,
    };
    let tools =
        [tool("inform", json!(["good", true])), tool("confirm", json!(["good", true])), tool("request", json!([""]))];
    let prompt = Viggo.system_prompt(&tools, &ToolChoice::Auto).unwrap();
    let shown =
        "order:\ninform(rating, n)\nconfirm(rating, n)\nrequest(rating[], n)\nValues: rating[good | yes]\nWhere";
    assert!(prompt.contains(shown), "{prompt}");
}
