//! `callsmith bench`: what it measures of our own server, of others and of those that fail; the models that it makes; masks.

use crate::support::{random_adapter, tiny_model};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

const REQUESTS: usize = 6;

fn bench(options: &[&str]) -> Output {
    command(options).output().unwrap()
}

fn command(options: &[&str]) -> Command {
    let requests = REQUESTS.to_string();
    let common = ["bench", "run", "--warmup", "1", "--requests", &requests, "--prompt-tokens", "48", "--json", "-"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_callsmith"));
    command.args([&common, options].concat());
    command
}

/// The report of a run with this exit code.
fn report(options: &[&str], code: i32) -> Value {
    let output = bench(options);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

fn measurements(report: &Value) -> &Vec<Value> {
    report["measurements"].as_array().unwrap()
}

/// Every request was answered, and its times are in order.
fn assert_measured(measured: &Value) {
    assert_eq!((&measured["ok"], &measured["errors"]), (&json!(REQUESTS), &json!({})), "{measured}");
    let time =
        |name: &str, point: &str| measured[name][point].as_f64().unwrap_or_else(|| panic!("{name} of {measured}"));
    for point in ["p50", "p90", "p99", "mean"] {
        assert!(0.0 < time("ttft_ms", point) && time("ttft_ms", point) <= time("latency_ms", point), "{measured}");
        assert!(time("tpot_ms", point) <= time("latency_ms", point), "{measured}");
    }
    let (seconds, output) = (measured["seconds"].as_f64().unwrap(), measured["tokens"]["output"].as_f64().unwrap());
    assert!(output >= REQUESTS as f64);
    assert!((measured["output_tokens_per_second"].as_f64().unwrap() - output / seconds).abs() < 1e-6);
    assert!(seconds * 1e3 >= time("latency_ms", "max"));
}

#[cfg(feature = "embedded-model")]
#[test]
fn the_built_in_model_is_measured_in_every_scenario_and_its_calls_are_valid() {
    let report = report(&["--concurrency", "1,3", "--max-tokens", "200", "--rate", "100"], 0);
    let measured = measurements(&report);
    let names: Vec<&str> = measured.iter().map(|measured| measured["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["text", "text", "call", "call", "schema", "schema", "prefix", "prefix", "poisson"]);
    for measured in measured {
        assert_measured(measured);
        let (name, cached) = (measured["scenario"].as_str().unwrap(), measured["tokens"]["cached"].as_u64().unwrap());
        let valid = json!({"valid": REQUESTS, "invalid": 0, "truncated": 0, "first_invalid": null});
        let has_schema = ["call", "schema"].contains(&name);
        assert_eq!(measured["validity"], if has_schema { valid } else { Value::Null });
        assert_eq!(measured["forced_share"].as_f64().unwrap() > 0.3, has_schema, "{measured}");
        assert_eq!(measured["prefill_tokens_per_second"].is_f64(), measured["concurrency"] == 1 && !has_schema);
        assert_eq!(cached > 0, name == "prefix", "{measured}");
    }
    assert_eq!(measured[8]["rate"], 100.0);
    // The calibration of words: prompts are as long as asked for.
    let prompt = measured[0]["tokens"]["prompt"].as_f64().unwrap() / REQUESTS as f64;
    assert!((prompt - 48.0).abs() < 12.0, "{prompt}");
    assert!(report["server"]["system_fingerprint"].as_str().unwrap().starts_with("callsmith-"));
}

#[test]
fn adapters_are_measured_beside_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny_model(&dir.path().join("model"));
    let named: Vec<String> = ["a", "b"].map(|name| format!("{name}={}", dir.path().join(name).display())).into();
    random_adapter(&dir.path().join("a"), 1);
    random_adapter(&dir.path().join("b"), 2);
    let options = ["--model", model.to_str().unwrap(), "--adapter", &named[0], "--adapter", &named[1]];
    let load = ["--scenario", "adapters", "--concurrency", "4", "--max-tokens", "8", "--api-key", "k"];
    let report = report(&[&options[..], &load].concat(), 0);
    let names: Vec<&Value> = measurements(&report).iter().map(|measured| &measured["scenario"]).collect();
    assert_eq!(names, ["base alone", "adapters"]);
    measurements(&report).iter().for_each(assert_measured);
    assert!(!report.to_string().contains("\"k\""), "keys are nobody's business");
}

/// What becomes of a request.
enum Fate {
    Answer,
    Refusal,
    Silence,
}

/// A server that answers the requests before the measured ones, and deals with those by their number (from 3) as `fate` says.
async fn peer(fate: fn(usize) -> Fate) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let chat = move |body: Bytes| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let asked: Value = serde_json::from_slice(&body).unwrap();
            assert!(asked["stream"] == true && asked["model"] == "peer" && asked["ignore_eos"] == true, "{asked}");
            match if number < 3 { Fate::Answer } else { fate(number) } {
                Fate::Answer => {}
                Fate::Refusal => {
                    let error = json!({"error": {"message": "no room", "code": "full"}}).to_string();
                    return (StatusCode::SERVICE_UNAVAILABLE, error).into_response();
                }
                Fate::Silence => std::future::pending().await,
            }
            let piece = |text: &str| format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]}));
            let end = json!({"choices": [{"delta": {}, "finish_reason": "length"}]});
            format!("{}{}data: {end}\n\ndata: [DONE]\n\n", piece("a"), piece("b")).into_response()
        }
    };
    let models = get(|| async { ([("server", "peer/1.0")], json!({"data": [{"id": "peer"}]}).to_string()) });
    let router = Router::new().route("/v1/chat/completions", post(chat)).route("/v1/models", models);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, count)
}

const TEXT: [&str; 4] = ["--scenario", "text", "--concurrency", "2"];

async fn report_on(url: String, code: i32) -> Value {
    let run = move || report(&[&["--url", &url][..], &TEXT].concat(), code);
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn errors_are_counted_beside_the_answers() {
    let report = report_on(peer(|number| if number % 3 == 0 { Fate::Answer } else { Fate::Refusal }).await.0, 0).await;
    let measured = &measurements(&report)[0];
    assert_eq!(
        (&measured["ok"], &measured["errors"]),
        (&json!(2), &json!({"http 503 full": {"count": 4, "first": "no room"}}))
    );
    // Nothing counts tokens there: two pieces are two tokens.
    assert_eq!(measured["tokens"], json!({"prompt": 0, "cached": 0, "output": 4, "counted": false}));
    assert_eq!(measured["forced_share"], Value::Null);
    assert_eq!((&report["server"]["server"], &report["server"]["model"]), (&json!("peer/1.0"), &json!("peer")));
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_a_failure_that_is_still_reported() {
    let report = report_on(peer(|_| Fate::Refusal).await.0, 1).await;
    assert_eq!(measurements(&report)[0]["errors"]["http 503 full"]["count"], REQUESTS);
    assert_eq!(measurements(&report)[0]["latency_ms"], Value::Null);
}

/// A server that answers one request on a connection, says to keep it, and closes it at the next.
fn forgetful_peer() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(|| answer_once(stream.unwrap()));
        }
    });
    url
}

fn answer_once(mut stream: std::net::TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut line, mut length) = (String::new(), String::from("-"), 0);
    while !line.trim().is_empty() {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        length =
            line.to_ascii_lowercase().strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
        head.push_str(&line);
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let body = match head.starts_with("GET /v1/models") {
        true => json!({"data": [{"id": "peer"}]}).to_string(),
        false => format!("data: {}\n\n", json!({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})),
    };
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    // The next request's first byte ends the connection.
    let _ = reader.read_exact(&mut [0]);
}

#[test]
fn a_request_on_a_connection_that_the_server_has_closed_is_sent_again() {
    let url = forgetful_peer();
    let report = report(&["--url", &url, "--scenario", "text", "--concurrency", "1"], 0);
    let measured = &measurements(&report)[0];
    assert_eq!((&measured["ok"], &measured["errors"]), (&json!(REQUESTS), &json!({})));
    assert!(measured["resent"].as_u64() > Some(0), "{measured}");
}

#[tokio::test]
async fn an_interrupt_ends_the_run_and_what_was_measured_is_reported() {
    let (url, count) = peer(|number| if number < 5 { Fate::Answer } else { Fate::Silence }).await;
    let child = command(&[&["--url", &url][..], &TEXT].concat()).stdout(Stdio::piped()).spawn().unwrap();
    // Two answers came, two requests wait for ever.
    while count.load(Ordering::SeqCst) < 7 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let killed = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status().unwrap();
    assert!(killed.success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured = &measurements(&report)[0];
    assert_eq!(
        (&report["interrupted"], &measured["ok"], &measured["unfinished"]),
        (&json!(true), &json!(2), &json!(4))
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    for (options, code, told) in [
        (&["--scenario", "adapters"][..], 2, "--adapters"),
        (&["--scenario", "poisson"], 2, "--rate"),
        (&["--tools", "/nowhere"], 1, "/nowhere"),
        (&["--url", "http://127.0.0.1:1"], 1, "connection failed"),
        (&["--url", "not a url"], 2, "not a URL"),
        (&["--url", "http://x", "--model", "y"], 2, "cannot be used with"),
    ] {
        let output = bench(options);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && error.contains(told), "{options:?}: {error}");
    }
}

/// Runs `callsmith bench` with these words; standard output, or standard error of a failure.
fn run(words: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_callsmith")).arg("bench").args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

const SHAPE: &[&str] = &["--hidden", "32", "--layers", "2", "--heads", "4", "--kv-heads", "2", "--intermediate", "48"];

#[test]
fn a_made_model_serves_with_its_adapters_whatever_its_family() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_model(&dir.path().join("tiny"));
    for (family, more) in [
        ("llama", &["--untied", "--dtype", "f32"][..]),
        ("qwen2", &[]),
        ("qwen3", &["--head-dim", "16"]),
        ("mistral", &["--dtype", "f16", "--adapters", "2", "--rank", "3"]),
    ] {
        let made = dir.path().join(family);
        let made = made.to_str().unwrap();
        let words = ["make-model", made, "--tokenizer", tokenizer.to_str().unwrap(), "--family", family];
        let told = run(&[&words, SHAPE, more].concat()).unwrap();
        assert!(told.contains("vocabulary 384"), "{told}");
        let adapters: Vec<String> = (1..=2).map(|number| format!("a{number}={made}/adapters/a{number}")).collect();
        let with =
            if family == "mistral" { ["--adapter", &adapters[0], "--adapter", &adapters[1]].to_vec() } else { vec![] };
        let load = ["--model", made, "--scenario", "text,call", "--concurrency", "2", "--max-tokens", "300"];
        let report = report(&[&load[..], &with].concat(), 0);
        for measured in measurements(&report) {
            assert_measured(measured);
            assert!(measured["validity"].is_null() || measured["validity"]["invalid"] == 0, "{measured}");
        }
    }
}

#[test]
fn a_made_model_is_served_from_its_gguf_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_model(&dir.path().join("tiny"));
    let (made, file) = (dir.path().join("made"), dir.path().join("made.gguf"));
    let [made, file] = [&made, &file].map(|path| path.to_str().unwrap());
    let words = ["make-model", made, "--tokenizer", tokenizer.to_str().unwrap(), "--gguf", file];
    run(&[&words, SHAPE].concat()).unwrap();
    let report = report(&["--model", file, "--scenario", "text,call", "--max-tokens", "300"], 0);
    measurements(&report).iter().for_each(assert_measured);
}

#[test]
fn a_made_model_is_the_same_for_the_same_seed_and_readable_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_model(&dir.path().join("tiny"));
    let make = |name: &str, seed: &str| {
        let made = dir.path().join(name);
        let words = ["make-model", made.to_str().unwrap(), "--tokenizer", tokenizer.to_str().unwrap(), "--seed", seed];
        run(&[&words, SHAPE].concat()).unwrap();
        std::fs::read(made.join("model.safetensors")).unwrap()
    };
    let first = make("first", "1");
    assert!(first == make("again", "1") && first != make("other", "2"));
    let mode =
        |path: &str| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join(path)).unwrap()) & 0o777;
    assert_eq!((mode("first"), mode("first/model.safetensors")), (0o755, 0o644));
}

#[test]
fn a_model_that_cannot_be_made_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_model(&dir.path().join("tiny"));
    let (made, taken) = (dir.path().join("made"), tokenizer.to_str().unwrap());
    let made = made.to_str().unwrap();
    for (words, told) in [
        (&[taken, "--tokenizer", taken][..], "not empty"),
        (&[made, "--tokenizer", taken, "--heads", "4", "--kv-heads", "3"], "num_key_value_heads"),
        (&[made, "--tokenizer", made], "tokenizer.json"),
        (&[made, "--tokenizer", taken, "--hidden", "0"], "--hidden"),
    ] {
        let error = run(&[&["make-model"], words].concat()).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    let entries: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["tiny"]);
}

#[test]
fn masks_are_measured_with_a_tokenizer_alone() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny_model(&dir.path().join("tiny"));
    for weights in ["model.safetensors", "config.json"] {
        std::fs::remove_file(model.join(weights)).unwrap();
    }
    let report: Value =
        serde_json::from_str(&run(&["masks", "--model", model.to_str().unwrap(), "--json", "-"]).unwrap()).unwrap();
    assert!(report["followed"].as_u64() >= Some(5) && report["refused"] == json!([]), "{report}");
    assert!(report["forced_share"].as_f64().unwrap() > 0.3, "{report}");
    let (masks, all) = (&report["mask_us"], &report["cold_mask_and_logits_us"]);
    assert!(masks["count"].as_u64() > Some(50) && masks["p50"].as_f64() <= all["p99"].as_f64(), "{report}");
    assert_eq!(report["slowest"].as_array().unwrap().len(), 5);
}

#[test]
fn rows_that_cannot_be_measured_are_counted_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny_model(&dir.path().join("tiny"));
    let rows = dir.path().join("rows.jsonl");
    let tool = |parameters: Value| json!({"tools": [{"name": "f", "parameters": parameters}]});
    let good = tool(json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}));
    let bad = tool(json!({"type": "object", "properties": {"n": {"$ref": "#/nowhere"}}}));
    std::fs::write(&rows, format!("{good}\n{bad}\n")).unwrap();
    let words = ["masks", "--model", model.to_str().unwrap(), "--tools", rows.to_str().unwrap(), "--json", "-"];
    let report: Value = serde_json::from_str(&run(&words).unwrap()).unwrap();
    assert_eq!((&report["followed"], report["refused"].as_array().unwrap().len()), (&json!(1), 1));
    assert!(report["refused"][0].as_str().unwrap().contains("rows.jsonl:2: "), "{report}");
}
