//! KServe v2 / Triton: health, metadata, inference in JSON and binary, generation, the repository.

use crate::support::{Reply, TestServer, post, random_adapter, weather_request};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

/// Parameters that make a call of one function.
fn parameters() -> Value {
    let request = weather_request();
    json!({"tools": request["tools"].to_string(), "tool_choice": "required", "parallel_tool_calls": false,
        "max_tokens": 300, "seed": 1})
}

async fn ok(reply: impl Future<Output = Reply>) -> Value {
    let reply = reply.await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

/// Status and text of an error in Triton's shape.
async fn error(reply: impl Future<Output = Reply>) -> (u16, String) {
    let reply = reply.await;
    let body = reply.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
    (reply.status.as_u16(), body["error"].as_str().unwrap().to_owned())
}

/// The call in a text of the dialect `tool_uses`.
fn call(text: &str) -> Value {
    let turn: Value = serde_json::from_str(text).unwrap();
    let call = &turn["tool_uses"][0];
    assert_eq!(call["recipient_name"], "functions.get_weather");
    call["parameters"].clone()
}

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let server = TestServer::start();
    assert_eq!(ok(server.get("/v2/health/live")).await, json!({"live": true}));
    assert_eq!(ok(server.get("/v2/health/ready")).await, json!({"ready": true}));
    assert!(ok(server.get("/v2")).await["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    let metadata = ok(server.get("/v2/models/base/versions/1")).await;
    assert_eq!(metadata["inputs"][0], json!({"name": "text_input", "datatype": "BYTES", "shape": [1]}));
    assert_eq!(metadata["inputs"][1]["name"], "sampling_parameters");
    assert_eq!(ok(server.get("/v2/models/base/ready")).await, json!({"name": "base", "ready": true}));
    assert_eq!(ok(server.get("/v2/models/base/config")).await["output"][0]["data_type"], "TYPE_STRING");
    assert_eq!(error(server.get("/v2/models/base/versions/2")).await.0, 404);
    assert_eq!(error(server.get("/v2/models/nobody")).await.0, 404);
    assert_eq!(error(server.get("/v2/models/%ff")).await.0, 404);
    assert_eq!(error(server.get("/v2/logging")).await.0, 404);
    assert_eq!(error(server.get("/v2/models/nobody/ready")).await.0, 400);
    server.state.start_draining();
    assert_eq!(server.get("/v2/health/ready").await.status, 400);
}

#[tokio::test]
async fn generate_returns_the_turn_as_the_model_wrote_it() {
    let server = TestServer::start();
    let body = json!({"id": "7", "text_input": "How warm is it in Paris?", "parameters": parameters()});
    let reply = ok(server.post("/v2/models/base/generate", &body)).await;
    assert_eq!(
        (&reply["id"], &reply["model_name"], &reply["model_version"]),
        (&json!("7"), &json!("base"), &json!("1"))
    );
    let arguments = call(reply["text_output"].as_str().unwrap());
    let mut chat = weather_request();
    (chat["tool_choice"], chat["parallel_tool_calls"]) = (json!("required"), json!(false));
    let said = server.chat(&chat).await.choice()["message"]["tool_calls"][0]["function"]["arguments"].clone();
    assert_eq!(said.as_str().unwrap(), arguments.to_string());
    // Members beside `parameters` are parameters too, and may be JSON themselves.
    let mut flat = parameters();
    (flat["text_input"], flat["tools"], flat["details"]) =
        (body["text_input"].clone(), chat["tools"].clone(), json!(true));
    let flat = ok(server.post("/v2/models/base/versions/1/generate", &flat)).await;
    assert_eq!(flat["text_output"], reply["text_output"]);
    assert_eq!(flat["details"]["finish_reason"], "eos_token");
    // Triton's own clients say no content type, and may put parameters into one.
    let inner = json!({"text_input": body["text_input"], "sampling_parameters": parameters().to_string()}).to_string();
    let bare = Request::post("/v2/models/base/generate").body(Body::from(inner)).unwrap();
    assert_eq!(ok(server.reply(bare)).await["text_output"], reply["text_output"]);
}

#[tokio::test]
async fn details_hold_logprobs_and_headers_the_load_on_request() {
    let server = TestServer::start();
    let body = json!({"text_input": "a", "max_tokens": 5, "details": true, "logprobs": true}).to_string();
    let ask = |format: &str| {
        let request = Request::post("/v2/models/base/generate").header("endpoint-load-metrics-format", format);
        server.reply(request.body(Body::from(body.clone())).unwrap())
    };
    let reply = ask("json").await;
    let tokens = reply.json()["details"]["logprobs"].as_array().unwrap().clone();
    assert_eq!(tokens.len(), 5);
    assert!(tokens.iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0 && token["text"].is_string()));
    let load = reply.headers["endpoint-load-metrics"].to_str().unwrap().strip_prefix("JSON ").unwrap();
    let load: Value = serde_json::from_str(load).unwrap();
    let stats = server.state.engine.stats();
    assert_eq!(load["named_metrics"]["max_token_capacity"], stats.blocks_total * 16);
    assert!(load["named_metrics"]["kv_cache_utilization"].is_number());
    let text = ask("text").await.headers["endpoint-load-metrics"].to_str().unwrap().to_owned();
    assert!(text.starts_with("TEXT named_metrics.kv_cache_utilization="), "{text}");
    assert!(!ask("none").await.headers.contains_key("endpoint-load-metrics"));
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole_text() {
    let server = TestServer::start();
    let texts = [parameters(), json!({"max_tokens": 20, "seed": 2, "logit_bias": {server.end_token(): -100}})];
    for parameters in texts {
        let body = json!({"text_input": "How warm is it?", "parameters": parameters, "details": true});
        let whole = ok(server.post("/v2/models/base/generate", &body)).await;
        let reply = server.post("/v2/models/base/generate_stream", &body).await;
        assert_eq!(reply.headers["content-type"], "text/event-stream");
        let pieces: Vec<Value> = reply
            .text
            .trim_end()
            .split("\n\n")
            .map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        let joined: String = pieces.iter().map(|piece| piece["text_output"].as_str().unwrap()).collect();
        assert_eq!(joined, whole["text_output"].as_str().unwrap());
        assert_eq!(pieces.last().unwrap()["details"], whole["details"]);
    }
}

/// Not even the beginning of a call that was cut is lost: here the text is the model's own.
#[tokio::test]
async fn a_cut_text_is_a_beginning_of_the_whole_one() {
    let server = TestServer::start();
    let mut body = json!({"text_input": "How warm is it in Paris?", "parameters": parameters(), "details": true});
    let whole = ok(server.post("/v2/models/base/generate", &body)).await;
    let whole_text = whole["text_output"].as_str().unwrap();
    let mut lengths = Vec::new();
    for tokens in 1..whole["details"]["output_tokens"].as_u64().unwrap() {
        body["parameters"]["max_tokens"] = json!(tokens);
        let cut = ok(server.post("/v2/models/base/generate", &body)).await;
        let text = cut["text_output"].as_str().unwrap();
        assert!(whole_text.starts_with(text), "{text}");
        let streamed = server.post("/v2/models/base/generate_stream", &body).await.text;
        let pieces = streamed.trim_end().split("\n\n").map(|frame| frame.strip_prefix("data: ").unwrap());
        let piece =
            |frame: &str| serde_json::from_str::<Value>(frame).unwrap()["text_output"].as_str().unwrap().to_owned();
        assert_eq!(pieces.map(piece).collect::<String>(), text);
        lengths.push(text.len());
    }
    assert!(lengths[0] > 0 && lengths.is_sorted(), "{lengths:?}");
}

#[tokio::test]
async fn a_stop_string_is_never_shown() {
    let server = TestServer::start();
    let mut body =
        json!({"text_input": "Talk.", "max_tokens": 60, "seed": 5, "logit_bias": {server.end_token(): -100}});
    let free = ok(server.post("/v2/models/base/generate", &body)).await["text_output"].as_str().unwrap().to_owned();
    let stop: String = free.chars().skip(5).take(2).collect();
    (body["stop"], body["details"]) = (json!(stop), json!(true));
    let cut = ok(server.post("/v2/models/base/generate", &body)).await;
    assert!(
        free.starts_with(cut["text_output"].as_str().unwrap()) && !cut["text_output"].as_str().unwrap().contains(&stop)
    );
    assert_eq!(cut["details"]["finish_reason"], "stop_sequence");
    // Brackets begin a text like any other.
    for stop in ["[INST]", "{}", "[1]"] {
        body["stop"] = json!(stop);
        assert_eq!(ok(server.post("/v2/models/base/generate", &body)).await["text_output"], free, "{stop}");
    }
}

fn infer_body() -> Value {
    json!({
        "id": "a", "parameters": parameters(),
        "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["How warm is it in Paris?"]}],
        "outputs": [{"name": "text_output"}],
    })
}

#[tokio::test]
async fn infer_answers_in_json_and_in_binary() {
    let server = TestServer::start();
    let reply = ok(server.post("/v2/models/base/infer", &infer_body())).await;
    let output = &reply["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([1])));
    let text = output["data"][0].as_str().unwrap();
    call(text);
    let mut body = infer_body();
    body["parameters"]["binary_data_output"] = json!(true);
    body.as_object_mut().unwrap().remove("outputs");
    let prompt = b"How warm is it in Paris?";
    let element = [&(prompt.len() as u32).to_le_bytes()[..], prompt].concat();
    body["inputs"][0] = json!({"name": "text_input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": element.len()}});
    let json = body.to_string().into_bytes();
    let request = Request::post("/v2/models/base/infer")
        .header("inference-header-content-length", json.len())
        .header("content-type", "application/octet-stream")
        .body(Body::from([json, element].concat()))
        .unwrap();
    let response = server.send(request).await;
    assert_eq!(response.status(), 200);
    let length: usize = response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let (head, binary) = bytes.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], binary.len());
    assert_eq!(u32::from_le_bytes(binary[..4].try_into().unwrap()) as usize, binary.len() - 4);
    assert_eq!(&binary[4..], text.as_bytes());
}

#[tokio::test]
async fn wrong_requests_are_refused_in_tritons_shape() {
    let server = TestServer::start();
    let mut wrong_tensor = infer_body();
    wrong_tensor["inputs"][0]["datatype"] = json!("INT32");
    let mut unknown_output = infer_body();
    unknown_output["outputs"][0]["name"] = json!("logits");
    let with = |pointer: &str, key: &str, value: Value| {
        let mut body = infer_body();
        body.pointer_mut(pointer).unwrap()[key] = value;
        body
    };
    let again = infer_body()["inputs"][0].clone();
    let twice = with("", "inputs", json!([again, again]));
    for (path, body, status, text) in [
        ("/v2/models/base/infer", wrong_tensor, 400, "BYTES"),
        ("/v2/models/base/infer", unknown_output, 400, "text_output"),
        ("/v2/models/base/infer", json!({}), 400, "inputs"),
        ("/v2/models/base/infer", twice, 400, "twice"),
        ("/v2/models/base/infer", with("/parameters", "binary_data_output", json!("yes")), 400, "binary_data_output"),
        (
            "/v2/models/base/infer",
            with("/outputs/0", "parameters", json!({"classification": 2})),
            400,
            "classification",
        ),
        ("/v2/models/base/infer", with("/inputs/0", "parameters", json!({"shared_memory_region": "r"})), 400, "shared"),
        ("/v2/models/base/infer", with("/inputs/0", "parameters", json!({"binary_data_size": 5})), 400, "data"),
        ("/v2/models/base/generate", json!({"text_input": "a", "max_new_tokens": 2}), 400, "max_new_tokens"),
        ("/v2/models/base/generate", json!({"text_input": "a", "lora_name": "b"}), 400, "lora_name"),
        ("/v2/models/base/generate", json!({"text_input": "a", "logprobs": true}), 400, "details"),
        ("/v2/models/nobody/generate", json!({"text_input": "a"}), 404, "nobody"),
        ("/v2/models/base/generate", json!({}), 400, "text_input"),
        ("/v2/models/base/generate", json!({"text_input": "a", "temperature": 9}), 400, "temperature"),
        ("/v2/models/base/generate", json!({"text_input": "a", "tools": "[{"}), 400, "tools"),
        (
            "/v2/models/base/generate",
            json!({"text_input": "a", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}]}),
            400,
            "'f'",
        ),
        ("/v2/models/base/generate", json!({"text_input": "a", "stream": true}), 400, "generate_stream"),
        ("/v2/models/base/generate_stream", json!({"text_input": "a", "chat_template": "x"}), 400, "chat_template"),
    ] {
        let (found, message) = error(server.post(path, &body)).await;
        assert!(found == status && message.contains(text), "{path} {body}: {found} {message}");
    }
}

#[tokio::test]
async fn the_repository_loads_and_unloads_adapters_by_name() {
    let server = TestServer::with_options(&["--adapter-root", "DIR"]);
    random_adapter(&server.path("weather"), 1);
    let states = |index: Value| {
        let pair =
            |model: &Value| (model["name"].as_str().unwrap().to_owned(), model["state"].as_str().unwrap().to_owned());
        index.as_array().unwrap().iter().map(pair).collect::<Vec<_>>()
    };
    let index = || server.reply(post("/v2/repository/index", Vec::new()));
    let of = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    assert_eq!(states(ok(index()).await), [of("base", "READY"), of("weather", "UNAVAILABLE")]);
    assert_eq!(server.post("/v2/repository/models/weather/load", &json!({})).await.status, 200);
    assert_eq!(server.post("/v2/repository/models/weather/load", &json!({})).await.status, 200, "loaded again");
    assert_eq!(states(ok(index()).await), [of("base", "READY"), of("weather", "READY")]);
    let body = json!({"text_input": "a", "max_tokens": 3});
    assert_eq!(ok(server.post("/v2/models/weather/generate", &body)).await["model_name"], "weather");
    let stats = ok(server.get("/v2/models/weather/stats")).await;
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], 1);
    assert!(stats["model_stats"][0]["inference_stats"]["success"]["ns"].as_u64() > Some(0));
    assert_eq!(
        server
            .post("/v2/repository/models/weather/unload", &json!({"parameters": {"unload_dependents": false}}))
            .await
            .status,
        200
    );
    assert_eq!(states(ok(server.post("/v2/repository/index", &json!({"ready": true}))).await), [of("base", "READY")]);
    assert_eq!(error(server.post("/v2/models/weather/generate", &body)).await.0, 404);
    assert_eq!(error(server.post("/v2/repository/models/nothing/load", &json!({}))).await.0, 404);
    assert_eq!(error(server.post("/v2/repository/models/base/unload", &json!({}))).await.0, 400);
    // A name comes back from where it was.
    let alias = json!({"lora_name": "alias", "lora_path": "weather"});
    assert_eq!(server.post("/v1/load_lora_adapter", &alias).await.status, 200);
    for route in ["load", "unload", "load"] {
        assert_eq!(
            server.post(&format!("/v2/repository/models/alias/{route}"), &json!({})).await.status,
            200,
            "{route}"
        );
    }
    let (_, cause) = error(server.post("/v2/repository/models/nothing/load", &json!({}))).await;
    assert!(!cause.contains(server.dir.path().to_str().unwrap()) && !cause.contains("lora_"), "{cause}");
    let sent = json!({"parameters": {"config": "{}"}});
    assert_eq!(error(server.post("/v2/repository/models/weather/load", &sent)).await.0, 400);
}
