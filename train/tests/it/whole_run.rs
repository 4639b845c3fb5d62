//! Whole runs in a temporary directory: stopping, resuming, locking, exporting.

use crate::fixture::{self, root};
use callsmith::chat::dialect::DialectChoice;
use callsmith::model::weights;
use callsmith_train::data::synth::Split;
use callsmith_train::eval::answerer::local::Model;
use callsmith_train::eval::calls::{Calls, Generated};
use callsmith_train::eval::kept::Kept;
use callsmith_train::eval::{Contender, measure};
use callsmith_train::ranks::{Alone, Place, Ranks};
use callsmith_train::recipe::{Paths, Recipe};
use callsmith_train::run::{Outcome, RunOptions, train, train_among};
use callsmith_train::{checkpoint, export};
use candle_core::{DType, Device};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn recipe(root: &Path, output: &str, sets: &[&str]) -> Recipe {
    let text = format!(
        r#"
        method = "full"
        output = "{root}/{output}"
        seed = 5
        [model]
        tokenizer = "{root}/tokenizer"
        [model.shape]
        {shape}
        max_position_embeddings = 2048
        [optim]
        lr = 0.01
        [batch]
        tokens = 1500
        max_len = 1200
        [[phase]]
        steps = 2
        source = [{{ copy = {{ pool = [8, 20], length = [3, 8] }} }}, {{ recall = {{ pool = [16, 20], functions = [2, 3], noise = [0, 2] }} }}]
        [[phase]]
        steps = 4
        source = [{{ synth = {{ tools = [1, 2] }}, lm_weight = 0.1 }}, {{ copy = {{ pool = [8, 20], length = [3, 8] }}, weight = 0.2 }}]
        [eval]
        synth = true
        every = 5
        samples = 3
        [log]
        every = 2
        [checkpoint]
        every = 4
        keep = 2
        "#,
        root = root.display(),
        shape = fixture::SHAPE
    );
    Recipe::parse(&text, "test", &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap()
}

/// One process that is asked to stop while it makes its next step: where its gradient is summed.
struct AskedInStep(Arc<AtomicBool>);

impl Ranks for AskedInStep {
    fn place(&self) -> Place {
        Alone.place()
    }

    fn sum(&self, _values: &mut [f32]) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn sum_f64(&self, _values: &mut [f64]) {}
}

/// Runs to the end, or to the end of the next step.
pub(crate) fn run(recipe: &Recipe, resume: bool, stop: bool) -> callsmith_train::Result<Outcome> {
    let (options, asked) = (RunOptions { resume, ..RunOptions::default() }, Arc::default());
    match stop {
        true => train_among(&(Rc::new(AskedInStep(Arc::clone(&asked))) as Rc<dyn Ranks>), recipe, options, &asked),
        false => train(recipe, options, &asked),
    }
}

pub(crate) fn final_weights(recipe: &Recipe) -> Vec<u8> {
    fs::read(recipe.output.join("model/model.safetensors")).unwrap()
}

#[test]
fn a_run_stopped_after_every_step_ends_with_the_weights_of_an_uninterrupted_one() {
    let root = root();
    let whole = recipe(root.path(), "whole", &[]);
    assert_eq!(run(&whole, false, false).unwrap(), Outcome::Finished);

    let pieces = recipe(root.path(), "pieces", &[]);
    assert_eq!(run(&pieces, false, true).unwrap(), Outcome::Stopped { step: 1 });
    for step in 2..=6 {
        assert_eq!(run(&pieces, true, true).unwrap(), Outcome::Stopped { step });
    }
    assert_eq!(run(&pieces, true, false).unwrap(), Outcome::Finished);
    assert_eq!(final_weights(&pieces), final_weights(&whole));
    assert_eq!(checkpoint::list(&pieces.output).unwrap().len(), 2);
}

#[test]
fn a_damaged_checkpoint_costs_its_interval_and_nothing_else() {
    let root = root();
    let recipe = recipe(root.path(), "run", &[]);
    run(&recipe, false, false).unwrap();
    let weights = final_weights(&recipe);
    let newest = &checkpoint::list(&recipe.output).unwrap()[0];
    assert!(newest.ends_with("checkpoint-6"));
    fs::write(newest.join("optimizer.safetensors"), b"torn").unwrap();
    fs::remove_dir_all(recipe.output.join("model")).unwrap();
    assert_eq!(run(&recipe, true, false).unwrap(), Outcome::Finished);
    assert_eq!(final_weights(&recipe), weights);
}

#[test]
fn the_exported_model_loads_in_the_servers_decoder_and_its_log_is_json_lines() {
    let root = root();
    let recipe = recipe(root.path(), "run", &[]);
    run(&recipe, false, false).unwrap();
    let model = recipe.output.join("model");
    let decoder = weights::load_decoder(&model, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(decoder.config().num_layers, 1);
    assert!(model.join("tokenizer.json").exists() && model.join("chat_template.jinja").exists());
    let half = root.path().join("half");
    export::from_run(&recipe.output, &half, export::Precision::Bf16).unwrap();
    let size = |dir: &Path| fs::metadata(dir.join("model.safetensors")).unwrap().len();
    assert!(size(&half) < size(&model) * 6 / 10);
    weights::load_decoder(&half, DType::F32, &Device::Cpu).unwrap();

    let log = fs::read_to_string(recipe.output.join("train.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("start"), count("step"), count("finished")), (1, 3, 1));
    // At step 4, at the end, and at step 5, which did best until then.
    assert_eq!((count("checkpoint"), count("eval")), (3, 2));
    let step = lines.iter().find(|line| line["event"] == "step").unwrap();
    assert!(step["loss"].as_f64().unwrap() > 0.0 && step["tokens"].as_u64().unwrap() > 0, "{step}");
}

#[test]
fn an_untrained_model_is_measured_through_the_engine_and_the_grammar() {
    let root = root();
    let recipe = recipe(root.path(), "run", &["phase.1.steps=1", "eval.every=100"]);
    run(&recipe, false, false).unwrap();
    let model = Model::open(Some(&recipe.output.join("model")), &DialectChoice::default(), &Device::Cpu).unwrap();
    let wanted = Generated { split: Split::HeldOut, naming: None, count: 14, parallel: 4, seed: 1 };
    let task = Calls::generate(&wanted, None).unwrap();
    let measure = |free: bool| {
        let answerer = Box::new(model.answerer(None, free, 400).unwrap());
        let contender = Contender { name: "untrained".to_owned(), answerer };
        measure(&task, &contender, &mut Kept::default()).unwrap()
    };
    let json = measure(false).judged.metrics;
    let turns = |group: &str| json["groups"][group]["turns"].as_u64().unwrap();
    let silent = json["no_call_recognised"]["total"].as_u64().unwrap();
    assert_eq!((turns("single call") + silent, turns("parallel calls")), (14, 4));
    assert_eq!(json["false_no_call"]["total"], turns("single call") + 4);
    assert_eq!(json["rows"], 18);
    assert_eq!(measure(false).judged.metrics, json);
    let free = measure(true).judged;
    assert_eq!(free.metrics["groups"]["parallel calls"]["exact"], 0.0);
    assert!(free.verdicts.iter().any(|verdict| !verdict.right));
}

#[test]
fn an_output_in_use_or_with_checkpoints_or_of_another_recipe_is_refused() {
    let root = root();
    let recipe = recipe(root.path(), "run", &[]);
    fs::create_dir(&recipe.output).unwrap();
    let held = fs::File::create(recipe.output.join(".lock")).unwrap();
    held.lock().unwrap();
    fs::write(recipe.output.join(".lock"), "4711\n").unwrap();
    assert!(run(&recipe, false, false).unwrap_err().to_string().contains("4711"));
    drop(held);
    run(&recipe, false, true).unwrap();
    assert!(run(&recipe, false, true).unwrap_err().to_string().contains("--resume"));
    let mut other = recipe.clone();
    other.optim.lr = 0.5;
    assert!(run(&other, true, true).unwrap_err().to_string().contains("--allow-changed-recipe"));
}

pub(crate) fn lora_recipe(root: &Path, output: &str, sets: &[&str]) -> Recipe {
    adapter_recipe(root, output, ("lora", "rank = 2\nalpha = 4"), sets)
}

/// A trained base and a file of dialogues in `root`, and the recipe of an adapter on them: its method and that one's section.
pub(crate) fn adapter_recipe(root: &Path, output: &str, (method, section): (&str, &str), sets: &[&str]) -> Recipe {
    let (base, data) = (root.join("base/model"), root.join("data.jsonl"));
    if !base.exists() {
        run(&recipe(root, "base", &[]), false, false).unwrap();
    }
    if !data.exists() {
        let config = callsmith_train::data::synth::SynthConfig::default();
        callsmith_train::data::synth::write_jsonl(&config, 8, &data).unwrap();
    }
    let text = format!(
        "method = \"{method}\"\noutput = \"{root}/{output}\"\n[model]\npath = \"{base}\"\n[{method}]\n{section}\n[optim]\nlr = 0.01\n\
         [batch]\ntokens = 3000\nmax_len = 3000\n[[phase]]\nsteps = 2\nsource = [{{ jsonl = \"{data}\" }}]",
        root = root.display(),
        base = base.display(),
        data = data.display()
    );
    Recipe::parse(&text, "test", &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap()
}

pub(crate) fn load_adapter(dir: &Path, base: &Path) -> callsmith::adapter::peft::LoadedAdapter {
    let model = weights::load_config(base).unwrap();
    callsmith::adapter::peft::load(dir, &model, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn a_lora_run_trains_on_a_file_and_writes_an_adapter_that_loads() {
    let root = root();
    let recipe = lora_recipe(root.path(), "lora", &[]);
    let base = root.path().join("base/model");
    assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished);
    let loaded = load_adapter(&recipe.output.join("model"), &base);
    assert_eq!((loaded.config.as_ref().unwrap().rank, loaded.weights.iter().count()), (2, 7));
    let again = root.path().join("again");
    export::from_run(&recipe.output, &again, export::Precision::F32).unwrap();
    assert_eq!(load_adapter(&again, &base).digest, loaded.digest);
}

#[test]
fn every_kind_of_adapter_trains_and_loads() {
    let root = root();
    let kinds: [&[&str]; 5] = [
        &["lora.dora=true", "lora.dropout=0.2"],
        &["lora.rslora=true", "lora.target_modules=[\"q_proj\",\"mlp.up_proj\"]"],
        &["lora.rank_pattern={ \"q_proj\" = 3 }", "lora.alpha_pattern={ \"q_proj\" = 5.0 }"],
        &["model.weights=q8_0", "lora.target_modules=.*proj"],
        &["model.weights=bf16", "batch.recompute=all"],
    ];
    for (number, sets) in kinds.iter().enumerate() {
        let recipe = lora_recipe(root.path(), &format!("lora-{number}"), sets);
        assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished, "{sets:?}");
        let loaded = load_adapter(&recipe.output.join("model"), &root.path().join("base/model"));
        assert_eq!(loaded.config.as_ref().unwrap().use_dora, number == 0, "{sets:?}");
        let ranks: Vec<usize> = loaded.weights.iter().map(|(_, pair)| pair.a.dims()[0]).collect();
        assert_eq!(ranks[0], if number == 2 { 3 } else { 2 }, "{sets:?}");
        assert_eq!(ranks.len(), if number == 1 { 2 } else { 7 }, "{sets:?}");
        let moved = loaded
            .weights
            .iter()
            .any(|(_, pair)| pair.b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
        assert!(moved, "{sets:?} trained nothing");
    }
}

#[test]
fn dropout_and_what_is_computed_again_do_not_disturb_a_resumed_run() {
    let root = root();
    let weights = |recipe: &Recipe| fs::read(recipe.output.join("model/adapter_model.safetensors")).unwrap();
    let whole = lora_recipe(root.path(), "whole", &["lora.dropout=0.3"]);
    run(&whole, false, false).unwrap();
    let pieces =
        lora_recipe(root.path(), "pieces", &["lora.dropout=0.3", "batch.recompute=selective", "batch.parallel=1"]);
    assert_eq!(run(&pieces, false, true).unwrap(), Outcome::Stopped { step: 1 });
    run(&pieces, true, false).unwrap();
    assert_eq!(weights(&pieces), weights(&whole));
}

#[test]
fn parameters_that_are_not_chosen_stay_as_they_were() {
    let root = root();
    run(&recipe(root.path(), "base", &[]), false, false).unwrap();
    let base = root.path().join("base/model");
    let sets = [
        format!("model={{ path = \"{}\" }}", base.display()),
        "full.train=[\".*mlp.*\", \"model.norm.weight\"]".into(),
    ];
    let recipe = recipe(root.path(), "part", &sets.each_ref().map(String::as_str));
    run(&recipe, false, false).unwrap();
    let read = |dir: &Path| candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let (before, after) = (read(&base), read(&recipe.output.join("model")));
    assert_eq!(before.len(), after.len());
    for (name, tensor) in &before {
        let moved =
            (tensor - &after[name]).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0;
        assert_eq!(moved, name.contains("mlp") || name == "model.norm.weight", "{name}");
    }
}

pub(crate) fn log(recipe: &Recipe) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(recipe.output.join("train.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last line of a kind.
fn last(recipe: &Recipe, event: &str) -> serde_json::Value {
    log(recipe).into_iter().rfind(|line| line["event"] == event).unwrap_or_else(|| panic!("no {event}"))
}

/// A recipe of some epochs over `count` dialogues.
pub(crate) fn epochs(root: &Path, output: &str, count: u64, sets: &[&str]) -> Recipe {
    let mut recipe = lora_recipe(root, output, sets);
    let data = root.join(format!("{count}.jsonl"));
    let config = callsmith_train::data::synth::SynthConfig::default();
    callsmith_train::data::synth::write_jsonl(&config, count, &data).unwrap();
    recipe.phases[0].sources[0].jsonl = Some(Paths::One(data));
    (recipe.phases[0].steps, recipe.phases[0].epochs) = (None, Some(2));
    recipe
}

#[test]
fn an_epoch_sees_every_conversation_that_is_not_held_out_once() {
    let root = root();
    let recipe = epochs(root.path(), "epochs", 30, &["log.every=1"]);
    run(&recipe, false, false).unwrap();
    let (start, end) = (last(&recipe, "start"), last(&recipe, "step"));
    assert_eq!(end["total_samples"].as_u64().unwrap() + end["dropped"].as_u64().unwrap(), 2 * 27);
    assert_eq!(end["step"].as_u64().unwrap() + 1, start["total_steps"].as_u64().unwrap());
    assert!(last(&recipe, "eval")["held_out"]["loss"].as_f64().unwrap() > 0.0);
    // Stopped after every step, it ends the same.
    let pieces = epochs(root.path(), "pieces", 30, &[]);
    let mut outcome = run(&pieces, false, true).unwrap();
    while outcome != Outcome::Finished {
        outcome = run(&pieces, true, true).unwrap();
    }
    let weights = |recipe: &Recipe| fs::read(recipe.output.join("model/adapter_model.safetensors")).unwrap();
    assert_eq!(weights(&pieces), weights(&recipe));
}

#[test]
fn a_run_that_gets_worse_ends_early_and_exports_its_best_step() {
    let root = root();
    let sets =
        ["phase.0.steps=12", "optim.lr=5.0", "optim.clip=1000.0", "eval.every=1", "eval.patience=3", "eval.split=0.25"];
    let recipe = lora_recipe(root.path(), "worse", &sets);
    assert_eq!(run(&recipe, false, false).unwrap(), Outcome::Finished);
    let losses: Vec<f64> = log(&recipe)
        .iter()
        .filter(|line| line["event"] == "eval")
        .map(|line| line["held_out"]["loss"].as_f64().unwrap_or(f64::INFINITY))
        .collect();
    assert!(losses.len() < 12, "{losses:?}");
    let best = 1 + losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert_eq!(last(&recipe, "finished")["best_step"], best);
    let values = |file: &Path| candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let kept = values(&recipe.output.join(format!("checkpoint-{best}/model.safetensors")));
    let exported = values(&recipe.output.join("model/adapter_model.safetensors"));
    for (name, tensor) in &exported {
        let flat = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(tensor), flat(&kept[name]), "{name}");
    }
}

#[test]
fn a_bad_line_of_a_data_file_is_named() {
    let root = root();
    let data = root.path().join("data.jsonl");
    fs::write(&data, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n{\"messages\": 3}\n").unwrap();
    let mut recipe = recipe(root.path(), "run", &[]);
    let source = &mut recipe.phases[0].sources[0];
    (source.copy, source.jsonl) = (None, Some(Paths::One(data)));
    let message = run(&recipe, false, false).unwrap_err().to_string();
    assert!(message.contains("data.jsonl:2") && message.contains("messages"), "{message}");
}
