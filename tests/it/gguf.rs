//! A model in a GGUF file answers as it does from its directory.

use crate::support::{TestServer, text_request, tiny_model, tool};
use callsmith::chat::tokenizer::gguf::metadata_of;
use callsmith::model::gguf::{Contents, Encoding, write};
use callsmith::model::weights::Checkpoint;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Writes a model directory as a file into a directory of its own, so that no `tokenizer.json` lies beside it.
fn converted(model: &Path, dir: &Path, encoding: Encoding) -> PathBuf {
    let checkpoint = Checkpoint::open(model).unwrap();
    let config = checkpoint.config();
    let tokenizer = metadata_of(model, config.vocab_size).unwrap();
    let path = dir.join("converted.f32.gguf");
    let contents = Contents { config, name: "converted", encoding, tokenizer: &tokenizer };
    write(&path, &contents, &mut |name| checkpoint.tensor(name)).unwrap();
    path
}

/// Servers of the same model from its directory and from a file.
fn both(model: &Path) -> [TestServer; 2] {
    let [own, other] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let path = converted(model, other.path(), Encoding::F32);
    [TestServer::of_model(model, &[], own), TestServer::of_model(&path, &[], other)]
}

/// What the model said, without random ids.
async fn said(server: &TestServer, body: &Value) -> (Value, Vec<Value>, Value) {
    let choice = server.chat(body).await.choice();
    let calls = choice["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
    let calls = calls.iter().map(|call| call["function"].clone()).collect();
    (choice["message"]["content"].clone(), calls, choice["finish_reason"].clone())
}

#[tokio::test]
async fn the_built_in_model_makes_the_same_call_from_a_file() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/embedded");
    let servers = both(&model);
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let body = json!({
        "model": "base", "temperature": 0, "max_tokens": 60, "tools": [tool("get_weather", &parameters)],
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    });
    let [from_dir, from_file] = [said(&servers[0], &body).await, said(&servers[1], &body).await];
    assert_eq!(from_dir, from_file);
    assert_eq!(from_file.1[0]["arguments"], "{\"city\":\"Paris\"}");
}

#[tokio::test]
async fn a_random_llama_says_the_same_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let servers = both(&tiny_model(&dir.path().join("model")));
    let mut body = text_request();
    body["temperature"] = json!(0);
    let [from_dir, from_file] = [said(&servers[0], &body).await, said(&servers[1], &body).await];
    assert_eq!(from_dir, from_file);
    assert_ne!(from_file.0, json!(""));
    let prompt = json!({"model": "base", "prompt": "How warm is it in Paris? <|end|> {\"tool_uses\":[ 12"});
    let [a, b] = [servers[0].post("/tokenize", &prompt).await, servers[1].post("/tokenize", &prompt).await];
    assert_eq!((a.status.as_u16(), &a.json()), (200, &b.json()));
}

#[test]
fn a_file_that_is_none_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, "not a model").unwrap();
    let error = Checkpoint::open(&path).err().unwrap().to_string();
    assert_eq!(error, format!("{}: not a GGUF file (it does not begin with `GGUF`)", path.display()));
}
