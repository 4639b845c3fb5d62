//! What clients see of an engine that panics, hangs or ends: always an answer, and soon a working engine or an exit code.

use crate::support::{Server, cases, report};
use serde_json::json;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// No answer takes longer, whatever happens.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Whole,
    /// A 500, or an error event in a stream.
    Told,
    /// No connection, or one that was closed before any answer began.
    Gone,
}

/// Asks once, on a connection of its own, for a short answer. Fails on a torn one.
fn ask(server: &Server, stream: bool) -> End {
    ask_for(server, stream, 6)
}

fn ask_for(server: &Server, stream: bool, tokens: usize) -> End {
    let body = json!({"model": "base", "messages": [{"role": "user", "content": "go on"}], "stream": stream,
        "max_tokens": tokens, "logit_bias": {"0": -100}})
    .to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
    let Ok(mut connection) = server.try_connect() else { return End::Gone };
    let sent = connection.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let mut text = String::new();
    let read = connection.read_to_string(&mut text);
    match text.split(' ').nth(1) {
        None => End::Gone,
        Some("200") if stream && text.contains("data: [DONE]") => End::Whole,
        Some("200") if stream && text.contains("data: {\"error\":{") => End::Told,
        Some("200") if !stream && text.ends_with('}') => End::Whole,
        Some("500" | "504") if text.ends_with('}') => End::Told,
        _ => panic!("torn ({sent:?}, {read:?}): {text}"),
    }
}

/// Asks again and again until the server is gone. How each request ended, and when.
fn ask_on(server: &Server, stream: bool) -> Vec<(End, Instant)> {
    let mut ends = Vec::new();
    while ends.last().is_none_or(|(end, _)| *end != End::Gone) {
        let asked = Instant::now();
        ends.push((ask(server, stream), Instant::now()));
        assert!(asked.elapsed() < PATIENCE, "an answer took {:?}", asked.elapsed());
    }
    let gone = Instant::now();
    while server.try_connect().is_ok() {
        assert!(gone.elapsed() < PATIENCE, "a connection was closed without a word, and the server goes on");
    }
    ends
}

/// The longest time from an answer that told of a failure to the next whole one of the same client.
fn slowest_recovery(ends: &[(End, Instant)]) -> Duration {
    let (mut slowest, mut failed) = (Duration::ZERO, None);
    for (end, at) in ends {
        match (end, failed) {
            (End::Told, None) => failed = Some(*at),
            (End::Whole, Some(since)) => {
                slowest = slowest.max(at.duration_since(since));
                failed = None;
            }
            _ => {}
        }
    }
    slowest
}

/// Four clients of each kind until the server ends with 70: how all their requests ended.
fn clients_until_the_end(server: Server) -> Vec<Vec<(End, Instant)>> {
    let clients: Vec<Vec<_>> = std::thread::scope(|scope| {
        let ask = |index| {
            scope.spawn({
                let server = &server;
                move || ask_on(server, index % 2 == 0)
            })
        };
        let running: Vec<_> = (0..8).map(ask).collect();
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(server.exit_code(), Some(70));
    clients
}

fn count(clients: &[Vec<(End, Instant)>], wanted: End) -> usize {
    clients.iter().flatten().filter(|(end, _)| *end == wanted).count()
}

/// Three panics pass, the fourth within a minute ends the process: `rounds` times.
#[test]
fn a_panicking_engine_tells_every_client_and_is_back_at_once() {
    let mut slowest = Duration::ZERO;
    let (rounds, mut told) = (cases(2, 25), 0);
    for round in 0..rounds {
        let faults = vec![format!("{}*off->1*panic", 40 + round * 3); 4].join("->");
        let clients =
            clients_until_the_end(Server::start_faulty(&["--max-batch", "4"], &format!("engine_step={faults}")));
        assert!(count(&clients, End::Told) >= 4, "{clients:?}");
        assert!(count(&clients, End::Whole) > 0, "{clients:?}");
        told += count(&clients, End::Told);
        slowest = clients.iter().map(|ends| slowest_recovery(ends)).fold(slowest, Duration::max);
    }
    report(format_args!(
        "{} panics: {told} requests told of them, the next whole answer at most {slowest:?} later",
        rounds * 4
    ));
    assert!(slowest > Duration::ZERO && slowest < PATIENCE);
}

#[test]
fn an_engine_thread_that_ends_ends_the_process_and_every_client_is_told() {
    for fault in ["return", "panic"] {
        let server = Server::start_faulty(&["--max-batch", "4"], &format!("engine_turn=40*off->{fault}"));
        let clients = clients_until_the_end(server);
        assert!(count(&clients, End::Told) >= 4, "{fault}: {clients:?}");
    }
}

/// A panic of one request's sampler or grammar is a 500 of that request.
#[test]
fn a_panic_beside_other_requests_is_one_requests_failure() {
    let server = Server::start_faulty(&[], "sequence_advance=20*off->1*panic");
    let ends: Vec<End> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8)
            .map(|index| {
                scope.spawn({
                    let server = &server;
                    move || ask(server, index % 2 == 0)
                })
            })
            .collect();
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(ends.iter().filter(|end| **end == End::Told).count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| **end == End::Whole).count(), 7, "{ends:?}");
    assert_eq!(ask(&server, false), End::Whole);
}

/// The process stays, so that whoever probes it decides; clients do not wait for that.
#[test]
fn a_hanging_engine_fails_its_probe_within_ten_seconds_and_tells_its_clients() {
    let server = Server::start_faulty(&["--silence-timeout-seconds", "3"], "engine_step=500*off->1*sleep(14000)");
    let probe = || server.client().ask("GET /livez", "").unwrap().0;
    let mut hung = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = [true, false]
            .into_iter()
            .map(|stream| {
                let server = &server;
                // Long enough for both to have begun when it hangs.
                scope.spawn(move || (ask_for(server, stream, 2000), Instant::now()))
            })
            .collect();
        let mut steps = 0;
        while probe() == 200 {
            let taken = server.counter("callsmith_engine_steps_total");
            if taken != steps {
                (steps, hung) = (taken, Instant::now());
            }
            assert!(hung.elapsed() < Duration::from_secs(10), "still alive");
            std::thread::sleep(Duration::from_millis(50));
        }
        report(format_args!("a hang: /livez fails after {:?}", hung.elapsed()));
        for client in clients {
            let (end, told) = client.join().unwrap();
            assert_eq!(end, End::Told);
            assert!(told < hung + PATIENCE, "told {:?} after the hang", told - hung);
        }
    });
    while probe() != 200 {
        assert!(hung.elapsed() < Duration::from_secs(25), "still dead");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&server, false), End::Whole);
}
