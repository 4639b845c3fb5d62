//! Soft prompts: trained, written as PEFT directories, and served as they were trained.

use crate::fixture::root;
use crate::whole_run::{self, adapter_recipe, load_adapter, log, run};
use callsmith::adapter::registry::Generation;
use callsmith::engine::{EngineHandle, EngineOptions, Event, GenerateRequest, SamplingParams};
use callsmith::model::prompt::virtual_tokens;
use callsmith::model::{
    AdapterBatch, AdapterWeights, Attention, Checkpoint, CpuDecoder, Decoder, ForwardPass, Packing, Precision,
};
use callsmith_train::recipe::Recipe;
use callsmith_train::run::Outcome;
use candle_core::{DType, Device};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const PROMPT: (&str, &str) = ("prompt", "tokens = 4\ntext = \"Call a function.\"");

/// Weights large enough that what a model says depends on what it reads.
const BASE: [&str; 2] = ["init={ embedding_std = 0.5, std = 0.4 }", "model.shape.tie_word_embeddings=false"];

fn recipe(root: &Path, output: &str, sets: &[&str]) -> Recipe {
    if !root.join("base").exists() {
        run(&whole_run::recipe(root, "base", &BASE), false, false).unwrap();
    }
    adapter_recipe(root, output, PROMPT, &[&["log.every=1", "eval.split=0"], sets].concat())
}

fn weights(recipe: &Recipe) -> Vec<u8> {
    fs::read(recipe.output.join("model/adapter_model.safetensors")).unwrap()
}

#[test]
fn a_soft_prompt_lowers_the_loss_and_a_resumed_run_ends_with_the_same() {
    let root = root();
    let sets = ["phase.0.steps=30", "optim.lr=0.3"];
    let whole = recipe(root.path(), "whole", &sets);
    assert_eq!(run(&whole, false, false).unwrap(), Outcome::Finished);
    let losses: Vec<f64> =
        log(&whole).iter().filter(|line| line["event"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect();
    assert!(losses[29] < losses[0] - 0.05, "{losses:?}");
    let started = &log(&whole)[0];
    assert_eq!(started["trainable"], 4 * 16, "{started}");

    let pieces = recipe(root.path(), "pieces", &sets);
    assert_eq!(run(&pieces, false, true).unwrap(), Outcome::Stopped { step: 1 });
    run(&pieces, true, false).unwrap();
    assert_eq!(weights(&pieces), weights(&whole));
    assert_eq!(load_adapter(&whole.output.join("model"), &root.path().join("base/model")).weights.virtual_tokens(), 4);
}

#[test]
fn a_packed_base_and_random_tokens_do_as_well() {
    let root = root();
    let recipe = adapter_recipe(root.path(), "packed", ("prompt", "tokens = 3"), &["model.weights=bf16"]);
    assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished);
    let other = adapter_recipe(root.path(), "other", ("prompt", "tokens = 3"), &["model.weights=bf16", "seed=2"]);
    run(&other, false, false).unwrap();
    assert_ne!(weights(&recipe), weights(&other));
}

#[test]
fn conversations_are_answered_behind_the_virtual_tokens_at_evaluations() {
    let root = root();
    let data = format!("eval.data=\"{}\"", root.path().join("data.jsonl").display());
    let sets = [data.as_str(), "phase.0.steps=1", "eval.generate=1", "eval.max_tokens=20"];
    let recipe = adapter_recipe(root.path(), "answered", ("prompt", "tokens = 150"), &sets);
    assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished);
    let log = log(&recipe);
    let evaluated = log.iter().find(|line| line["event"] == "eval").unwrap();
    assert!(evaluated["held_out"]["call_accuracy"].is_number(), "{evaluated}");
}

/// What the decoder that trains says greedily.
fn trained_greedy(decoder: &Decoder, adapter: &Arc<AdapterWeights>, said: &[u32], count: usize) -> Vec<u32> {
    let vocab_size = decoder.config().vocab_size;
    let mut tokens: Vec<u32> =
        virtual_tokens(vocab_size, adapter.virtual_tokens()).chain(said.iter().copied()).collect();
    let before = tokens.len();
    for _ in 0..count {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let adapters = AdapterBatch::uniform(tokens.len(), adapter.clone());
        let attention = Attention::Causal(&[tokens.len()]);
        let pass = ForwardPass { tokens: &tokens, positions: &positions, attention, adapters: &adapters };
        let hidden = decoder.hidden_states(pass).unwrap();
        let last = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
        let best = decoder.logits(&last).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
        tokens.push(best);
    }
    tokens.split_off(before)
}

/// What the engine says greedily with an adapter of this name.
fn served_greedy(engine: &EngineHandle, adapter: AdapterWeights, said: &[u32], count: usize) -> Vec<u32> {
    let lease = Generation {
        name: "trained".into(),
        id: "0123".into(),
        rank: 0,
        bytes: adapter.bytes(),
        path: "trained".into(),
        chat_template: None,
        created: 0,
        weights: Arc::new(adapter.into_packed(Packing::Full).unwrap()),
    };
    let mut events = engine
        .submit(GenerateRequest {
            prompt: said.to_vec(),
            params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens: count,
            stop_token_ids: Vec::new(),
            constraint: None,
            adapter: Some(Arc::new(lease)),
            tenant: None,
        })
        .unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Tokens(new) => tokens.extend(new.iter().map(|token| token.id)),
            Event::Failed(error) => panic!("{error}"),
            Event::Started { .. } | Event::Finished(_) => {}
        }
    }
    tokens
}

#[test]
fn what_is_served_is_what_was_trained() {
    let root = root();
    let recipe = recipe(root.path(), "run", &["phase.0.steps=4", "optim.lr=0.3"]);
    run(&recipe, false, false).unwrap();
    let base = root.path().join("base/model");
    let adapter = load_adapter(&recipe.output.join("model"), &base).weights;
    let checkpoint = Checkpoint::open(&base).unwrap();
    let decoder = checkpoint.decoder(DType::F32, &Device::Cpu).unwrap();
    let limits = EngineOptions {
        max_batch: 2,
        token_budget: 5,
        kv_cache_bytes: 1 << 24,
        max_queue: 2,
        prefix_cache: true,
        bounded_masks: true,
    };
    let packed = CpuDecoder::load(&checkpoint, Precision::FULL, 1, &|_| {}).unwrap();
    let engine = EngineHandle::start_packed(packed, limits).unwrap();
    let said: Vec<u32> = (40..57).collect();
    let expected = trained_greedy(&decoder, &Arc::new(adapter.clone()), &said, 24);
    assert_eq!(served_greedy(&engine, adapter, &said, 24), expected);
    let without = Arc::new(AdapterWeights::empty(decoder.config().num_layers));
    assert_ne!(trained_greedy(&decoder, &without, &said, 24), expected, "the prompt changes nothing");
}

#[test]
fn a_recipe_of_a_soft_prompt_that_cannot_work_names_its_field() {
    let root = root();
    let resolved = recipe(root.path(), "x", &[]).resolved().unwrap();
    let message = |section: &str, sets: &[&str]| {
        let text = resolved.replace("tokens = 4\ntext = \"Call a function.\"", section);
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Recipe::parse(&text, "test", &sets).unwrap_err().to_string()
    };
    assert!(message("tokens = 0", &[]).contains("prompt.tokens"));
    assert!(message("tokens = 4\ntext = \"\"", &[]).contains("prompt.text"));
    assert!(message("tokens = 3000", &[]).contains("batch.max_len"));
    assert!(message("tokens = 4", &["method=lora", "lora={ rank = 2, alpha = 2 }"]).contains("prompt"));
    assert!(message("tokens = 4", &["lora={ rank = 2, alpha = 2 }"]).contains("lora"));
}
