//! Probes, metrics, request ids, unknown routes, shedding, draining.

use crate::support::{TestServer, cases, post, report, text_request, weather_request};
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test]
async fn the_probes_are_green_on_an_idle_server() {
    let server = TestServer::start();
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_base_is_the_first_model() {
    let server = TestServer::start();
    let models = server.get("/v1/models").await.json();
    assert_eq!(models["object"], "list");
    let base = &models["data"][0];
    assert_eq!((&base["id"], &base["object"], &base["parent"]), (&json!("base"), &json!("model"), &json!(null)));
    assert!(base["created"].is_u64() && base["owned_by"].is_string());
    assert_eq!(server.get("/v1/models/base").await.json(), *base);
    assert_eq!(server.get("/v1/models/other").await.refusal(), (404, "model".to_owned(), "model_not_found".to_owned()));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_openais_shape() {
    let server = TestServer::start();
    assert_eq!(server.get("/v1/nothing").await.refusal(), (404, "-".to_owned(), "unknown_url".to_owned()));
    assert_eq!(
        server.get("/v1/chat/completions").await.refusal(),
        (405, "-".to_owned(), "method_not_allowed".to_owned())
    );
    let long = format!("/{}", "x".repeat(8000));
    assert_eq!(server.get(&long).await.refusal().0, 404);
}

#[tokio::test]
async fn every_response_has_a_request_id_and_a_harmless_one_is_kept() {
    let server = TestServer::start();
    let with_id = |id: &str| Request::get("/livez").header("x-request-id", id).body(Body::empty()).unwrap();
    let kept = server.reply(with_id("abc-1.2_3")).await;
    assert_eq!(kept.headers["x-request-id"], "abc-1.2_3");
    for hostile in ["a b", "\t", &"y".repeat(65)] {
        let replaced = server.reply(with_id(hostile)).await;
        assert!(replaced.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
    }
    assert!(server.get("/v1/nothing").await.headers.contains_key("x-request-id"));
    assert!(server.chat(&text_request()).await.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn the_metrics_count_requests_tokens_and_no_violations() {
    let server = TestServer::start();
    server.chat(&weather_request()).await.choice();
    server.chat(&json!({})).await;
    let metrics = server.get("/metrics").await.text;
    for line in [
        "callsmith_requests_running 0",
        "callsmith_requests_waiting 0",
        "callsmith_constraint_violations_total 0",
        "callsmith_grammar_compile_seconds_count 1",
        "callsmith_time_to_first_token_seconds_count 1",
        "callsmith_errors_total{code=\"missing_required_parameter\"} 1",
        "vllm:num_requests_running{model_name=\"base\"} 0",
        "vllm:num_requests_waiting{model_name=\"base\"} 0",
        "vllm:kv_cache_usage_perc{model_name=\"base\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let count =
        |name: &str| metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} "))?.parse::<u64>().ok());
    assert!(count("callsmith_generated_tokens_total") > Some(0));
    assert!(count("callsmith_prompt_tokens_total") > Some(0));
    assert_eq!(metrics.matches("vllm:lora_requests_info{").count(), 1);
}

#[tokio::test]
async fn metric_series_do_not_grow_with_what_clients_send() {
    let server = TestServer::start();
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let mut body = text_request();
    body["model"] = json!("first");
    server.chat(&body).await;
    let before = series(&server.get("/metrics").await.text);
    for index in 0..cases(200, 50_000) {
        (body["model"], body["user"]) = (json!(format!("unknown-{index}")), json!(format!("user-{index}")));
        server.chat(&body).await;
        server.get(&format!("/path/{index}")).await;
    }
    let after = series(&server.get("/metrics").await.text);
    // One more: the code of an unknown route.
    assert!(after <= before + 1 && after < 2000, "{before} series became {after}");
}

#[tokio::test]
async fn too_many_requests_are_shed_with_retry_after() {
    let server = TestServer::with_options(&["--max-batch", "1", "--max-queue", "1"]);
    let mut body = text_request();
    (body["stream"], body["max_tokens"]) = (json!(true), json!(3500));
    body["logit_bias"] = json!({server.end_token(): -100});
    let bytes = body.to_string().into_bytes();
    let running = server.send(post("/v1/chat/completions", bytes.clone())).await;
    let waiting = server.send(post("/v1/chat/completions", bytes));
    tokio::pin!(waiting);
    // It has no answer yet, only a place in the queue.
    loop {
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
        if server.state.engine.stats().waiting > 0 {
            break;
        }
    }
    let shed = server.chat(&text_request()).await;
    assert_eq!(shed.refusal(), (503, "-".to_owned(), "server_overloaded".to_owned()));
    let seconds: u32 = shed.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds));
    assert_eq!(server.get("/livez").await.status, 200);
    drop(running);
    drop(waiting.await);
    server.until_idle().await;
    assert_eq!(server.chat(&text_request()).await.status, 200);
}

#[tokio::test]
async fn a_draining_server_finishes_what_runs_and_refuses_the_rest() {
    let server = TestServer::start();
    let mut body = text_request();
    (body["stream"], body["max_tokens"]) = (json!(true), json!(200));
    body["logit_bias"] = json!({server.end_token(): -100});
    let response = server.send(post("/v1/chat/completions", body.to_string().into_bytes())).await;
    server.state.start_draining();
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/livez").await.status, 200);
    let refused = server.chat(&text_request()).await;
    assert_eq!(refused.refusal(), (503, "-".to_owned(), "server_shutting_down".to_owned()));
    assert_eq!(refused.headers["connection"], "close");
    let chunks: Vec<_> = response.into_body().into_data_stream().collect().await;
    let last = chunks.last().unwrap().as_ref().unwrap();
    assert!(last.ends_with(b"data: [DONE]\n\n"), "{last:?}");
}

/// A stream that goes on for as long as it may.
fn endless(server: &TestServer) -> Value {
    let mut body = text_request();
    (body["max_tokens"], body["stream"]) = (json!(4000), json!(true));
    body["logit_bias"] = json!({server.end_token(): -100});
    body
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_its_turn_is_shed() {
    let server = TestServer::with_options(&["--max-batch", "1", "--queue-timeout-seconds", "1"]);
    let ask = || server.send(post("/v1/chat/completions", endless(&server).to_string().into_bytes()));
    // Together they take some seconds of the one place.
    let timed = || async {
        let asked = Instant::now();
        (ask().await, asked.elapsed().as_secs_f64())
    };
    let all = futures::future::join_all((0..60).map(|_| timed())).await;
    let shed: Vec<_> = all.iter().filter(|(response, _)| response.status() != 200).collect();
    assert!((1..60).contains(&shed.len()), "{} of 60 were shed", shed.len());
    for (response, waited) in shed {
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"2".parse().unwrap()));
        assert!((0.9..2.0).contains(waited), "{waited}");
    }
    drop(all);
    server.until_idle().await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_ended_and_not_retried() {
    let server = TestServer::with_options(&["--request-timeout-seconds", "1"]);
    let mut body = endless(&server);
    body["n"] = json!(4);
    let asked = Instant::now();
    let stream = server.chat(&body).await;
    let taken = asked.elapsed().as_secs_f64();
    let last: Value = serde_json::from_str(stream.text.trim_end().rsplit("data: ").next().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "request_timeout");
    assert!((0.9..2.5).contains(&taken), "{taken}");
    body["stream"] = json!(false);
    let whole = server.chat(&body).await;
    assert_eq!((whole.refusal().0, &whole.headers["x-should-retry"]), (504, &"false".parse().unwrap()));
    server.until_idle().await;
}

/// Asks again and again for a while: how often it was served, and how long each refusal took.
async fn ask_until(server: Arc<TestServer>, until: Instant) -> (usize, Vec<Duration>) {
    let (mut served, mut shed) = (0, Vec::new());
    while Instant::now() < until {
        let asked = Instant::now();
        let reply = server.chat(&text_request()).await;
        match reply.status.as_u16() {
            200 => served += 1,
            503 => {
                shed.push(asked.elapsed());
                assert!(reply.headers.contains_key("retry-after"));
                // What a client waits before it tries again, shortened twenty times.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => panic!("{other}: {}", reply.text),
        }
    }
    (served, shed)
}

/// What so many clients together are served within `time`, and the times of all refusals.
async fn goodput(server: &Arc<TestServer>, clients: usize, time: Duration) -> (usize, Vec<Duration>) {
    let until = Instant::now() + time;
    let running: Vec<_> = (0..clients).map(|_| tokio::spawn(ask_until(Arc::clone(server), until))).collect();
    let (served, shed): (Vec<usize>, Vec<_>) =
        futures::future::join_all(running).await.into_iter().map(Result::unwrap).unzip();
    (served.into_iter().sum(), shed.concat())
}

/// Ten times as many clients as places: those inside are served as fast as ever, the rest are turned away at once.
///
/// Other tests run beside this one and come and go: of several rounds the middle pair counts, and a bad middle is given more
/// rounds, since what the server itself loses it loses in all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_shed_quickly_and_costs_little_goodput() {
    let server = Arc::new(TestServer::with_options(&["--max-batch", "4", "--max-queue", "4"]));
    let time = Duration::from_millis(cases(700, 12_000) as u64);
    let enough = |(overloaded, peak): (usize, usize)| overloaded * 10 >= peak * cases(7, 9);
    let (mut rounds, mut shed, mut found) = (Vec::new(), Vec::new(), (0, 0));
    while rounds.len() < 5 || (rounds.len() < 15 && !enough(found)) {
        let (peak, _) = goodput(&server, 8, time).await;
        let (overloaded, mut refusals) = goodput(&server, 80, time).await;
        rounds.push((overloaded, peak));
        shed.append(&mut refusals);
        rounds.sort_by_key(|(overloaded, peak)| overloaded * 1000 / peak);
        found = rounds[rounds.len() / 2];
    }
    shed.sort_unstable();
    let p99 = shed[shed.len() * 99 / 100];
    let (overloaded, peak) = found;
    report(format_args!(
        "goodput: {overloaded} answers at ten times the clients, {peak} at the limit; {} shed, p99 {p99:?}",
        shed.len()
    ));
    assert!(enough(found), "{overloaded} of {peak}");
    assert!(p99 < Duration::from_millis(100), "{p99:?}");
    server.until_idle().await;
}

/// What never started is refused with a status, not with a stream that begins with an error.
#[tokio::test]
async fn a_stream_that_waits_while_the_server_drains_gets_a_503() {
    let server = TestServer::with_options(&["--max-batch", "1"]);
    let ask = || server.send(post("/v1/chat/completions", endless(&server).to_string().into_bytes()));
    let running = ask().await;
    let (waiting, ()) = tokio::join!(ask(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.state.engine.drain(Duration::from_millis(100)).await;
    });
    assert_eq!((waiting.status().as_u16(), waiting.headers().contains_key("retry-after")), (503, true));
    drop(running);
}

#[tokio::test]
async fn more_answers_than_there_are_places_are_refused_for_good() {
    let server = TestServer::with_options(&["--max-batch", "1", "--max-queue", "1"]);
    let mut body = text_request();
    body["n"] = json!(3);
    assert_eq!(server.chat(&body).await.refusal(), (400, "n".to_owned(), "integer_above_max_value".to_owned()));
}
