//! Traces reach a collector, continue the caller's trace, and hold no user's text.

use crate::support::Server;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Takes one export after another and passes on its path and body.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            while reader.read_line(&mut first).unwrap() > 0 && !first.ends_with("\r\n\r\n") {
                let line = first.lines().last().unwrap_or_default().to_ascii_lowercase();
                length = line.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            if sender.send((path, body)).is_err() {
                return;
            }
        }
    });
    (address, received)
}

#[test]
fn a_request_and_its_generation_are_spans_of_the_callers_trace() {
    let (endpoint, received) = collector();
    let server = Server::start(&["--otlp-endpoint", &endpoint]);
    let body = json!({"model": "base", "messages": [{"role": "user", "content": "SECRET words"}], "max_tokens": 3})
        .to_string();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\nx:");
    // The helper ends the first line itself: the rest of it becomes a header.
    assert!(server.head(&head, &body).starts_with("http/1.1 200"));
    server.signal();
    assert_eq!(server.exit_code(), Some(0));
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let (path, bytes) = received.recv_timeout(Duration::from_secs(5)).expect("too few spans");
        assert_eq!(path, "/v1/traces");
        assert!(!bytes.windows(6).any(|window| window == b"SECRET"), "users' text is exported");
        let export = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        spans.extend(export.resource_spans.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans));
    }
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let (request, generation) = (find("POST /v1/chat/completions"), find("generation"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (trace.to_owned(), "b7ad6b7169203331".to_owned())
    );
    assert_eq!((&generation.trace_id, &generation.parent_span_id), (&request.trace_id, &request.span_id));
    let number = |span: &Span, key: &str| {
        let attribute = span.attributes.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("{key}: {span:?}"));
        attribute.value.as_ref().and_then(|value| value.value.clone())
    };
    assert_eq!(number(request, "http.response.status_code"), Some(Number::IntValue(200)));
    assert_eq!(number(generation, "gen_ai.usage.output_tokens"), Some(Number::IntValue(3)));
}
