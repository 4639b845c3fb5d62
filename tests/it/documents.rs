//! The API's description and the pages that come with the server.

use crate::support::{TestServer, filled, post};
use callsmith::api::auth::Access;
use callsmith::api::{pages, paths};
use serde_json::Value;
use std::collections::BTreeSet;

const METHODS: [&str; 3] = ["get", "post", "delete"];

fn document() -> Value {
    serde_json::from_str(pages::OPENAPI).unwrap()
}

/// Every route is described, every described one is served, with the same methods; and what needs no key says so.
#[tokio::test]
async fn the_description_and_the_router_agree() {
    let (server, document) = (TestServer::start(), document());
    let described = document["paths"].as_object().unwrap();
    let served: BTreeSet<String> = paths().map(|(path, _)| path).collect();
    assert_eq!(served, described.keys().cloned().collect::<BTreeSet<_>>());
    for path in served {
        for method in METHODS {
            let mut request = post(&filled(&path, "base"), b"{}".to_vec());
            *request.method_mut() = method.to_uppercase().parse().unwrap();
            let takes = server.reply(request).await.status != 405;
            assert_eq!(takes, described[&path].get(method).is_some(), "{method} {path}");
        }
    }
    for (path, access) in paths() {
        let open = METHODS
            .iter()
            .filter_map(|method| described[&path].get(*method))
            .all(|one| one["security"] == serde_json::json!([]));
        // Metrics are open or not as the operator says.
        assert!(access == Access::Metrics || open == (access == Access::Open), "{path}");
    }
}

#[tokio::test]
async fn the_pages_are_whole_and_may_fetch_nothing_from_elsewhere() {
    let server = TestServer::with_options(&["--api-key", "alice"]);
    for path in ["/", "/docs"] {
        let page = server.get(path).await;
        assert_eq!(
            (page.status.as_u16(), page.headers["content-type"].to_str().unwrap()),
            (200, "text/html; charset=utf-8")
        );
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!page.text.contains("src=\"http") && !page.text.contains("href=\"http"), "{path} refers elsewhere");
    }
    let served = server.get("/openapi.json").await;
    assert_eq!(served.headers["content-type"], "application/json");
    assert_eq!(served.json(), document());
}
