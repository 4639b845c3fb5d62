//! Schemas made to cost much are refused or compiled within a second and 256 MiB, and others keep their pace meanwhile.

use crate::support::{Server, cases, report};
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const CLIENTS: usize = 8;
/// Different cost sets of each: more than the cache of compiled grammars holds.
const ROUNDS: usize = 3;

fn patterns(count: usize) -> Value {
    let all: Map<String, Value> = (0..count).map(|i| (format!("^p{i}_[a-z]+$"), json!({"type": "integer"}))).collect();
    json!({"type": "object", "patternProperties": all})
}

fn optional(count: usize) -> Value {
    let all: Map<String, Value> = (0..count).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
    json!({"type": "object", "properties": all})
}

fn product(factors: usize) -> Value {
    let fork = |factor: usize| {
        let options: Vec<Value> = (0..4)
            .map(|option| json!({"properties": {format!("f{factor}"): {"const": option}}, "required": [format!("f{factor}")]}))
            .collect();
        json!({"anyOf": options})
    };
    json!({"type": "object", "allOf": (0..factors).map(fork).collect::<Vec<_>>()})
}

fn words(count: usize) -> Value {
    json!({"enum": (0..count).map(|i| format!("value number {i}")).collect::<Vec<_>>()})
}

/// The cost set, number `salt` of many: no two compile to the same cache entry.
fn costly(salt: usize) -> Vec<Value> {
    let regexes = [
        "[ab]*a[ab]{60}",
        "\\w{2000}",
        "(.{1,50}x){1,50}",
        "(a+)+b",
        "(a|aa)*c",
        "((a{1,100}){1,100}){1,100}",
        "[a-z]{1,9999}",
    ];
    let mut all = vec![
        patterns(400),
        patterns(16),
        product(6),
        product(3),
        optional(1_200),
        optional(256),
        words(20_000),
        words(1_000),
        json!({"type": "array", "items": {"type": "number"}, "minItems": 10_000_000}),
        json!({"type": "array", "items": {"type": "number"}, "maxItems": 10_000_000}),
        json!({"type": "array", "items": {"type": "number"}, "minItems": 10_000, "maxItems": 10_000}),
        json!({"type": "string", "minLength": 100_000_000}),
        json!({"type": "string", "maxLength": 100_000_000}),
        json!({"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1_000_000}),
        json!({"type": "integer", "multipleOf": 9_973}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 1_000}, "maxItems": 1_000}, "maxItems": 1_000}),
    ];
    all.extend(regexes.iter().map(|regex| json!({"type": "string", "pattern": regex})));
    let salted = |schema: Value| json!({"type": "object", "properties": {format!("x{salt}"): schema}, "required": [format!("x{salt}")]});
    all.into_iter().map(salted).collect()
}

/// As an answer's schema, which the prompt does not show: what it costs is the grammar alone.
fn request(schema: &Value) -> String {
    let format = json!({"type": "json_schema", "json_schema": {"name": "costly", "schema": schema}});
    json!({
        "model": "base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 12, "response_format": format, "seed": 1,
    })
    .to_string()
}

/// The gaps between the chunks of one long stream.
fn stream_gaps(server: &Server) -> Vec<Duration> {
    let body = json!({
        "model": "base", "messages": [{"role": "user", "content": "go on"}], "stream": true, "max_tokens": 3_900,
        "logit_bias": {"0": -100},
    });
    let mut lines = BufReader::new(server.send("POST /v1/chat/completions", &body.to_string())).lines();
    let mut gaps = Vec::new();
    let mut last = None;
    while let Some(line) = lines.next().map(Result::unwrap).filter(|line| line != "data: [DONE]") {
        if line.contains("\"content\":\"") {
            let now = Instant::now();
            gaps.extend(last.replace(now).map(|last| now - last));
        }
    }
    gaps
}

fn percentile(gaps: &mut [Duration], share: f64) -> Duration {
    gaps.sort_unstable();
    gaps[((gaps.len() - 1) as f64 * share) as usize]
}

#[test]
fn every_costly_schema_is_refused_or_compiled_within_a_second_and_256_mib() {
    let server = Server::start(&[]);
    server.chat(&request(&json!({"type": "object", "properties": {}})));
    let mut slowest = (Duration::ZERO, String::new());
    let before = server.memory("VmHWM");
    for schema in costly(0) {
        let attempt = |salt: usize| {
            let started = Instant::now();
            let (status, text) = server.chat(&request(&json!({"type": "object", "properties": {format!("n{salt}"): schema}, "required": [format!("n{salt}")]})));
            assert!(status == 200 || status == 400, "{status} {text} for {schema}");
            started.elapsed()
        };
        // The best of three: a busy neighbour on the machine is not our cost.
        let mut took = attempt(0);
        for salt in 1..3 {
            took = if took < Duration::from_secs(1) { took } else { took.min(attempt(salt)) };
        }
        assert!(took < Duration::from_secs(1), "{took:?} for {schema}");
        slowest = slowest.max((took, schema.to_string().chars().take(100).collect()));
    }
    let grown = server.memory("VmHWM") - before;
    report(format_args!("costly schemas: slowest {slowest:?}, memory peak {} MiB more", grown / MIB));
    assert!(grown < 256 * MIB, "{} MiB", grown / MIB);
}

/// The gaps of a stream beside clients that send these bodies over and over, and how many they sent.
fn gaps_beside(server: &Server, rounds: usize, bodies: &[Vec<String>]) -> (Vec<Duration>, usize) {
    let over = AtomicBool::new(false);
    let client = |bodies: &[String]| {
        let unsent = bodies.iter().cycle().take_while(|_| !over.load(Relaxed));
        let answers = unsent.map(|body| server.chat(body));
        answers.inspect(|(status, text)| assert!([200, 400, 503].contains(status), "{text}")).count()
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = bodies.iter().map(|bodies| scope.spawn(|| client(bodies))).collect();
        let gaps = (0..rounds).flat_map(|_| stream_gaps(server)).collect();
        over.store(true, Relaxed);
        (gaps, clients.into_iter().map(|client| client.join().unwrap()).sum())
    })
}

/// What each client sends, written beforehand: what a client does costs the server's machine little.
fn bodies(schemas: impl Fn(usize) -> Vec<Value>) -> Vec<Vec<String>> {
    let of = |client: usize| {
        (0..ROUNDS).flat_map(|salt| schemas(salt * CLIENTS + client)).map(|schema| request(&schema)).collect()
    };
    (0..CLIENTS).map(of).collect()
}

#[test]
fn a_stream_keeps_its_pace_beside_clients_that_send_costly_schemas() {
    let server = Server::start(&[]);
    let rounds = cases(1, 5);
    let plain = |salt: usize| {
        (0..costly(0).len())
            .map(|i| json!({"type": "object", "properties": {format!("x{salt}_{i}"): {"type": "string"}}}))
            .collect()
    };
    let [alone, beside_plain, beside_costly] = [Vec::new(), bodies(plain), bodies(costly)].map(|bodies| {
        let (mut gaps, sent) = gaps_beside(&server, rounds, &bodies);
        (percentile(&mut gaps, 0.5), percentile(&mut gaps, 0.99), sent)
    });
    report(format_args!(
        "gaps of a stream (p50, p99, requests beside): alone {alone:?}, plain {beside_plain:?}, costly {beside_costly:?}; p99 ratio costly/plain {:.2}, costly/alone {:.2}",
        beside_costly.1.as_secs_f64() / beside_plain.1.as_secs_f64(),
        beside_costly.1.as_secs_f64() / alone.1.as_secs_f64(),
    ));
    assert!(beside_costly.1 < Duration::from_millis(500), "the stream stood still: {beside_costly:?}");
}
