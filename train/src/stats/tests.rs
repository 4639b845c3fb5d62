use super::*;
use callsmith::chat::dialect::DialectChoice;
use serde_json::json;

const WEATHER: &str = r#"{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"unit":{"type":"string","enum":["C","F"]},"days":{"type":"integer"}}}}}"#;
const CLOCK: &str = r#"{"type":"function","function":{"name":"clock"}}"#;

fn call(name: &str, arguments: &Value) -> Value {
    json!({"id": "1", "type": "function", "function": {"name": name, "arguments": arguments.to_string()}})
}

fn calls(calls: &[Value]) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

fn said(role: &str, text: &str) -> Value {
    json!({"role": role, "content": text})
}

fn dialogue(messages: &[Value], tools: &[&str]) -> String {
    let tools: Vec<Value> = tools.iter().map(|tool| serde_json::from_str(tool).unwrap()).collect();
    json!({"messages": messages, "tools": tools}).to_string()
}

/// A dialogue of each kind of answer.
fn all_kinds() -> Vec<String> {
    let weather = |city| call("weather", &json!({"city": city, "unit": "C"}));
    let user = || said("user", "What is it like in Rome?");
    vec![
        dialogue(&[user(), calls(&[weather("Rome")])], &[WEATHER, CLOCK]),
        dialogue(&[user(), calls(&[weather("Rome"), weather("Oslo")])], &[WEATHER]),
        dialogue(
            &[
                user(),
                calls(&[call("weather", &json!({"city": "Rome", "days": 3}))]),
                said("tool", "{}"),
                calls(&[call("weather", &json!({"city": "Bari", "days": 0.5}))]),
                said("tool", "{}"),
                said("assistant", "Sunny."),
            ],
            &[WEATHER],
        ),
        dialogue(&[user(), said("assistant", "I cannot see it.")], &[CLOCK]),
        dialogue(&[user(), said("assistant", "Hello!")], &[]),
    ]
}

fn stats_of(lines: &[String]) -> Stats {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    Stats::of_files(&[file.path().to_owned()], 1 << 20, &Encoder::embedded(&DialectChoice::default()).unwrap()).unwrap()
}

#[test]
fn every_answer_is_of_one_kind() {
    let stats = stats_of(&all_kinds());
    let kinds: Vec<_> = Answer::ALL.iter().map(|kind| stats.kinds[kind]).collect();
    assert_eq!(kinds, [2, 1, 1, 1, 1, 1]);
    assert_eq!(kinds.iter().sum::<u64>(), stats.answers.total());
    assert_eq!((stats.calls.total(), stats.calls.largest(), stats.user_turns.total()), (5, 2, 5));
}

#[test]
fn functions_and_values_are_counted_by_name_and_type() {
    let stats = stats_of(&all_kinds());
    assert_eq!(stats.by_use(), [("weather", Uses { offered: 3, called: 5 })]);
    assert_eq!(stats.never_called(), [("clock", Uses { offered: 2, called: 0 })]);
    let types: Vec<_> = stats.value_types.iter().map(|(&kind, &count)| (kind, count)).collect();
    assert_eq!(types, [("integer", 1), ("number", 1), ("string", 5), ("string (enum)", 3)]);
}

#[test]
fn lengths_are_those_of_the_samples_that_are_trained_on() {
    let encoder = Encoder::embedded(&DialectChoice::default()).unwrap();
    let lines = all_kinds();
    let stats = stats_of(&lines);
    let examples: Vec<_> = lines
        .iter()
        .map(|line| encoder.example(&native::from_line(line, "x").unwrap(), Weights::default()).unwrap())
        .collect();
    let trained: usize = examples.iter().flat_map(|one| &one.weights).filter(|&&weight| weight > 0.0).count();
    assert_eq!(stats.whole, examples.iter().map(|one| one.tokens.len()).collect());
    assert_eq!(stats.response.total(), trained as u64);
    assert_eq!(stats.prompt.total() + stats.response.total(), stats.whole.total());
}

#[test]
fn lines_that_cannot_be_used_are_counted_with_place_and_reason() {
    let mut lines = all_kinds();
    lines.insert(1, "{\"messages\":".to_owned());
    lines.insert(3, dialogue(&[said("user", "hi")], &[]));
    let stats = stats_of(&lines);
    assert_eq!((stats.dialogues(), stats.unusable), (5, 2));
    assert!(stats.reasons[0].contains(":2: not JSON"), "{:?}", stats.reasons);
    assert!(stats.reasons[1].contains(":4: ") && stats.reasons[1].contains("no assistant"), "{:?}", stats.reasons);
    let table = stats.table();
    assert!(table.contains("2 lines cannot be trained on") && table.contains(":2: not JSON"), "{table}");
}

#[test]
fn a_function_that_nothing_offers_is_told() {
    let line = dialogue(&[said("user", "hi"), calls(&[call("clock", &json!({}))])], &[WEATHER]);
    let stats = stats_of(&[line]);
    assert_eq!(stats.never_offered().collect::<Vec<_>>(), ["clock"]);
    assert_eq!(stats.to_json()["functions"]["never_offered"], json!(["clock"]));
}

#[test]
fn answers_that_are_not_trained_on_are_counted_apart() {
    let mut wrong = calls(&[call("clock", &json!({})), call("weather", &json!({"days": 1}))]);
    wrong["weight"] = json!(0);
    let right = calls(&[call("weather", &json!({"city": "Rome"}))]);
    let stats = stats_of(&[dialogue(
        &[said("user", "hi"), wrong, said("tool", "no"), said("tool", "no"), right],
        &[WEATHER, CLOCK],
    )]);
    assert_eq!((stats.untrained, stats.untrained_calls), (1, 2));
    assert_eq!((stats.answers.total(), stats.calls.total(), stats.kinds[&Answer::Dependent]), (1, 1, 1));
    assert_eq!(stats.never_called(), [("clock", Uses { offered: 1, called: 0 })]);
    assert_eq!(stats.value_types.into_iter().collect::<Vec<_>>(), [("string", 1)]);
}

#[test]
fn classes_are_counted_where_dialogues_have_them() {
    let classless = all_kinds();
    assert!(stats_of(&classless).by_class().is_empty());
    let of_class = |line: &String, class: &str| {
        let mut json: Value = serde_json::from_str(line).unwrap();
        json["metadata"] = json!({"class": class});
        json.to_string()
    };
    let named =
        [of_class(&classless[0], "single"), of_class(&classless[1], "parallel"), of_class(&classless[0], "single")];
    let stats = stats_of(&[&classless[3..], &named].concat());
    assert_eq!(stats.by_class(), [("single", 2), ("parallel", 1), ("(none)", 2)]);
    assert_eq!(stats.to_json()["classes"], json!({"single": 2, "parallel": 1}));
    let table = stats.table();
    let rows = format!("{:<28}{:>9}\n{:<28}{:>9}{:>8.1} %", "dialogues by class", 5, "single", 2, 40.0);
    assert!(table.contains(&rows), "{table}");
}

#[test]
fn the_page_holds_a_plot_for_each_distribution_and_escapes_what_files_say() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("page.html");
    let mut lines = all_kinds();
    lines.push(dialogue(&[said("user", "hi"), calls(&[call("a<script>b", &json!({}))])], &[]));
    let stats = stats_of(&lines);
    page::write(&path, &["some/file.jsonl".into()], &stats).unwrap();
    let html = std::fs::read_to_string(&path).unwrap();
    assert_eq!(html.matches("<svg").count(), stats.distributions().len() + 1);
    assert!(html.contains("a&lt;script&gt;b") && !html.contains("a<script>b") && !html.contains("src="));
    assert!(html.contains("Offered and never called") && html.contains("some&#x2f;file.jsonl"), "{html}");
}
