use super::*;

const FULL: &str = r#"
method = "full"
output = "runs/x"
seed = 3
[model]
tokenizer = "models/embedded"
shape = { hidden_size = 64, intermediate_size = 128, num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, max_position_embeddings = 512 }
[optim]
lr = 0.002
warmup_steps = 10
[batch]
tokens = 1024
max_len = 256
[[phase]]
steps = 100
[[phase.source]]
copy = { pool = [32, 100], length = [4, 16] }
[[phase]]
steps = 50
[[phase.source]]
weight = 0.5
recall = { pool = [32, 64], functions = [2, 4], noise = [0, 3] }
[[phase.source]]
lm_weight = 0.1
jsonl = "data.jsonl"
"#;

fn parse(text: &str) -> Result<Recipe> {
    Recipe::parse(text, "test.toml", &[])
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_recipe_reads_and_its_resolved_form_is_the_same_recipe() {
    let recipe = parse(FULL).unwrap();
    assert_eq!(recipe.phases.iter().map(|phase| phase.steps).collect::<Vec<_>>(), [Some(100), Some(50)]);
    assert_eq!(recipe.optim.betas, [0.9, 0.98]);
    let again = parse(&recipe.resolved().unwrap()).unwrap();
    assert_eq!(again.digest().unwrap(), recipe.digest().unwrap());
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_and_its_line() {
    let message = message(&FULL.replace("warmup_steps", "warmup_stepz"));
    assert!(message.contains("warmup_stepz") && message.contains("line 10"), "{message}");
    let nested = parse(&FULL.replace("noise =", "nose =")).unwrap_err().to_string();
    assert!(nested.contains("nose"), "{nested}");
}

#[test]
fn values_that_cannot_work_name_their_field() {
    for (from, to, field) in [
        ("lr = 0.002", "lr = 0.0", "optim.lr"),
        ("max_len = 256", "max_len = 2048", "batch.tokens"),
        ("steps = 50", "steps = 0", "phase[1].steps"),
        ("steps = 50", "steps = 50\nepochs = 2", "phase[1]"),
        ("steps = 50", "epochs = 2", "phase[1].epochs"),
        ("[optim]", "[eval]\nsplit = 0.6\n[optim]", "eval.split"),
        ("[optim]", "[eval]\nsplit = 0.1\nsynth = true\n[optim]", "eval"),
        ("[optim]", "[eval]\nmax_tokens = 0\n[optim]", "eval.max_tokens"),
        ("[optim]", "[eval]\nbest = \"call_accuracy\"\ngenerate = 0\n[optim]", "eval.best"),
        ("[optim]", "[eval]\npatience = 0\n[optim]", "eval.patience"),
        ("lr = 0.002", "lr = 0.002\nmomentum = 1.0", "optim.momentum"),
        ("[optim]", "[init]\npositional_heads = true\n[optim]", "init.positional_heads"),
        ("weight = 0.5", "weight = -1.0", "phase[1].source[0].weight"),
        ("pool = [32, 100]", "pool = [100, 32]", "phase[0].source[0].copy.pool"),
        ("jsonl = \"data.jsonl\"", "", "phase[1].source[1]"),
        ("num_key_value_heads = 2", "num_key_value_heads = 3", "model.shape.num_key_value_heads"),
        ("tokenizer = \"models/embedded\"", "", "model.tokenizer"),
        ("method = \"full\"", "method = \"lora\"", "model.path"),
    ] {
        let message = message(&FULL.replace(from, to));
        assert!(message.contains(field), "{field}: {message}");
    }
}

#[test]
fn lora_needs_its_section_and_known_modules() {
    let lora = |section: &str| {
        format!(
            "method = \"lora\"\noutput = \"x\"\n[model]\npath = \"base\"\n{section}\n[optim]\nlr = 0.1\n[batch]\ntokens = 64\nmax_len = 32\n[[phase]]\nsteps = 1\nsource = [{{ jsonl = \"a\" }}]"
        )
    };
    assert!(message(&lora("")).contains("[lora]"));
    assert!(message(&lora("[lora]\nrank = 4\nalpha = 8\ntarget_modules = [\"x_proj\"]")).contains("x_proj"));
    assert!(message(&lora("[lora]\nrank = 4\nalpha = 8\ndropout = 1.0")).contains("lora.dropout"));
    assert!(message(&lora("[lora]\nrank = 4\nalpha = 8\nrank_pattern = { q_proj = 0 }")).contains("rank_pattern"));
    for targets in ["\"all-linear\"", "[\"q_proj\", \"mlp.up_proj\"]", "'.*\\.(1|2)\\.mlp\\..*'"] {
        parse(&lora(&format!("[lora]\nrank = 4\nalpha = 8\ntarget_modules = {targets}"))).unwrap();
    }
}

#[test]
fn overrides_reach_nested_keys_and_list_items() {
    let set = |sets: &[&str]| Recipe::parse(FULL, "test", &sets.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
    let recipe =
        set(&["optim.lr=0.5", "output=runs/y", "phase.1.steps=7", "phase.0.source.0.copy.pool=[8,9]", "threads=2"])
            .unwrap();
    assert_eq!((recipe.optim.lr, recipe.phases[1].steps, recipe.threads), (0.5, Some(7), Some(2)));
    assert_eq!(recipe.output, PathBuf::from("runs/y"));
    assert_eq!(recipe.phases[0].sources[0].copy.as_ref().unwrap().pool, [8, 9]);
    assert!(set(&["optim.lrr=0.5"]).unwrap_err().to_string().contains("lrr"));
    assert!(set(&["phase.9.steps=1"]).unwrap_err().to_string().contains("phase.9"));
    assert!(set(&["nonsense"]).unwrap_err().to_string().contains("KEY=VALUE"));
}

#[test]
fn the_digest_covers_what_decides_the_weights_and_nothing_else() {
    let digest = |set: &str| Recipe::parse(FULL, "test", &[set.to_owned()]).unwrap().digest().unwrap();
    let plain = parse(FULL).unwrap().digest().unwrap();
    for set in [
        "output=elsewhere",
        "threads=3",
        "log.every=1",
        "checkpoint.every=9",
        "batch.workers=4",
        "eval.every=3",
        "eval.generate=0",
        "eval.best=call_accuracy",
        "eval.samples=7",
        "eval.max_tokens=9",
        "eval.patience=2",
        "batch.recompute=all",
    ] {
        assert_eq!(digest(set), plain, "{set}");
    }
    let deciding = ["seed=4", "optim.lr=0.1", "phase.0.steps=9", "batch.tokens=512"];
    for set in deciding.into_iter().chain(["eval.split=0.2", "eval.seed=1", "eval.synth=true"]) {
        assert_ne!(digest(set), plain, "{set}");
    }
    // Where nothing is held out of the files, all of [eval] only measures.
    assert_eq!(digest("eval.synth=true"), digest("eval={ synth = true, seed = 9 }"));
    assert_eq!(digest("eval.split=0.0"), digest("eval.data=held-out.jsonl"));
}

#[test]
fn the_world_is_a_source_whose_settings_are_checked() {
    let world =
        |settings: &str| FULL.replace("recall = { pool = [32, 64], functions = [2, 4], noise = [0, 3] }", settings);
    let text = world("world = { classes = { single = 2, self_correction = 1 }, distractors = [0, 4] }");
    let recipe = parse(&text).unwrap();
    let again = parse(&recipe.resolved().unwrap()).unwrap();
    assert_eq!(again.phases[1].sources[0].world, recipe.phases[1].sources[0].world);
    assert!(recipe.phases[1].sources[0].world.is_some());
    assert!(message(&world("world = { distractors = [0, 40] }")).contains("phase[1].source[0].world"));
    assert!(message(&world("world = {}\nsynth = {}")).contains("exactly one of"));
    assert!(message(&world("world = { klasses = {} }")).contains("klasses"));
}
