//! Ever new schemas cost bounded memory and no file; the same one again costs no compilation.

use crate::support::{Client, Server, cases, report};
use serde_json::json;

const MIB: u64 = 1024 * 1024;
/// Bytes of grammar text that the cache may hold.
const CACHE_CAP: u64 = 8 * MIB;

/// A request for one token of an answer with schema number `index`.
fn request(index: usize) -> String {
    let schema = json!({
        "type": "object",
        "properties": {
            format!("field_{index}"): {"type": "string", "pattern": format!("^[a-z]{{1,{}}}{index}$", index % 7 + 1)},
            "size": {"type": "integer", "minimum": index, "maximum": index + 10},
            "kind": {"enum": ["a", "b", format!("c{index}")]},
        },
        "required": [format!("field_{index}"), "size"],
    });
    let tool = json!({"type": "function", "function": {"name": format!("tool_{index}"), "parameters": schema}});
    json!({
        "model": "base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "tools": [tool],
        "tool_choice": "required",
    })
    .to_string()
}

fn ask(client: &mut Client, index: usize) {
    let (status, text) = client.post("/v1/chat/completions", &request(index)).unwrap();
    assert_eq!(status, 200, "{text}");
}

#[test]
fn ten_thousand_schemas_leave_memory_flat_and_one_repeated_is_compiled_once() {
    let count = cases(600, 10_000);
    let server = Server::start(&[]);
    let mut client = server.client();
    let warm = count / 4;
    (0..warm).for_each(|index| ask(&mut client, index));
    let before = server.memory("VmRSS");
    (warm..count).for_each(|index| ask(&mut client, index));
    let grown = server.memory("VmRSS").saturating_sub(before);
    let (hits, misses) =
        (server.counter("callsmith_grammar_cache_hits_total"), server.counter("callsmith_grammar_cache_misses_total"));
    assert_eq!((hits, misses), (0, count as u64));
    (0..count).for_each(|_| ask(&mut client, 7));
    let again = server.counter("callsmith_grammar_cache_hits_total");
    let rate = again as f64 / count as f64;
    report(format_args!(
        "{count} schemas: {:.1} MiB after {warm}, {:.1} MiB more at the end, hit rate {:.4} in {count} repeats",
        before as f64 / MIB as f64,
        grown as f64 / MIB as f64,
        rate
    ));
    assert!(grown <= CACHE_CAP + 32 * MIB, "{} MiB", grown / MIB);
    assert!(rate >= 0.999 - 1.0 / count as f64, "{rate}");
    assert_eq!(server.files_written(), 0);
}
