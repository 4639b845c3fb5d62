//! The real binary: what it prints, how it drains, its exit codes.

use crate::support::tiny_model;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

/// A server process on a free port.
struct Server {
    child: Child,
    address: String,
    banner: String,
    _dir: TempDir,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny_model(&dir.path().join("model"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_callsmith"))
            .args(["serve", "--port", "0", "--served-model-name", "base", "--model"])
            .arg(model)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("try: ") {
            assert!(out.read_line(&mut banner).unwrap() > 0, "it ended early: {banner}");
        }
        let address = banner.lines().find_map(|line| line.strip_prefix("listening on http://")).unwrap().to_owned();
        Self { child, address, banner, _dir: dir }
    }

    fn signal(&self) {
        let killed = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status().unwrap();
        assert!(killed.success());
    }

    /// Sends a request and returns the connection, from which the response can be read.
    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// A stream that runs for thousands of tokens; its first chunk has come.
    fn long_stream(&self) -> (TcpStream, String) {
        let body = json!({
            "model": "base", "messages": [{"role": "user", "content": "go on"}], "stream": true, "max_tokens": 4000, "n": 4,
            "logit_bias": {"0": -100},
        });
        let mut stream = self.send("POST /v1/chat/completions", &body.to_string());
        let mut seen = String::new();
        let mut buffer = [0; 1024];
        while !seen.contains("\"content\":\"") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        (stream, seen)
    }

    /// The status line and headers of a response.
    fn head(&self, head: &str, body: &str) -> String {
        let mut lines = BufReader::new(self.send(head, body)).lines();
        let mut text = String::new();
        while let Some(line) = lines.next().map(Result::unwrap).filter(|line| !line.is_empty()) {
            text.push_str(&line.to_ascii_lowercase());
            text.push('\n');
        }
        text
    }

    fn until_unready(&self) {
        let started = Instant::now();
        while !self.head("GET /readyz", "").starts_with("http/1.1 503") {
            assert!(started.elapsed() < LIMIT, "still ready");
        }
    }

    fn exit_code(mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if started.elapsed() > LIMIT {
                self.child.kill().unwrap();
                panic!("it does not end");
            }
            std::thread::yield_now();
        }
    }
}

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
