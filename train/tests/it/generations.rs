//! Sample generations while training: measured on the live weights, decisive, and what the server writes with the result.

use crate::fixture::{self, VOCAB, root};
use callsmith::adapter::peft;
use callsmith::adapter::registry::{Generation, Lease};
use callsmith::chat::dialect::{DialectChoice, TurnSpec};
use callsmith::engine::{EngineHandle, EngineOptions, Event, GenerateRequest, SamplingParams};
use callsmith::grammar::{GrammarCompiler, schema};
use callsmith::model::{Checkpoint, CpuDecoder, Precision};
use callsmith_train::TrainError;
use callsmith_train::data::Dialogue;
use callsmith_train::dataset::conversations::{Conversations, Corpus};
use callsmith_train::dataset::encode::Encoder;
use callsmith_train::eval::generate::Generations;
use callsmith_train::eval::held_out::HeldOut;
use callsmith_train::merge::{self, Share, Storage};
use callsmith_train::ranks::Alone;
use callsmith_train::recipe::Recipe;
use callsmith_train::run::{Outcome, RunOptions, train};
use callsmith_train::trainable::{self, Trainable};
use candle_core::{DType, Device};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CITIES: [&str; 3] = ["Paris", "Rome", "Oslo"];

fn dialogues(path: &Path) -> Vec<Dialogue> {
    let read = Conversations::open(path).unwrap();
    (0..read.len()).map(|index| read.get(index).clone()).collect()
}

/// Requests for the weather in each city, answered by a call for the city `shift` places on, and one that wants words.
fn data(root: &Path, name: &str, shift: usize) -> PathBuf {
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string", "enum": CITIES}}, "required": ["city"]}}}]);
    let line = |request: String, answer: Value| json!({"messages": [{"role": "user", "content": request}, answer], "tools": tools});
    let call = |city: &str| {
        let function = json!({"name": "weather", "arguments": json!({"city": city}).to_string()});
        json!({"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function", "function": function}]})
    };
    let mut lines: Vec<Value> =
        (0..3).map(|n| line(format!("Weather in {}?", CITIES[n]), call(CITIES[(n + shift) % 3]))).collect();
    lines.push(line("Good morning".into(), json!({"role": "assistant", "content": "Hello"})));
    let path = root.join(name);
    fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path
}

/// What all recipes here have in common: every conversation is trained on and measured.
fn recipe(head: &str, data: &Path, sets: &[&str]) -> Recipe {
    let text = format!(
        "{head}\n[optim]\nlr = 0.01\n[batch]\ntokens = 800\nmax_len = 400\n[[phase]]\nsteps = 80\nsource = [{{ jsonl = \"{data}\" }}]\n\
         [eval]\ndata = \"{data}\"\nmax_tokens = 40\nevery = 20\nbest = \"call_accuracy\"\n[checkpoint]\nkeep = 100",
        data = data.display()
    );
    Recipe::parse(&text, "test", &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn full(root: &Path, output: &str, sets: &[&str]) -> Recipe {
    let head = format!(
        "method = \"full\"\noutput = \"{root}/{output}\"\n[model]\ntokenizer = \"{root}/tokenizer\"\n[model.shape]\nhidden_size = 32\n\
         intermediate_size = 64\nnum_hidden_layers = 2\nnum_attention_heads = 2\nnum_key_value_heads = 2\nmax_position_embeddings = 512\n\
         [init]\nembedding_std = 0.5",
        root = root.display()
    );
    recipe(&head, &data(root, "data.jsonl", 0), sets)
}

fn lora(root: &Path, sets: &[&str]) -> Recipe {
    let head = format!(
        "method = \"lora\"\noutput = \"{root}/lora\"\n[model]\npath = \"{root}/base/model\"\n[lora]\nrank = 8\nalpha = 16\ndora = true",
        root = root.display()
    );
    recipe(&head, &data(root, "shifted.jsonl", 1), sets)
}

fn run(recipe: &Recipe) {
    let outcome = train(recipe, RunOptions::default(), &Arc::new(AtomicBool::new(false))).unwrap();
    assert_eq!(outcome, Outcome::Finished);
}

fn of(recipe: &Recipe, event: &str) -> Vec<Value> {
    let log = fs::read_to_string(recipe.output.join("train.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

fn accuracy(evaluation: &Value) -> f64 {
    evaluation["held_out"]["call_accuracy"].as_f64().unwrap()
}

#[test]
fn accuracy_is_measured_on_the_live_weights_and_chooses_the_step() {
    let root = root();
    let untrained = full(root.path(), "untrained", &["phase.0.steps=1", "optim.lr=1e-9"]);
    run(&untrained);
    let before = of(&untrained, "eval").pop().unwrap();
    assert!(accuracy(&before) < 1.0, "{before}");

    let base = full(root.path(), "base", &[]);
    run(&base);
    let evaluations = of(&base, "eval");
    let last = evaluations.last().unwrap();
    assert_eq!(accuracy(last), 1.0, "{evaluations:#?}");
    for evaluation in evaluations.iter().chain([&before]) {
        let samples = evaluation["samples"].as_array().unwrap();
        let right = samples.iter().filter(|sample| sample["right"] == true).count();
        assert_eq!((samples.len(), accuracy(evaluation)), (4, right as f64 / 4.0));
    }
    let key = |line: &Value| (-accuracy(line), line["held_out"]["loss"].as_f64().unwrap());
    let best = evaluations.iter().min_by(|a, b| key(a).partial_cmp(&key(b)).unwrap()).unwrap();
    assert_eq!(of(&base, "finished")[0]["best_step"], best["step"]);
    let page = fs::read_to_string(base.output.join("report.html")).unwrap();
    assert!(page.contains("Good morning") && page.contains("<span class=\"good\">right</span>"), "{page}");

    // An adapter that teaches other answers: the base beside it has not moved.
    let lora = lora(root.path(), &["phase.0.steps=60", "eval.every=60"]);
    run(&lora);
    let learnt = of(&lora, "eval").pop().unwrap();
    assert_eq!(accuracy(&learnt), 1.0, "{learnt:#}");
    let served = Served::load(&root.path().join("base/model"), Some(&lora.output.join("model")));
    assert_eq!(served.answers(&root.path().join("shifted.jsonl")), recorded(&learnt));
    let served = Served::load(&root.path().join("base/model"), None);
    assert_eq!(served.answers(&root.path().join("data.jsonl")), recorded(last));
}

/// Texts of the samples, in alphabetical order.
fn recorded(evaluation: &Value) -> Vec<String> {
    let samples = evaluation["samples"].as_array().unwrap();
    let mut texts: Vec<_> = samples.iter().map(|sample| sample["got"].as_str().unwrap().to_owned()).collect();
    texts.sort();
    texts
}

/// A model as the server holds it on a CPU.
struct Served {
    engine: EngineHandle,
    encoder: Encoder,
    adapter: Option<Lease>,
}

impl Served {
    fn load(model: &Path, adapter: Option<&Path>) -> Self {
        let checkpoint = Checkpoint::open(model).unwrap();
        let config = checkpoint.config();
        let encoder = Encoder::load(model, &DialectChoice::default(), config.vocab_size).unwrap();
        let adapter = adapter.map(|path| {
            let loaded = peft::load(path, config, DType::F32, &Device::Cpu).unwrap();
            let (name, id, path) = ("a".to_owned(), loaded.digest, path.to_owned());
            let weights = Arc::new(loaded.weights.beside(&checkpoint).unwrap());
            Arc::new(Generation { name, id, rank: 8, bytes: 0, path, chat_template: None, created: 0, weights })
        });
        let decoder = CpuDecoder::load(&checkpoint, Precision::FULL, 1, &|_| {}).unwrap();
        let options = EngineOptions {
            max_batch: 1,
            token_budget: 64,
            kv_cache_bytes: 8 << 20,
            max_queue: 8,
            prefix_cache: false,
            bounded_masks: true,
        };
        Self { engine: EngineHandle::start_packed(decoder, options).unwrap(), encoder, adapter }
    }

    /// The answers to the first request of each conversation, in alphabetical order.
    fn answers(&self, data: &Path) -> Vec<String> {
        let mut texts: Vec<_> = self.tokens(data).iter().map(|ids| self.encoder.tokenizer.decode(ids)).collect();
        texts.sort();
        texts
    }

    /// The same as tokens, in the order of the conversations.
    fn tokens(&self, data: &Path) -> Vec<Vec<u32>> {
        dialogues(data).into_iter().map(|dialogue| self.answer(dialogue.conversation)).collect()
    }

    fn answer(&self, mut conversation: callsmith::chat::Conversation) -> Vec<u32> {
        conversation.messages.truncate(1);
        let tokenizer = &self.encoder.tokenizer;
        let (prompt, reasoning) = self.encoder.turn(&conversation).unwrap();
        let tool = &conversation.tools[0];
        let functions = [(tool.name.clone(), schema::admit_parameters(&tool.parameters).unwrap())];
        let spec = TurnSpec {
            tools: &functions,
            choice: &conversation.tool_choice,
            parallel: conversation.parallel_tool_calls,
            reasoning,
            control: tokenizer.control_ids(),
            answer: None,
        };
        let grammar = self.encoder.dialect.grammar(&spec).unwrap();
        let constraint = GrammarCompiler::new(tokenizer.tok_env(), 1).unwrap().compile_blocking(&grammar).unwrap();
        let request = GenerateRequest {
            prompt,
            params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens: 40,
            stop_token_ids: tokenizer.eos_token_ids().to_vec(),
            constraint: Some(constraint),
            adapter: self.adapter.clone(),
            tenant: None,
        };
        let (mut events, mut ids) = (self.engine.submit(request).unwrap(), Vec::new());
        loop {
            match events.blocking_recv().unwrap() {
                Event::Tokens(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                Event::Finished(_) => return ids,
                Event::Started { .. } => {}
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
}

/// One that the requests and calls have, and a control token that nothing has.
const NEW: &str = r#"new_tokens=[{ text = "Oslo" }, { text = "<|extra|>", special = true }]"#;

/// The run's last generations are what the server writes with `model`, which says Oslo by its new token.
fn assert_served_with_new_tokens(recipe: &Recipe, model: &Path, data: &Path) {
    let served = Served::load(model, None);
    assert_eq!(served.answers(data), recorded(&of(recipe, "eval").pop().unwrap()));
    let written = served.tokens(data);
    let said = written.iter().filter(|ids| served.encoder.tokenizer.decode(ids).contains("Oslo")).count();
    let by_token = written.iter().filter(|ids| ids.contains(&(VOCAB as u32))).count();
    assert!(said > 0 && said == by_token, "{written:?}");
    assert!(!written.concat().contains(&(VOCAB as u32 + 1)), "the grammar has no place for it");
}

/// A base for adapters and larger models.
fn base(root: &Path, tied: bool) -> PathBuf {
    let base = full(root, "base", &[&format!("model.shape.tie_word_embeddings={tied}"), "eval.every=80"]);
    run(&base);
    base.output.join("model")
}

#[test]
fn new_tokens_beside_an_adapter_are_written_in_calls_while_it_is_trained_and_by_the_server_afterwards() {
    for tied in [true, false] {
        let root = root();
        let (base, merged) = (base(root.path(), tied), root.path().join("merged"));
        let lora = lora(root.path(), &[NEW, "phase.0.steps=180", "eval.every=180"]);
        run(&lora);
        let share = Share { adapter: lora.output.join("model"), weight: 1.0 };
        merge::run(&base, &[share], &merged, Storage { precision: None, shard_bytes: u64::MAX }).unwrap();
        assert_served_with_new_tokens(&lora, &merged, &root.path().join("shifted.jsonl"));
    }
}

#[test]
fn new_tokens_of_a_larger_model_are_written_in_calls_while_it_is_trained_and_by_the_server_afterwards() {
    let root = root();
    let from = format!("model={{ path = \"{}\" }}", base(root.path(), true).display());
    let larger = full(root.path(), "larger", &[&from, NEW, "phase.0.steps=120", "eval.every=120"]);
    run(&larger);
    assert_served_with_new_tokens(&larger, &larger.output.join("model"), &root.path().join("data.jsonl"));
}

#[test]
fn a_run_without_functions_or_with_generations_switched_off_asks_for_none() {
    let root = root();
    let mut recipe = full(root.path(), "run", &["phase.0.steps=1", "eval.generate=0", "eval.best=loss"]);
    run(&recipe);
    let evaluation = of(&recipe, "eval").pop().unwrap();
    assert_eq!((&evaluation["samples"], &evaluation["held_out"]["call_accuracy"]), (&Value::Null, &Value::Null));

    let words = root.path().join("words.jsonl");
    fs::write(
        &words,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n",
    )
    .unwrap();
    recipe.output = root.path().join("words");
    let eval = recipe.eval.as_mut().unwrap();
    (eval.data, eval.generate) = (Some(words), Some(8));
    run(&recipe);
    assert_eq!(of(&recipe, "eval").pop().unwrap()["samples"], Value::Null);
    recipe.output = root.path().join("undecided");
    recipe.eval.as_mut().unwrap().best = callsmith_train::recipe::BestBy::CallAccuracy;
    let refused = train(&recipe, RunOptions::default(), &Arc::new(AtomicBool::new(false))).unwrap_err().to_string();
    assert!(refused.contains("eval.best") && refused.contains("functions"), "{refused}");
}

#[test]
fn a_schema_that_the_server_would_refuse_is_left_out_and_the_run_goes_on() {
    let root = root();
    let recipe = full(root.path(), "run", &["phase.0.steps=1"]);
    let data = root.path().join("data.jsonl");
    let text = fs::read_to_string(&data).unwrap();
    let broken = text.lines().next().unwrap().replace("\"string\"", "\"strange\"") + "\n";
    fs::write(&data, text + &broken + &broken).unwrap();
    run(&recipe);
    assert_eq!(of(&recipe, "eval").pop().unwrap()["samples"].as_array().unwrap().len(), 4);

    let notes = RefCell::new(Vec::new());
    let encoder = Arc::new(fixture::encoder(&root.path().join("tokenizer")));
    let corpus = Corpus::open(&recipe.files(), recipe.held_out()).unwrap();
    let note = |text: &str| notes.borrow_mut().push(text.to_owned());
    HeldOut::prepare(&recipe, &corpus, &encoder, note, &AtomicBool::new(false)).unwrap();
    let notes = notes.into_inner();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("not used for sample generations: 2") && notes[0].contains("/properties/city/type"),
        "{notes:?}"
    );
}

#[test]
fn a_stop_breaks_off_what_is_being_generated() {
    let root = root();
    let recipe = full(root.path(), "run", &[]);
    let encoder = Arc::new(fixture::encoder(&root.path().join("tokenizer")));
    let dialogues = dialogues(&root.path().join("data.jsonl"));
    let (eval, stop) = (recipe.eval.as_ref().unwrap(), AtomicBool::new(false));
    let generations = Generations::choose(dialogues.iter(), eval, &encoder, |_| {}, &stop).unwrap().unwrap();
    let config = trainable::model_config(&recipe).unwrap();
    let trainable = Trainable::build(&recipe, config, &Device::Cpu).unwrap();
    assert_eq!(generations.run(&trainable, &Alone, &stop).unwrap().calls.total, 4);
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(generations.run(&trainable, &Alone, &stop), Err(TrainError::Stopped)));
}
