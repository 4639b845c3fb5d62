//! Keys: which route needs which, and whose responses are whose.

use crate::support::{Reply, TestServer, filled, post, random_adapter, text_request};
use axum::body::Body;
use axum::http::Request;
use callsmith::api::auth::Access;
use callsmith::api::paths;
use serde_json::json;

const KEYS: [&str; 6] = ["--api-key", "alice,bob", "--admin-key", "root", "--adapter-root", "DIR"];

fn with_key(mut request: Request<Body>, key: Option<&str>) -> Request<Body> {
    if let Some(key) = key {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

async fn send(server: &TestServer, method: &str, path: &str, key: Option<&str>) -> Reply {
    let mut request = post(&filled(path, "x"), b"{}".to_vec());
    *request.method_mut() = method.parse().unwrap();
    server.reply(with_key(request, key)).await
}

/// Triton's clients read a text, all others OpenAI's object.
fn check_code(path: &str, reply: &Reply, code: &str) {
    if path.starts_with("/v2") {
        assert!(reply.json()["error"].is_string(), "{path}: {}", reply.text);
    } else {
        assert_eq!(reply.refusal().2, code, "{path}");
    }
}

#[tokio::test]
async fn every_route_is_closed_without_its_key() {
    let server = TestServer::with_options(&KEYS);
    for (path, access) in paths() {
        let path = path.as_str();
        let (mut open, mut closed) = (0, 0);
        for method in ["GET", "POST", "DELETE"] {
            let reply = send(&server, method, path, None).await;
            match reply.status.as_u16() {
                405 => continue,
                401 => {
                    closed += 1;
                    check_code(path, &reply, "invalid_api_key");
                    assert_eq!(reply.headers["www-authenticate"], "Bearer");
                }
                _ => open += 1,
            }
            let wrong = send(&server, method, path, Some("mallory")).await;
            assert_eq!(wrong.status == 401, reply.status == 401, "{method} {path}");
            assert!(!wrong.text.contains("mallory"));
            assert_ne!(send(&server, method, path, Some("root")).await.status, 401, "{method} {path}");
        }
        assert!(open + closed > 0, "{path}");
        let is_open = matches!(access, Access::Open | Access::Metrics);
        // Paths with several methods may need different keys, but never none.
        assert_eq!(closed == 0, is_open, "{path} needs {access:?}");
    }
}

#[tokio::test]
async fn adapters_are_changed_with_the_admin_key_alone() {
    let server = TestServer::with_options(&KEYS);
    for (path, _) in paths().filter(|(_, access)| *access == Access::Admin) {
        let path = path.as_str();
        let mut refused = 0;
        for method in ["GET", "POST", "DELETE"] {
            let reply = send(&server, method, path, Some("alice")).await;
            if reply.status == 403 {
                check_code(path, &reply, "insufficient_permissions");
                refused += 1;
            }
        }
        assert!(refused > 0, "{path}");
    }
    random_adapter(&server.path("a"), 1);
    let load = json!({"lora_name": "a", "lora_path": "a"}).to_string().into_bytes();
    let reply = server.reply(with_key(post("/v1/load_lora_adapter", load), Some("root"))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test]
async fn a_response_is_seen_by_the_key_that_made_it() {
    let server = TestServer::with_options(&KEYS);
    let body = json!({"model": "base", "input": "a", "max_output_tokens": 2}).to_string().into_bytes();
    let made = server.reply(with_key(post("/v1/responses", body), Some("alice"))).await.json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    let get = |key| server.reply(with_key(Request::get(&path).body(Body::empty()).unwrap(), Some(key)));
    assert_eq!(get("alice").await.json(), made);
    assert_eq!(get("bob").await.status, 404);
    assert_eq!(get("root").await.status, 404);
}

#[tokio::test]
async fn a_key_has_as_many_requests_under_way_as_it_may() {
    let server = TestServer::with_options(&["--api-key", "alice,bob", "--max-requests-per-key", "1"]);
    let mut body = text_request();
    (body["stream"], body["max_tokens"]) = (json!(true), json!(3000));
    body["logit_bias"] = json!({server.end_token(): -100});
    let request = |key| with_key(post("/v1/chat/completions", body.to_string().into_bytes()), Some(key));
    let running = server.send(request("alice")).await;
    let refused = server.reply(request("alice")).await;
    assert_eq!((refused.refusal().0, refused.refusal().2.as_str()), (429, "rate_limit_exceeded"));
    assert_eq!(
        (refused.json()["error"]["type"].as_str(), &refused.headers["retry-after"]),
        (Some("requests"), &"1".parse().unwrap())
    );
    assert_eq!(server.send(request("bob")).await.status(), 200);
    drop(running);
    server.until_idle().await;
    assert_eq!(server.send(request("alice")).await.status(), 200);
}

#[tokio::test]
async fn metrics_can_be_closed() {
    let open = TestServer::with_options(&["--api-key", "alice"]);
    assert_eq!(open.get("/metrics").await.status, 200);
    let closed = TestServer::with_options(&["--api-key", "alice", "--protect-metrics"]);
    assert_eq!(closed.get("/metrics").await.status, 401);
    let with = with_key(Request::get("/metrics").body(Body::empty()).unwrap(), Some("alice"));
    assert_eq!(closed.reply(with).await.status, 200);
}

#[test]
fn keys_come_from_files_too_and_bad_ones_are_refused() {
    use callsmith::settings::Settings;
    use clap::Parser;
    let settings = |options: &[&str]| {
        let all = std::iter::once("callsmith").chain(options.iter().copied());
        Settings::from_args(callsmith::cli::Cli::parse_from(all).serve)
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, "one\n\n two \n").unwrap();
    let read = settings(&["--api-key-file", file.to_str().unwrap(), "--api-key", "three"]).unwrap();
    assert_eq!(read.keys.inference, ["three", "one", "two"]);
    assert!(!format!("{read:?}").contains("three"), "keys are shown");
    std::fs::write(&file, "\n \n").unwrap();
    assert!(
        settings(&["--api-key-file", file.to_str().unwrap()]).is_err(),
        "a secret that was not filled in opens nothing"
    );
    for bad in [
        &["--api-key", "sp ace"][..],
        &["--api-key", "a", "--admin-key", "a"],
        &["--admin-key-file", "/nowhere"],
        &["--api-key", ""],
    ] {
        assert!(settings(bad).is_err(), "{bad:?}");
    }
    assert!(settings(&["--cors-origin", "https://a.example"]).is_ok());
    assert!(settings(&["--cors-origin", "a.example/x"]).is_err());
}

/// A browser sends simple requests of any page without asking first.
#[tokio::test]
async fn pages_of_other_sites_change_no_adapters() {
    let server = TestServer::with_options(&["--adapter-root", "DIR", "--cors-origin", "http://friend.example"]);
    random_adapter(&server.path("a"), 1);
    let load = |origin: Option<&str>| {
        let mut request = post("/v2/repository/models/a/load", b"{}".to_vec());
        request.headers_mut().insert("host", "here:8000".parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        server.reply(request)
    };
    assert_eq!(load(Some("http://evil.example")).await.status, 403);
    assert_eq!(load(Some("null")).await.status, 403);
    for good in [None, Some("http://here:8000"), Some("http://friend.example")] {
        assert_eq!(load(good).await.status, 200, "{good:?}");
    }
}
