//! `callsmith chat` with its input piped, against a scripted server and with the model that is built in.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An OpenAI-compatible server that gives each chat request the next of its answers and remembers the requests.
struct Scripted {
    url: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                seen.lock().unwrap().push(request(&mut stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

/// A request's body; null where it has none.
fn request(stream: &mut TcpStream) -> Value {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
        let value =
            line.to_ascii_lowercase().strip_prefix("content-length:").map(|value| value.trim().parse().unwrap());
        length = value.unwrap_or(length);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap_or_default()
}

fn reply(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A streamed answer of these deltas, which ends for `reason`.
fn stream(deltas: &[Value], reason: &str) -> String {
    let delta = |delta: &Value| format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
    let events = deltas.iter().map(delta).collect::<String>() + &format!("data: {end}\n\ndata: [DONE]\n\n");
    reply("200 OK", "text/event-stream", &events)
}

fn call(name: &str, arguments: &str) -> Vec<Value> {
    let (start, end) = arguments.split_at(arguments.len() / 2);
    let piece = |text: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]});
    let begin = json!({"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": {"name": name, "arguments": ""}}]});
    vec![begin, piece(start), piece(end)]
}

fn tools() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tools.json");
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = |name: &str, text: &str| json!({"name": name, "description": text, "parameters": city});
    let tools =
        json!([function("get_weather", "Current weather of a city"), function("get_time", "Local time of a city")]);
    std::fs::write(&path, tools.to_string()).unwrap();
    (dir, path)
}

fn chat(args: &[&str], typed: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_callsmith"))
        .arg("chat")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_command_answers_a_call_and_the_model_hears_its_result() {
    let server = Scripted::new(vec![
        stream(&call("get_weather", r#"{"city":"Rome"}"#), "tool_calls"),
        stream(&[json!({"content": "It is "}), json!({"content": "sunny."})], "stop"),
    ]);
    let (_dir, tools) = tools();
    let args = ["--url", &server.url, "--to", "m", "--tools", tools.to_str().unwrap(), "--system", "Be brief."];
    let output = chat(&[&args[..], &["--run", "get_weather=cat; echo ' is asked for'"]].concat(), "Weather in Rome?\n");
    let expected = "→ get_weather{\"city\":\"Rome\"}\n← get_weather: {\"city\":\"Rome\"} is asked for\nIt is sunny.\n";
    assert_eq!(said(&output), expected);
    let [first, second]: [Value; 2] = server.requests().try_into().unwrap();
    assert_eq!((&first["model"], &first["tools"][0]["type"]), (&json!("m"), &json!("function")));
    assert_eq!(first["messages"][0], json!({"role": "system", "content": "Be brief."}));
    let [asked, result] = [&second["messages"][2], &second["messages"][3]];
    assert_eq!(asked["tool_calls"][0]["function"]["arguments"], r#"{"city":"Rome"}"#);
    assert_eq!((&result["role"], &result["tool_call_id"]), (&json!("tool"), &json!("call_a")));
    assert_eq!(result["content"], "{\"city\":\"Rome\"} is asked for");
}

#[test]
fn a_result_without_a_command_is_the_next_line_that_is_typed() {
    let server = Scripted::new(vec![
        reply("200 OK", "application/json", r#"{"data": [{"id": "listed"}]}"#),
        stream(&call("get_time", r#"{"city":"Oslo"}"#), "tool_calls"),
        stream(&[json!({"content": "Noon."})], "stop"),
        stream(&[json!({"content": "Hello."})], "stop"),
    ]);
    let (_dir, tools) = tools();
    let args = ["--url", &server.url, "--tools", tools.to_str().unwrap()];
    let output = chat(&args, "Time in Oslo?\n12:00\n\n/new\nHi\n");
    assert_eq!(said(&output), "→ get_time{\"city\":\"Oslo\"}\nNoon.\nHello.\n");
    let requests = server.requests();
    assert_eq!(requests[2]["messages"][2]["content"], "12:00");
    assert_eq!(requests[1]["model"], "listed");
    assert_eq!(requests[3]["messages"], json!([{"role": "user", "content": "Hi"}]), "/new starts over");
}

#[test]
fn what_the_server_refuses_is_told_in_its_words() {
    let refusal = r#"{"error": {"message": "no such model `m`"}}"#;
    let server = Scripted::new(vec![reply("404 Not Found", "application/json", refusal)]);
    let output = chat(&["--url", &server.url, "--to", "m"], "Hi\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("http 404: no such model `m`"), "{told}");
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let event = "data: {\"choices\": [{\"delta\": {\"content\": \"It\"}}]}\n\n";
    let server = Scripted::new(vec![reply("200 OK", "text/event-stream", event)]);
    let output = chat(&["--url", &server.url, "--to", "m"], "Hi\n");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"It\n".as_slice()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the answer broke off"));
}

#[test]
fn a_command_for_an_unknown_function_is_wrong_usage() {
    let (_dir, tools) = tools();
    let output = chat(&["--tools", tools.to_str().unwrap(), "--run", "nothing=cat"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--run nothing"), "{output:?}");
}

#[test]
fn a_signal_that_ends_the_chat_ends_the_command_too() {
    let server = Scripted::new(vec![stream(&call("get_weather", r#"{"city":"Rome"}"#), "tool_calls")]);
    let (dir, tools) = tools();
    let (begun, late) = (dir.path().join("begun"), dir.path().join("late"));
    let command = format!("get_weather=echo > {}; sleep 2; echo > {}", begun.display(), late.display());
    let args = ["--url", &server.url, "--to", "m", "--tools", tools.to_str().unwrap(), "--run", &command];
    let mut child = Command::new(env!("CARGO_BIN_EXE_callsmith"))
        .arg("chat")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"Weather in Rome?\n").unwrap();
    let limit = Instant::now() + Duration::from_secs(30);
    while !begun.exists() {
        assert!(Instant::now() < limit, "the command was not started");
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!late.exists());
}

#[test]
fn the_built_in_model_calls_a_function_and_talks_about_its_result() {
    let (_dir, tools) = tools();
    let args =
        ["--tools", tools.to_str().unwrap(), "--temperature", "0", "--run", "get_weather=echo '{\"sky\":\"clear\"}'"];
    let output = chat(&args, "What is the weather in Paris?\n");
    let said = said(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], r#"→ get_weather{"city":"Paris"}"#, "{said}");
    assert_eq!(lines[1], r#"← get_weather: {"sky":"clear"}"#);
    assert!(lines.len() > 2, "{said}");
}
