//! A schema cannot make the server open a connection or a file.

use crate::support::{TestServer, text_request, tool, weather_request};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

/// Longer than any refusal takes, shorter than a test run's patience with a reader that hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// A listener that nobody may call, and a pipe that hangs whoever opens it.
struct Canaries {
    listener: TcpListener,
    pipe: tempfile::TempDir,
}

impl Canaries {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let pipe = tempfile::tempdir().unwrap();
        assert!(Command::new("mkfifo").arg(pipe.path().join("canary.json")).status().unwrap().success());
        Self { listener, pipe }
    }

    fn addresses(&self) -> Vec<String> {
        let port = self.listener.local_addr().unwrap().port();
        let file = self.pipe.path().join("canary.json").display().to_string();
        let mut all: Vec<String> = ["http", "https", "ftp", "ws", "HTTP"]
            .iter()
            .flat_map(|scheme| {
                [format!("{scheme}://127.0.0.1:{port}/s.json"), format!("{scheme}://127.0.0.1:{port}/s.json#/a")]
            })
            .collect();
        all.extend([
            format!("//127.0.0.1:{port}/s"),
            format!("http://localhost:{port}/s"),
            format!("http://[::ffff:127.0.0.1]:{port}/"),
        ]);
        all.extend([
            format!("file://{file}"),
            format!("file:{file}"),
            file.clone(),
            format!("../../../../../..{file}"),
            format!("{file}#/a"),
        ]);
        all
    }

    fn assert_untouched(&self) {
        let call = self.listener.accept();
        assert!(call.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{call:?}");
    }
}

/// Schemas that mention the address in every keyword that could mean "look there".
fn mentioning(address: &str) -> Vec<Value> {
    vec![
        json!({"$ref": address}),
        json!({"$id": address, "type": "string"}),
        json!({"id": address, "type": "string"}),
        json!({"$schema": address, "type": "string"}),
        json!({"$dynamicRef": address}),
        json!({"$recursiveRef": address}),
        json!({"$anchor": address, "type": "string"}),
        json!({"allOf": [{"$ref": address}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": address}}}),
        json!({"$id": address, "$ref": "s.json"}),
    ]
}

#[tokio::test]
async fn addresses_in_a_schema_are_refused_and_never_looked_up() {
    let (server, canaries) = (TestServer::start(), Canaries::set());
    for address in canaries.addresses() {
        for schema in mentioning(&address) {
            // At the root, where identifiers count, and inside.
            let mut root = schema.clone();
            root["type"] = json!("object");
            let inside = json!({"type": "object", "properties": {"x": schema}, "required": ["x"]});
            for parameters in [&root, &inside] {
                let mut body = weather_request();
                body["tools"] = json!([tool("remote", parameters)]);
                let reply = tokio::time::timeout(LIMIT, server.chat(&body)).await.expect("it waits for the canary");
                assert_eq!(reply.refusal().0, 400, "{parameters}: {}", reply.text);
                let mut body = text_request();
                body["response_format"] =
                    json!({"type": "json_schema", "json_schema": {"name": "x", "schema": parameters}});
                let reply = tokio::time::timeout(LIMIT, server.chat(&body)).await.expect("it waits for the canary");
                assert_eq!(reply.refusal().0, 400, "{parameters}: {}", reply.text);
            }
        }
    }
    canaries.assert_untouched();
}

#[tokio::test]
async fn the_drafts_own_names_are_taken_without_a_look() {
    let server = TestServer::start();
    for draft in [
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-07/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let mut body = weather_request();
        body["tools"][0]["function"]["parameters"]["$schema"] = json!(draft);
        body["max_tokens"] = json!(1);
        assert_eq!(server.chat(&body).await.status, 200, "{draft}");
    }
}

#[test]
fn the_canaries_notice_a_visitor() {
    let canaries = Canaries::set();
    canaries.assert_untouched();
    let _visitor = std::net::TcpStream::connect(canaries.listener.local_addr().unwrap()).unwrap();
    let noticed = (0..1_000).any(|_| {
        std::thread::yield_now();
        canaries.listener.accept().is_ok()
    });
    assert!(noticed);
    let pipe = canaries.pipe.path().join("canary.json");
    let (done, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(std::fs::read(pipe).is_ok()));
    assert!(opened.recv_timeout(Duration::from_millis(200)).is_err(), "opening the pipe does not hang");
}
