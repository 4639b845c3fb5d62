//! `eval`: the real command on a few rows, the shipped model answering in its process or behind a server's URL.

use callsmith::cli::{Cli, Subcommands};
use callsmith::serve::Loaded;
use callsmith::settings::Settings;
use clap::Parser;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tokio::runtime::Runtime;

const VIGGO: &str = "mr,ref\n\
    \"inform(name[Portal 2], genres[puzzle, platformer])\",Portal 2 is a puzzle platformer.\n\
    request(specifier[scary]),What is the scariest game?\n\
    \"suggest(name[BioShock], has_mac_release[yes])\",\"Do you, too, play BioShock on a Mac?\"\n";

/// A folder with the rows of each kind of evaluation.
fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("viggo.csv"), VIGGO).unwrap();
    let question = |number: usize, city: &str| {
        let schema = json!({"type": "dict", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let function = json!({"name": "weather.get", "description": "Get the weather of a city", "parameters": schema});
        let turn = json!([[{"role": "user", "content": format!("What is the weather in {city}?")}]]);
        json!({"id": format!("simple_python_{number}"), "question": turn, "function": [function]})
    };
    let answer = |number: usize, city: &str| json!({"id": format!("simple_python_{number}"), "ground_truth": [{"weather.get": {"city": [city]}}]});
    let cities = || (0..).zip(["Paris", "Rome"]);
    let lines = |values: Vec<Value>| values.iter().map(|value| format!("{value}\n")).collect::<String>();
    let questions = lines(cities().map(|(number, city)| question(number, city)).collect());
    fs::write(root.path().join("questions.json"), questions).unwrap();
    let answers = lines(cities().map(|(number, city)| answer(number, city)).collect());
    fs::write(root.path().join("answers.json"), answers).unwrap();
    root
}

fn eval(root: &tempfile::TempDir, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith-train"));
    command.current_dir(root.path()).arg("eval").args(line.split_whitespace()).output().unwrap()
}

/// The JSON that a good run prints, and nothing beside it.
fn metrics(root: &tempfile::TempDir, line: &str) -> Value {
    let output = eval(root, &format!("{line} --json"));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a refused run says.
fn refusal(root: &tempfile::TempDir, line: &str) -> String {
    let output = eval(root, line);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// The replies that are kept, by case.
fn replies(path: &Path) -> Vec<(String, Value)> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["id"].as_str().unwrap().to_owned(), line["reply"].clone())
    };
    let mut replies: Vec<_> = text.lines().skip(1).map(line).collect();
    replies.sort_by(|a, b| a.0.cmp(&b.0));
    replies
}

#[test]
fn viggo_prints_one_object_and_every_answer_under_the_grammar_is_an_act() {
    let root = folder();
    let found = metrics(&root, "viggo --data viggo.csv --out out");
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["function", "attribute_set", "attribute_values", "overall", "exact", "rows", "refused"]);
    assert_eq!(found["rows"], 3);
    for (_, reply) in replies(&root.path().join("out/shipped.answers.jsonl")) {
        let [call] = reply["calls"].as_array().unwrap().as_slice() else { panic!("one call: {reply}") };
        let tools = callsmith_train::data::viggo::tools();
        assert!(tools.iter().any(|tool| call[0] == tool.name), "{reply}");
    }
    let kept: Value = serde_json::from_slice(&fs::read(root.path().join("out/metrics.json")).unwrap()).unwrap();
    assert_eq!(kept, found);
    let page = fs::read_to_string(root.path().join("out/report.html")).unwrap();
    assert!(page.contains("scariest game") && page.contains("suggest(name[BioShock], has_mac_release[yes])"), "{page}");
}

#[test]
fn a_second_run_asks_only_for_what_is_missing_and_refuses_answers_of_other_options() {
    let root = folder();
    let answers = root.path().join("out/shipped.answers.jsonl");
    let line = "viggo --data viggo.csv --max-tokens 12 --out out";
    metrics(&root, &format!("{line} --limit 2"));
    let two = fs::read_to_string(&answers).unwrap();
    assert_eq!(two.lines().count(), 3);
    // An answer that no model gives shows that it was not asked again.
    let marked = two.replacen("\"text\":\"", "\"text\":\"marked", 1);
    fs::write(&answers, &marked).unwrap();
    metrics(&root, line);
    let three = fs::read_to_string(&answers).unwrap();
    assert!(three.starts_with(&marked) && three.lines().count() == 4, "{three}");
    let refused = refusal(&root, "viggo --data viggo.csv --max-tokens 13 --out out");
    assert!(refused.contains("answers of other options") && refused.contains("name another --out"), "{refused}");
    fs::write(root.path().join("viggo.csv"), VIGGO.replace("scariest", "newest")).unwrap();
    let refused = refusal(&root, line);
    assert!(refused.contains("its answer to 3 is to another question"), "{refused}");
    assert_eq!(fs::read_to_string(&answers).unwrap(), three);
}

#[test]
fn a_comparison_is_one_table_with_a_column_for_each_model() {
    let root = folder();
    let line = "bfcl --data questions.json --gold answers.json --compare --max-tokens 40";
    let found = metrics(&root, line);
    let models = found["models"].as_object().unwrap();
    assert_eq!(models.keys().collect::<Vec<_>>(), ["shipped", "shipped, unconstrained"]);
    assert!(models.values().all(|model| model["rows"] == 2), "{found}");
    let table = String::from_utf8(eval(&root, line).stdout).unwrap();
    assert!(table.lines().next().unwrap().ends_with("shipped  shipped, unconstrained"), "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("accuracy"), "{table}");
}

#[test]
fn a_server_is_asked_the_same_and_gives_the_same_calls() {
    let root = folder();
    let runtime = Runtime::new().unwrap();
    let cli = Cli::parse_from(["callsmith", "serve", "--port", "0", "--served-model-name", "base", "--dtype", "f32"]);
    let Some(Subcommands::Serve(args)) = cli.command else { panic!("not serve") };
    let server = runtime.block_on(Loaded::new(Settings::from_args(*args).unwrap())).unwrap();
    let url = format!("http://{}/v1", server.address);
    runtime.spawn(server.accept());
    let line = "bfcl --data questions.json --gold answers.json";
    let remote = metrics(&root, &format!("{line} --url {url} --served-model base --out remote"));
    assert_eq!(remote, metrics(&root, &format!("{line} --out local")));
    let calls = |path: &str| {
        let replies = replies(&root.path().join(path)).into_iter();
        replies.map(|(id, reply)| (id, reply["calls"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(calls("remote/base.answers.jsonl"), calls("local/shipped.answers.jsonl"));
    let unknown = refusal(&root, &format!("{line} --url {url} --served-model other"));
    assert!(unknown.contains("http 404") && unknown.contains("/v1/models"), "{unknown}");
    runtime.shutdown_background();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let root = folder();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!("viggo --data viggo.csv --url http://127.0.0.1:{port} --served-model m --limit 1");
    let refused = refusal(&root, &line);
    assert!(refused.contains(&format!("127.0.0.1:{port}")) && refused.contains("connection failed"), "{refused}");
}

#[test]
fn bad_input_is_named_by_file_line_and_field_and_leaves_nothing() {
    let root = folder();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    write("bad.csv", "mr,ref\nnonsense,x\n");
    let refused = refusal(&root, "viggo --data bad.csv --out out");
    assert!(refused.contains("bad.csv:2: `mr`"), "{refused}");
    write("bad.jsonl", "{\"messages\":[{\"role\":\"robot\",\"content\":\"\"}]}\n");
    let refused = refusal(&root, "calls --data bad.jsonl --out out");
    assert!(refused.contains("bad.jsonl:1: `messages[0].role`: unknown role `robot`"), "{refused}");
    let refused = refusal(&root, "bfcl --data questions.json --out out");
    assert!(refused.contains("questions.json:1: `id`") && refused.contains("--gold"), "{refused}");
    let refused = refusal(&root, "viggo --data absent.csv");
    assert!(refused.contains("absent.csv"), "{refused}");
    assert!(!root.path().join("out").exists());
}
