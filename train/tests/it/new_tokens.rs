//! New tokens: trained with all weights or beside an adapter, exported, and merged into what a server loads.

use crate::fixture::{VOCAB, root};
use crate::models::assert_close;
use crate::whole_run::{adapter_recipe, load_adapter, recipe, run};
use callsmith::chat::dialect::DialectChoice;
use callsmith::chat::tokenizer::ChatTokenizer;
use callsmith::model::{AdapterBatch, Attention, Checkpoint, Decoder, ForwardPass, weights};
use callsmith_train::dataset::encode::Encoder;
use callsmith_train::merge::{self, Share, Storage};
use callsmith_train::recipe::Recipe;
use callsmith_train::run::Outcome;
use candle_core::{DType, Device, Tensor};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// One that occurs in every call, and a control token.
const NEW: &str =
    r#"new_tokens=[{ text = "recipient_name" }, { text = "<|extra|>", special = true, description = "a call" }]"#;
const UNTIED: &str = "model.shape.tie_word_embeddings=false";

fn lora(root: &Path, output: &str, sets: &[&str]) -> Recipe {
    adapter_recipe(root, output, ("lora", "rank = 2\nalpha = 4"), &[&[NEW], sets].concat())
}

fn tensors(dir: &Path, file: &str) -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(dir.join(file), &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Logits after some tokens, new ones among them.
fn logits(decoder: &Decoder, adapter: Option<callsmith::model::AdapterWeights>) -> Vec<f32> {
    let tokens: Vec<u32> = (30..48).chain([VOCAB as u32, 7, VOCAB as u32 + 1, 9]).collect();
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let adapters =
        adapter.map_or_else(AdapterBatch::none, |adapter| AdapterBatch::uniform(tokens.len(), Arc::new(adapter)));
    let attention = Attention::Causal(&[tokens.len()]);
    let pass = ForwardPass { tokens: &tokens, positions: &positions, attention, adapters: &adapters };
    flat(&decoder.logits(&decoder.hidden_states(pass).unwrap()).unwrap())
}

#[test]
fn an_adapter_with_new_tokens_merges_into_a_model_that_does_the_same() {
    for untied in [false, true] {
        let root = root();
        if untied {
            run(&recipe(root.path(), "base", &[UNTIED]), false, false).unwrap();
        }
        let recipe = lora(root.path(), "run", &["optim.lr=0.05"]);
        assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished);
        let (base, adapter) = (root.path().join("base/model"), recipe.output.join("model"));
        assert!(adapter.join("tokenizer.json").exists() && adapter.join("chat_template.jinja").exists());

        let loaded = load_adapter(&adapter, &base);
        let rows = loaded.tokens.clone().unwrap();
        assert_eq!((rows.ids.as_slice(), rows.head.is_some()), (&[600, 601][..], untied));
        assert!(loaded.servable().unwrap_err().to_string().contains("callsmith merge"));
        let trained = Checkpoint::open(&base).unwrap().decoder(DType::F32, &Device::Cpu).unwrap();
        let trained = trained.with_token_rows(600, rows.embedding, rows.head).unwrap();

        let out = root.path().join("merged");
        let share = Share { adapter: adapter.clone(), weight: 1.0 };
        merge::run(&base, std::slice::from_ref(&share), &out, Storage { precision: None, shard_bytes: u64::MAX })
            .unwrap();
        let merged = weights::load_decoder(&out, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(merged.config().vocab_size, 602);
        assert_close(&logits(&merged, None), &logits(&trained, Some(load_adapter(&adapter, &base).weights)));
        let tokenizer = ChatTokenizer::load(&out, 602).unwrap();
        assert!(tokenizer.encode_text("the recipient_name is").unwrap().contains(&600));
        assert!(!tokenizer.encode_text("<|extra|>").unwrap().contains(&601), "text became a control token");
        assert!(tokenizer.control_tokens().contains(&"<|extra|>".to_owned()));

        let half = Share { weight: 0.5, ..share };
        let refused =
            merge::run(&base, &[half], &root.path().join("half"), Storage { precision: None, shard_bytes: 1 });
        assert!(refused.unwrap_err().to_string().contains("give no weight"));
    }
}

#[test]
fn a_resumed_run_with_new_tokens_ends_with_the_same() {
    let root = root();
    let bytes = |recipe: &Recipe| fs::read(recipe.output.join("model/adapter_model.safetensors")).unwrap();
    let whole = lora(root.path(), "whole", &["model.weights=q8_0"]);
    run(&whole, false, false).unwrap();
    let pieces = lora(root.path(), "pieces", &["model.weights=q8_0"]);
    assert_eq!(run(&pieces, false, true).unwrap(), Outcome::Stopped { step: 1 });
    run(&pieces, true, false).unwrap();
    assert_eq!(bytes(&pieces), bytes(&whole));
    let again = root.path().join("again");
    callsmith_train::export::from_run(&whole.output, &again, callsmith_train::export::Precision::F32).unwrap();
    assert_eq!(fs::read(again.join("adapter_model.safetensors")).unwrap(), bytes(&whole));
    assert!(again.join("tokenizer.json").exists());
}

#[test]
fn full_training_writes_a_larger_model_whose_new_rows_started_as_means() {
    let root = root();
    run(&recipe(root.path(), "base", &[UNTIED]), false, false).unwrap();
    let base = root.path().join("base/model");
    let from = format!("model={{ path = \"{}\" }}", base.display());
    // Rates so small that the start is still to be seen.
    let tiny = recipe(root.path(), "tiny", &[&from, NEW, "optim.lr=1e-12", "eval.every=100"]);
    run(&tiny, false, false).unwrap();
    let model = tiny.output.join("model");
    let (before, after) = (tensors(&base, "model.safetensors"), tensors(&model, "model.safetensors"));
    let encoder = Encoder::load(&base, &DialectChoice::default(), VOCAB).unwrap();
    let described = encoder.tokenizer.encode_text("a call").unwrap();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (old, new) = (&before[name], &after[name]);
        assert_eq!(new.dims(), [VOCAB + 2, 16]);
        let ids = Tensor::new(described.as_slice(), &Device::Cpu).unwrap();
        let of_description = old.index_select(&ids, 0).unwrap().mean_keepdim(0).unwrap();
        let expected = Tensor::cat(&[old, &old.mean_keepdim(0).unwrap(), &of_description], 0).unwrap();
        assert!(flat(new).iter().zip(flat(&expected)).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
    let decoder = weights::load_decoder(&model, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(decoder.config().vocab_size, VOCAB + 2);
    let encoder = Encoder::load(&model, &DialectChoice::default(), VOCAB + 2).unwrap();
    assert_eq!(encoder.tokenizer.encode_text("recipient_name").unwrap(), [VOCAB as u32]);
}

#[test]
fn new_tokens_that_cannot_be_are_refused_by_name() {
    let root = root();
    let message = |sets: &[&str]| {
        let recipe = adapter_recipe(root.path(), "x", ("lora", "rank = 2\nalpha = 4"), sets);
        run(&recipe, false, false).unwrap_err().to_string()
    };
    let known = message(&[r#"new_tokens=[{ text = "<|end|>" }]"#]);
    assert!(known.contains("<|end|>") && known.contains("already"), "{known}");
    let mute = message(&[r#"new_tokens=[{ text = "<x>", description = "" }]"#]);
    assert!(mute.contains("<x>") && mute.contains("description"), "{mute}");

    let mut longer = callsmith_train::new_tokens::tokenizer(&root.path().join("tokenizer")).unwrap();
    longer.add_tokens([tokenizers::AddedToken::from("<longer>", false)]).unwrap();
    fs::create_dir(root.path().join("longer")).unwrap();
    longer.save(root.path().join("longer/tokenizer.json"), false).unwrap();
    let foreign = message(&[NEW, &format!("model.tokenizer={}", root.path().join("longer").display())]);
    assert!(foreign.contains("`model.tokenizer`") && foreign.contains("the model's own tokenizer"), "{foreign}");

    let base = format!("model={{ path = \"{}\" }}", root.path().join("base/model").display());
    let frozen = recipe(root.path(), "frozen", &[&base, NEW, "full.train=[\".*mlp.*\"]"]);
    let frozen = run(&frozen, false, false).unwrap_err().to_string();
    assert!(frozen.contains("full.train") && frozen.contains("model.embed_tokens.weight"), "{frozen}");
}

#[test]
fn a_recipe_with_new_tokens_that_cannot_work_names_its_field() {
    let root = root();
    let resolved = lora(root.path(), "x", &[]).resolved().unwrap();
    let message = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Recipe::parse(&resolved, "test", &sets).unwrap_err().to_string()
    };
    assert!(message(&[r#"new_tokens=[{ text = "" }]"#]).contains("new_tokens[0].text"));
    assert!(message(&[r#"new_tokens=[{ text = "a" }, { text = "a" }]"#]).contains("new_tokens[1].text"));
    assert!(message(&[r#"new_tokens=[{ txt = "a" }]"#]).contains("txt"));
}
