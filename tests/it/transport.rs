//! Raw connections: broken requests, slow ones, clients that go away, signals, and a log that cannot be forged.

use crate::support::{Random, Server, cases, report};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What a connection answers to these bytes, up to its end or a second of silence.
fn answer(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n").into_bytes()
}

#[test]
fn broken_requests_are_answered_or_closed_and_cost_nothing() {
    let mut server = Server::start(&[]);
    let good = json!({"model": "base", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}).to_string();
    let many_headers: String = (0..101).map(|index| format!("x-{index}: 1\r\n")).collect();
    let long_header = |kib: usize| format!("x-long: {}", "a".repeat(kib * 1024));
    let large = "a".repeat(3 << 20);
    let chunks: String = good.chars().map(|c| format!("1\r\n{c}\r\n")).collect::<String>() + "0\r\n\r\n";
    let length = |bytes: usize| format!("content-length: {bytes}");
    let cases: [(&str, Vec<u8>, &[u16]); 14] = [
        ("101 headers", get(many_headers.trim_end()), &[431]),
        ("a header of 64 KiB", get(&long_header(64)), &[431]),
        ("a header of 200 KiB", get(&long_header(200)), &[431]),
        ("a header of 60 KiB", get(&long_header(60)), &[200]),
        ("a body of 3 MiB", post(&length(large.len()), &large), &[413]),
        ("a length that is too short", post(&length(3), &good), &[400]),
        ("a length that is too long", post(&length(good.len() + 5), &good), &[400, 0]),
        ("a length that is no number", post("content-length: x", &good), &[400]),
        ("length and chunks", post(&format!("{}\r\ntransfer-encoding: chunked", length(4)), &chunks), &[400, 200]),
        ("chunks of one byte", post("transfer-encoding: chunked", &chunks), &[200]),
        ("an unknown method", b"BREW /livez HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), &[405]),
        ("a bad target", b"GET \x01\x02 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), &[400]),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), &[400, 0]),
        ("a compressed body", post(&format!("content-encoding: gzip\r\n{}", length(good.len())), &good), &[400]),
    ];
    for (name, bytes, expected) in cases {
        let answer = answer(&server, &bytes);
        assert!(expected.contains(&status(&answer)), "{name}: {:.300}", answer);
    }
    let body = answer(&server, &post(&length(large.len()), &large));
    if let Some((_, json)) = body.split_once("\r\n\r\n") {
        assert_eq!(serde_json::from_str::<Value>(json).unwrap()["error"]["code"], "request_too_large");
    }
    assert!(server.is_alive() && server.chat(&good).0 == 200);
}

#[test]
fn random_bytes_never_end_the_server() {
    let mut server = Server::start(&[]);
    let mut random = Random(42);
    let starts: [&[u8]; 5] = [
        b"",
        b"GET /",
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"GET /livez HTTP/1.1\r\nhost:",
        b"PRI * HTTP/2.0\r\n\r\n",
    ];
    for _ in 0..cases(2_000, 100_000) {
        let mut bytes = starts[random.below(starts.len())].to_vec();
        bytes.extend((0..random.below(60)).map(|_| random.below(256) as u8));
        let mut stream = server.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Both);
    }
    assert!(server.is_alive());
    assert_eq!(server.client().ask("GET /livez", "").unwrap().0, 200);
}

/// Connections that send nothing more lose their place after ten seconds; others do not notice.
#[test]
fn slow_headers_are_given_up_while_others_are_served() {
    let server = Server::start(&[]);
    let before = server.open_files();
    let slow: Vec<TcpStream> = (0..cases(200, 500))
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut probes = 0;
    while server.open_files() > before + 2 {
        assert!(started.elapsed() < Duration::from_secs(20), "{} files are still open", server.open_files());
        let asked = Instant::now();
        assert_eq!(server.client().ask("GET /livez", "").unwrap().0, 200);
        slowest = slowest.max(asked.elapsed());
        probes += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let count = slow.len();
    report(format_args!(
        "slow headers: {count} connections gone after {:?}, {probes} probes, slowest {slowest:?}",
        started.elapsed()
    ));
    assert!(started.elapsed() > Duration::from_secs(8), "they were closed early");
    drop(slow);
}

/// Whole or streamed, closed, half closed, or with a byte too many behind the request: nothing goes on without a client.
#[test]
fn whoever_goes_away_frees_place_and_cache_at_any_moment() {
    let server = Server::start(&["--max-batch", "4"]);
    let mut random = Random(7);
    for _ in 0..cases(60, 1000) {
        let stream = random.below(2) == 0;
        let body = json!({"model": "base", "messages": [{"role": "user", "content": "a ".repeat(1 + random.below(400))}],
            "stream": stream, "max_tokens": 3000, "logit_bias": {"0": -100}});
        let mut connection = server.send("POST /v1/chat/completions", &body.to_string());
        match random.below(3) {
            0 => connection.write_all(b"G").unwrap(),
            1 => connection.shutdown(Shutdown::Write).unwrap(),
            _ => {}
        }
        std::thread::sleep(Duration::from_micros(random.below(30_000) as u64));
        if stream && random.below(2) == 0 {
            let _ = connection.read(&mut [0; 200]);
        }
    }
    let gone = Instant::now();
    while server.gauge("callsmith_requests_running") + server.gauge("callsmith_requests_waiting") > 0.0 {
        assert!(gone.elapsed() < Duration::from_secs(2), "requests go on without their clients");
        std::thread::sleep(Duration::from_millis(10));
    }
    report(format_args!("all places free {:?} after the last client left", gone.elapsed()));
    assert_eq!(server.gauge("callsmith_kv_cache_usage_ratio"), 0.0);
    let good = json!({"model": "base", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}).to_string();
    assert_eq!(server.chat(&good).0, 200);
}

/// At any moment a signal lets eight streams end properly, in `[DONE]` or in an error event, and the process with 0.
#[test]
fn sigterm_at_any_moment_tears_no_stream() {
    let mut random = Random(3);
    for _ in 0..cases(3, 200) {
        let server = Server::start(&["--max-batch", "4", "--drain-seconds", "1"]);
        let body = json!({"model": "base", "messages": [{"role": "user", "content": "go on"}], "stream": true,
            "max_tokens": 200 + random.below(3000), "logit_bias": {"0": -100}});
        let streams: Vec<TcpStream> =
            (0..8).map(|_| server.send("POST /v1/chat/completions", &body.to_string())).collect();
        std::thread::sleep(Duration::from_millis(random.below(300) as u64));
        server.signal();
        for mut stream in streams {
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            let whole = text.contains("data: [DONE]") || text.contains("\"error\":{");
            // A connection that was not yet accepted may be reset without a word.
            assert!(whole || text.is_empty(), "torn: {text:.200} … {}", &text[text.len().saturating_sub(200)..]);
        }
        let signalled = Instant::now();
        assert_eq!(server.exit_code(), Some(0));
        assert!(signalled.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn every_log_line_is_one_json_object_whatever_clients_send() {
    let (server, log) = Server::start_logged(&["--log-format", "json", "--adapter-root", "DIR"]);
    let hostile =
        ["\r\nforged: 1", "\u{1b}[31mred", "\0", "\u{202e}txt", "line\nbreak", "\"quote\\", &"x".repeat(64 * 1024)];
    for text in hostile {
        let secret = format!("SECRET{text}");
        let chat = json!({"model": text, "user": text, "messages": [{"role": "user", "content": secret}]});
        server.chat(&chat.to_string());
        let tools = json!([{"type": "function", "function": {"name": text, "parameters": {"type": text}}}]);
        server.chat(&json!({"model": "base", "messages": [{"role": "user", "content": secret}], "tools": tools, "max_tokens": 1}).to_string());
        let load = json!({"lora_name": text, "lora_path": text}).to_string();
        let _ = server.client().post("/v1/load_lora_adapter", &load);
        let path: String = text.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
        answer(
            &server,
            format!("GET /{path}%0d%0aforged HTTP/1.1\r\nhost: x\r\nx-request-id: a b\r\nconnection: close\r\n\r\n")
                .as_bytes(),
        );
    }
    server.signal();
    assert_eq!(server.exit_code(), Some(0));
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(lines.len() > 20, "{text}");
    assert!(!text.contains("SECRET"), "the log holds what users wrote");
    assert!(text.lines().all(|line| line.len() < 4096));
}

/// Bodies that do not come get an answer after half a minute, and their places go to others.
#[test]
fn slow_bodies_are_given_up_after_half_a_minute() {
    let server = Server::start(&["--max-batch", "1", "--max-queue", "100"]);
    let started = Instant::now();
    let slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = server.connect();
            stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
            stream.write_all(&post("content-length: 100", "{\"model\"")).unwrap();
            stream
        })
        .collect();
    for mut stream in slow {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 400");
    }
    let taken = started.elapsed().as_secs();
    assert!((29..36).contains(&taken), "{taken} s");
    let good = json!({"model": "base", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}).to_string();
    assert_eq!(server.chat(&good).0, 200);
}
