//! The real binary: what it prints, how it drains, its exit codes.

use crate::support::Server;
use serde_json::Value;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

fn rest_of(mut stream: TcpStream, mut seen: String) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    seen.push_str(&String::from_utf8_lossy(&rest));
    seen
}

#[test]
fn start_up_tells_what_was_loaded_and_how_to_try_it() {
    let server = Server::start(&[]);
    assert!(
        server.banner.contains("loaded `base`: 2 layers") && server.banner.contains("dialect tool_uses"),
        "{}",
        server.banner
    );
    let body = server.banner.split("-d '").nth(1).unwrap().split("'\n").next().unwrap();
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["model"], "base");
    assert!(server.head("POST /v1/chat/completions", body).starts_with("http/1.1 200"));
    server.signal();
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn sigterm_lets_running_streams_finish_and_refuses_new_requests() {
    let server = Server::start(&["--drain-seconds", "100"]);
    let (stream, seen) = server.long_stream();
    server.signal();
    server.until_unready();
    let refused = server.head("POST /v1/chat/completions", "{}");
    assert!(refused.starts_with("http/1.1 503") && refused.contains("connection: close"), "{refused}");
    let text = rest_of(stream, seen);
    assert!(text.contains("data: [DONE]"), "{}", &text[text.len().saturating_sub(300)..]);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn at_the_deadline_a_running_stream_ends_with_an_error_event() {
    let server = Server::start(&["--drain-seconds", "0"]);
    let (stream, seen) = server.long_stream();
    server.signal();
    let text = rest_of(stream, seen);
    assert!(
        text.contains("data: {\"error\":{") && !text.contains("[DONE]"),
        "{}",
        &text[text.len().saturating_sub(300)..]
    );
    assert!(text.contains("server_shutting_down"), "{}", &text[text.len().saturating_sub(300)..]);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::start(&["--drain-seconds", "25"]);
    let (_stream, _) = server.long_stream();
    server.signal();
    server.until_unready();
    server.signal();
    assert_eq!(server.exit_code(), Some(130));
}

#[test]
fn wrong_usage_and_failures_have_their_exit_codes() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_callsmith")).args(args).output().unwrap();
    assert_eq!(run(&["serve", "--port", "many"]).status.code(), Some(2));
    assert_eq!(run(&["serve", "--model", "/nowhere"]).status.code(), Some(2));
    let empty = tempfile::tempdir().unwrap();
    let failed = run(&["serve", "--port", "0", "--model", empty.path().to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("config.json"), "{failed:?}");
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}
