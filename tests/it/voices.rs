//! Adapters with a chat template of their own beside a base without it: each prompt, answer and listing in its own dialect.

use crate::support::{Reply, TestServer, assert_valid, post, random_adapter, tool, weather_request, write};
use futures::StreamExt;
use serde_json::{Value, json};

const VIGGO: &str = include_str!("../../train/recipes/viggo.jinja");

/// A server with the adapters `acts`, which speaks `viggo`, and `plain`, which speaks as the base does, of the same weights.
async fn server() -> TestServer {
    let server = TestServer::with_options(&["--adapter-root", "DIR", "--adapter-templates"]);
    for name in ["acts", "plain"] {
        random_adapter(&server.path(name), 1);
    }
    write(&server.path("acts/chat_template.jinja"), VIGGO);
    for name in ["acts", "plain"] {
        assert_eq!(load(&server, name, false).await.status, 200);
    }
    server
}

async fn load(server: &TestServer, name: &str, replace: bool) -> Reply {
    let body = json!({"lora_name": name, "lora_path": name, "load_inplace": replace});
    server.post("/v1/load_lora_adapter", &body).await
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"level": {"enum": [1, 2]}, "on": {"type": "boolean"}}, "required": ["level"]})
}

/// A request that must call.
fn required(model: &str, seed: u64) -> Value {
    let mut body = weather_request();
    body["tools"] = json!([tool("light", &schema())]);
    body["parallel_tool_calls"] = json!(false);
    (body["model"], body["tool_choice"], body["seed"], body["temperature"]) =
        (json!(model), json!("required"), json!(seed), json!(1));
    body
}

/// The part of a request that the model is shown.
fn shown(body: &Value) -> Value {
    ["model", "messages", "tools", "tool_choice"].map(|key| (key.to_owned(), body[key].clone())).into_iter().collect()
}

/// What the model is shown of a request.
async fn prompt(server: &TestServer, body: &Value) -> String {
    let tokens = server.post("/tokenize", &shown(body)).await.json()["tokens"].clone();
    server.post("/detokenize", &json!({"tokens": tokens})).await.json()["prompt"].as_str().unwrap().to_owned()
}

/// The turn as the model wrote it.
fn written(choice: &Value) -> String {
    choice["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect()
}

fn generation(models: &Value, name: &str) -> String {
    let found = models["data"].as_array().unwrap().iter().find(|model| model["id"] == name);
    found.unwrap()["generation"].as_str().unwrap().to_owned()
}

/// Names a dialect and shows calls in none.
const FOREIGN: &str = "{#- dialect: viggo -#}{{ tools }}\
    {% for m in messages %}{% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% endfor %}{% endfor %}";
const ACT: &str = "light(level[";
const TOOL_USES: &str = "{\"tool_uses\":[{\"recipient_name\":\"functions.light\",\"parameters\":{\"level\":";

#[tokio::test]
async fn one_batch_answers_under_two_dialects() {
    let server = server().await;
    let mut bodies: Vec<Value> =
        (0..4).flat_map(|seed| ["base", "acts", "plain"].map(|model| required(model, seed))).collect();
    bodies.iter_mut().for_each(|body| body["return_tokens"] = json!(true));
    let mut solo = Vec::new();
    for body in &bodies {
        solo.push(written(&server.chat(body).await.choice()));
    }
    let together = futures::future::join_all(bodies.iter().map(|body| server.chat(body))).await;
    for ((body, reply), solo) in bodies.iter().zip(together).zip(solo) {
        let choice = reply.choice();
        let (written, start) = (written(&choice), if body["model"] == "acts" { ACT } else { TOOL_USES });
        assert!(written.starts_with(start), "{}: {written}", body["model"]);
        assert_eq!(written, solo);
        let call = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!((&choice["finish_reason"], &call["name"]), (&json!("tool_calls"), &json!("light")));
        assert_valid(&schema(), call["arguments"].as_str().unwrap());
        let streamed = server.stream(body).await.message(0);
        assert_eq!(streamed["tool_calls"][0]["function"], *call);
    }
}

#[tokio::test]
async fn every_protocol_shows_and_reads_the_dialect_of_the_model_it_names() {
    let server = server().await;
    for (model, signature, start, dialect) in [
        ("base", "namespace functions", TOOL_USES, "tool_uses"),
        ("plain", "namespace functions", TOOL_USES, "tool_uses"),
        ("acts", "<|functions|>light<|end|>", ACT, "viggo"),
    ] {
        let body = required(model, 1);
        let prompt = prompt(&server, &body).await;
        assert!(prompt.contains(signature) && prompt.ends_with("<|end|><|assistant|>"), "{prompt}");
        let counted = server.chat(&body).await.json()["usage"]["prompt_tokens"].as_u64().unwrap();
        let tokens = server.post("/tokenize", &shown(&body)).await.json()["count"].as_u64().unwrap();
        assert_eq!(counted, tokens, "the prompt is the one that is answered");

        let function = body["tools"][0]["function"].clone();
        let mut flat = function.clone();
        flat["type"] = json!("function");
        let response =
            json!({"model": model, "input": "How warm?", "tools": [flat], "tool_choice": "required", "seed": 1});
        let output = server.post("/v1/responses", &response).await.json()["output"][0].clone();
        assert_eq!((&output["type"], &output["name"]), (&json!("function_call"), &json!("light")));

        let parameters = json!({"tools": body["tools"], "tool_choice": "required", "seed": 1});
        let generate = json!({"text_input": "How warm?", "parameters": parameters});
        let reply = server.post(&format!("/v2/models/{model}/generate"), &generate).await.json();
        assert!(reply["text_output"].as_str().unwrap().starts_with(start), "{reply}");
        let tensor = |name: &str, text: &str| json!({"name": name, "datatype": "BYTES", "shape": [1], "data": [text]});
        let sampling = json!({"tools": body["tools"], "tool_choice": "required", "seed": 1}).to_string();
        let infer = json!({"inputs": [tensor("text_input", "How warm?"), tensor("sampling_parameters", &sampling)]});
        let reply = server.post(&format!("/v2/models/{model}/infer"), &infer).await.json();
        assert!(reply["outputs"][0]["data"][0].as_str().unwrap().starts_with(start), "{reply}");

        let config = server.get(&format!("/v2/models/{model}/config")).await.json();
        assert_eq!(config["parameters"]["dialect"]["string_value"], dialect);
        assert_eq!(server.get(&format!("/v1/models/{model}")).await.json()["dialect"], dialect);
    }
    let listed = server.get("/v1/lora_adapters").await.json()["data"].clone();
    let told: Vec<_> = listed.as_array().unwrap().iter().map(|one| (&one["name"], &one["dialect"])).collect();
    assert_eq!(told, [(&json!("acts"), &json!("viggo")), (&json!("plain"), &json!("tool_uses"))]);
}

#[tokio::test]
async fn an_earlier_call_is_shown_to_each_model_in_its_dialect() {
    let server = server().await;
    let call = json!({"id": "a", "type": "function", "function": {"name": "light", "arguments": "{\"level\":2}"}});
    let tool_uses = format!("{TOOL_USES}2}}}}]}}");
    for (model, shown) in [("acts", "light(level[2])"), ("plain", tool_uses.as_str())] {
        let mut body = required(model, 1);
        body["messages"] = json!([
            {"role": "user", "content": "Light!"}, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "done"}, {"role": "user", "content": "Again!"},
        ]);
        let prompt = prompt(&server, &body).await;
        assert!(prompt.contains(&format!("<|assistant|>{shown}<|end|>")), "{prompt}");
        assert_eq!(server.chat(&body).await.choice()["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn a_broken_template_is_refused_by_name_and_the_old_generation_goes_on() {
    let server = server().await;
    let before = server.chat(&required("acts", 3)).await.choice()["message"]["tool_calls"][0]["function"].clone();
    for text in ["{% for %}", "{#- dialect: klingon -#}", FOREIGN] {
        write(&server.path("acts/chat_template.jinja"), text);
        let refused = load(&server, "acts", true).await;
        assert_eq!(
            refused.refusal(),
            (422, "lora_path".to_owned(), "invalid_lora_adapter".to_owned()),
            "{}",
            refused.text
        );
        assert!(refused.text.contains("chat_template.jinja"), "{}", refused.text);
    }
    let after = server.chat(&required("acts", 3)).await.choice()["message"]["tool_calls"][0]["function"].clone();
    assert_eq!(after, before);
    // One that nobody has loaded yet is broken to whoever names it.
    random_adapter(&server.path("other"), 2);
    write(&server.path("other/chat_template.jinja"), "{% for %}");
    assert!(server.chat(&required("other", 1)).await.status.is_client_error());
}

#[tokio::test]
async fn a_template_alone_makes_a_new_generation_and_running_answers_keep_the_old_one() {
    let server = server().await;
    let models = server.get("/v1/models").await.json();
    let (first, plain) = (generation(&models, "acts"), generation(&models, "plain"));
    let mut body = json!({"model": "acts", "messages": [{"role": "user", "content": "Talk."}], "max_tokens": 3000,
        "temperature": 0, "logit_bias": {server.end_token(): -100}});
    let content = async |body: &Value| server.chat(body).await.choice()["message"]["content"].clone();
    let undisturbed = content(&body).await;
    body["stream"] = json!(true);
    let response = server.send(post("/v1/chat/completions", body.to_string().into_bytes())).await;
    let mut stream = response.into_body().into_data_stream();
    let mut text = stream.next().await.unwrap().unwrap().to_vec();

    write(&server.path("acts/chat_template.jinja"), VIGGO.replace("trim", "upper"));
    assert_eq!(load(&server, "acts", true).await.status, 200);
    let models = server.get("/v1/models").await.json();
    assert_ne!(generation(&models, "acts"), first);
    assert_eq!(generation(&models, "plain"), plain, "the other adapter is not touched");
    assert!(prompt(&server, &required("acts", 1)).await.contains("HOW WARM"), "the new template shows the prompt");
    assert!(server.state.engine.stats().running >= 1, "the stream ended too early to show anything");
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let transcript = crate::support::Transcript::read(&String::from_utf8(text).unwrap());
    assert_eq!(transcript.message(0)["content"], undisturbed);
    (body["stream"], body["max_tokens"]) = (json!(false), json!(200));
    let after = content(&body).await;
    assert!(!undisturbed.as_str().unwrap().starts_with(after.as_str().unwrap()), "the new prompt is answered alike");

    // Without its template the adapter speaks as the base does.
    std::fs::remove_file(server.path("acts/chat_template.jinja")).unwrap();
    assert_eq!(load(&server, "acts", true).await.status, 200);
    assert_eq!(
        generation(&server.get("/v1/models").await.json(), "acts"),
        plain,
        "the same files are the same generation"
    );
    assert!(prompt(&server, &required("acts", 1)).await.contains("namespace functions"));
}

#[tokio::test]
async fn an_adapter_that_is_not_loaded_yet_is_shown_its_prompts_as_it_speaks() {
    let server = TestServer::with_options(&["--adapter-root", "DIR", "--adapter-templates"]);
    random_adapter(&server.path("acts"), 1);
    write(&server.path("acts/chat_template.jinja"), VIGGO);
    assert!(prompt(&server, &required("acts", 1)).await.contains("<|functions|>light<|end|>"));
    assert_eq!(server.get("/v1/models/acts").await.json()["dialect"], "viggo");
}

#[tokio::test]
async fn a_users_own_dialect_is_found_for_an_adapter_too() {
    let dialects = tempfile::tempdir().unwrap();
    let own =
        include_str!("../../grammars/llama_functions.toml").replace("name = \"llama_functions\"", "name = \"own\"");
    let own = own.replace("function_call", "my_call");
    write(&dialects.path().join("own.toml"), own);
    let server = TestServer::with_options(&[
        "--adapter-root",
        "DIR",
        "--adapter-templates",
        "--dialect-dir",
        dialects.path().to_str().unwrap(),
    ]);
    random_adapter(&server.path("mine"), 1);
    write(&server.path("mine/chat_template.jinja"), VIGGO.replace("dialect: viggo", "dialect: own"));
    let mut body = required("mine", 1);
    body["return_tokens"] = json!(true);
    assert!(written(&server.chat(&body).await.choice()).contains("my_call"));
    assert_eq!(server.get("/v1/models/mine").await.json()["dialect"], "own");
    assert_eq!(server.get("/v1/models/base").await.json()["dialect"], "tool_uses");
}
