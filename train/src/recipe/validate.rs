//! What a recipe's values must satisfy, beyond their types. Each error names the field and the remedy.

use super::{
    BatchSection, BestBy, Compute, DeviceKind, EvalSection, Held, LoraSection, Method, ModelSection, OptimSection,
    Phase, Recipe, ShapeSection, SourceSection,
};
use crate::error::{Result, TrainError};
use callsmith::adapter::peft;

/// More than any model has.
const MOST_LAYERS: usize = 1024;

fn ensure(holds: bool, field: impl Into<String>, message: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(TrainError::field(field, message)) }
}

/// Checks a whole recipe.
pub(super) fn recipe(recipe: &Recipe) -> Result<()> {
    model(recipe.method, &recipe.model)?;
    lora(recipe.method, recipe.lora.as_ref())?;
    prompt(recipe)?;
    new_tokens(recipe)?;
    precision(recipe)?;
    let full = recipe.full.is_none() || (recipe.method == Method::Full && recipe.model.path.is_some());
    ensure(full, "full", "chooses among the parameters of a model.path under method = \"full\"; remove it")?;
    optim(&recipe.optim)?;
    batch(&recipe.batch)?;
    ensure(recipe.threads != Some(0), "threads", "must be at least 1; leave it out for all cores")?;
    ensure(!recipe.phases.is_empty(), "phase", "give at least one [[phase]]")?;
    recipe.phases.iter().enumerate().try_for_each(|(index, phase)| self::phase(index, phase))?;
    ensure(recipe.log.every > 0, "log.every", "must be at least 1")?;
    ensure(recipe.checkpoint.every > 0, "checkpoint.every", "must be at least 1")?;
    ensure(recipe.checkpoint.keep > 0, "checkpoint.keep", "must be at least 1")?;
    recipe.eval.as_ref().map_or(Ok(()), |eval| self::eval(recipe, eval))?;
    init(recipe)
}

/// What weights are held in and computed in.
fn precision(recipe: &Recipe) -> Result<()> {
    let held = recipe.model.weights == Held::F32 || recipe.method != Method::Full;
    ensure(held, "model.weights", "only frozen weights can be held packed; remove it or use method = \"lora\"")?;
    let compute = recipe.device == DeviceKind::Cuda || recipe.model.compute != Some(Compute::Bf16);
    let message = "bf16 is computed in on a GPU; on a CPU give model.weights = \"bf16\", which halves the memory";
    ensure(compute, "model.compute", message)
}

fn init(recipe: &Recipe) -> Result<()> {
    let init = &recipe.init;
    ensure(init.std > 0.0 && init.embedding_std > 0.0, "init", "std and embedding_std must be positive")?;
    let biased = recipe.model.shape.as_ref().is_some_and(|shape| shape.attention_bias);
    let possible = biased || !init.positional_heads;
    let message = "need a model from random weights with model.shape.attention_bias = true";
    ensure(possible, "init.positional_heads", message)?;
    let heads = recipe.model.shape.as_ref().map_or(0, |shape| shape.num_key_value_heads);
    let content = heads > 4 || !init.positional_heads;
    ensure(content, "init.positional_heads", "take four key-value heads of each layer; give at least five")
}

fn model(method: Method, model: &ModelSection) -> Result<()> {
    match (method, &model.path, &model.shape) {
        (_, Some(_), Some(_)) => ensure(false, "model", "give `path` or `shape`, not both"),
        (Method::Lora | Method::Prompt, None, _) => {
            ensure(false, "model.path", "an adapter needs a base model: give its directory")
        }
        (Method::Full, None, None) => {
            ensure(false, "model", "give `path` (start from weights) or `shape` (start from random)")
        }
        (Method::Full, None, Some(shape)) => {
            ensure(model.tokenizer.is_some(), "model.tokenizer", "give the directory of tokenizer.json")?;
            self::shape(shape)
        }
        _ => Ok(()),
    }
}

fn shape(shape: &ShapeSection) -> Result<()> {
    let sizes = [
        ("hidden_size", shape.hidden_size),
        ("intermediate_size", shape.intermediate_size),
        ("num_hidden_layers", shape.num_hidden_layers),
        ("num_attention_heads", shape.num_attention_heads),
        ("num_key_value_heads", shape.num_key_value_heads),
        ("max_position_embeddings", shape.max_position_embeddings),
    ];
    for (name, size) in sizes {
        ensure(size > 0, format!("model.shape.{name}"), "must be at least 1")?;
    }
    let (heads, kv_heads) = (shape.num_attention_heads, shape.num_key_value_heads);
    ensure(heads % kv_heads == 0, "model.shape.num_key_value_heads", "must divide num_attention_heads")?;
    let head_dim = shape.head_dim.unwrap_or(shape.hidden_size / heads);
    let divides = shape.head_dim.is_some() || shape.hidden_size.is_multiple_of(heads);
    ensure(divides, "model.shape.hidden_size", "must be a multiple of num_attention_heads, or give head_dim")?;
    ensure(head_dim > 0 && head_dim.is_multiple_of(2), "model.shape.head_dim", "must be even (rotary embedding)")?;
    let family = !(shape.qk_norm && shape.attention_bias);
    ensure(family, "model.shape.attention_bias", "no family has both this and qk_norm; remove one")
}

fn lora(method: Method, lora: Option<&LoraSection>) -> Result<()> {
    match (method, lora) {
        (Method::Lora, None) => ensure(false, "lora", "method = \"lora\" needs [lora] with rank and alpha"),
        (Method::Full | Method::Prompt, Some(_)) => {
            ensure(false, "lora", "belongs to method = \"lora\"; remove it or change the method")
        }
        (Method::Full | Method::Prompt, None) => Ok(()),
        (Method::Lora, Some(lora)) => {
            ensure(lora.rank > 0, "lora.rank", "must be at least 1")?;
            ensure(lora.alpha > 0.0 && lora.alpha.is_finite(), "lora.alpha", "must be positive")?;
            ensure((0.0..1.0).contains(&lora.dropout), "lora.dropout", "must lie in 0..1, below 1")?;
            // How many layers there are is seen when the model is.
            let resolved = peft::resolve(&lora.settings(), MOST_LAYERS);
            resolved.map(drop).map_err(|e| TrainError::field("lora", e.to_string()))
        }
    }
}

fn prompt(recipe: &Recipe) -> Result<()> {
    let Some(prompt) = &recipe.prompt else {
        return ensure(recipe.method != Method::Prompt, "prompt", "method = \"prompt\" needs [prompt] with tokens");
    };
    ensure(
        recipe.method == Method::Prompt,
        "prompt",
        "belongs to method = \"prompt\"; remove it or change the method",
    )?;
    ensure(prompt.tokens > 0, "prompt.tokens", "must be at least 1")?;
    let room = prompt.tokens < recipe.batch.max_len;
    ensure(room, "prompt.tokens", "must be fewer than batch.max_len, since they count as part of each sample")?;
    ensure(prompt.text.as_deref() != Some(""), "prompt.text", "is empty; leave it out to start from random tokens")?;
    let mut sources = recipe.phases.iter().flat_map(|phase| &phase.sources);
    let conversations = sources.all(|source| source.copy.is_none() && source.recall.is_none());
    ensure(conversations, "phase.source", "a soft prompt is trained on conversations: give jsonl, synth or world")
}

fn new_tokens(recipe: &Recipe) -> Result<()> {
    for (index, token) in recipe.new_tokens.iter().enumerate() {
        let earlier = recipe.new_tokens[..index].iter().any(|earlier| earlier.text == token.text);
        ensure(!token.text.is_empty(), format!("new_tokens[{index}].text"), "must not be empty")?;
        ensure(!earlier, format!("new_tokens[{index}].text"), "occurs twice; remove one")?;
    }
    let trained = recipe.model.path.is_some() && recipe.method != Method::Prompt;
    let message = "are added to a model.path and trained with method = \"full\" or \"lora\"; remove them";
    ensure(trained || recipe.new_tokens.is_empty(), "new_tokens", message)
}

fn optim(optim: &OptimSection) -> Result<()> {
    ensure(optim.lr > 0.0 && optim.lr.is_finite(), "optim.lr", "must be positive, for example 0.001")?;
    ensure((0.0..=1.0).contains(&optim.min_lr_ratio), "optim.min_lr_ratio", "must lie in 0..1")?;
    ensure(optim.weight_decay >= 0.0, "optim.weight_decay", "must not be negative")?;
    ensure(optim.betas.iter().all(|beta| (0.0..1.0).contains(beta)), "optim.betas", "must lie in 0..1, below 1")?;
    ensure(optim.eps > 0.0, "optim.eps", "must be positive")?;
    ensure((0.0..1.0).contains(&optim.momentum), "optim.momentum", "must lie in 0..1, below 1")?;
    ensure(optim.clip > 0.0, "optim.clip", "must be positive; a large number switches clipping off")?;
    ensure(optim.max_skipped > 0, "optim.max_skipped", "must be at least 1")
}

fn batch(batch: &BatchSection) -> Result<()> {
    let micro = batch.micro_tokens.unwrap_or(batch.tokens);
    ensure(batch.max_len >= 2, "batch.max_len", "must be at least 2")?;
    ensure(batch.tokens >= batch.max_len, "batch.tokens", "must be at least batch.max_len")?;
    ensure(micro >= batch.max_len, "batch.micro_tokens", "must be at least batch.max_len")?;
    ensure(batch.parallel != Some(0), "batch.parallel", "must be at least 1; leave it out to have it chosen")?;
    ensure(batch.workers > 0, "batch.workers", "must be at least 1")
}

/// Where held-out conversations come from and how often they are looked at.
fn eval(recipe: &Recipe, eval: &EvalSection) -> Result<()> {
    ensure(eval.every != Some(0), "eval.every", "must be at least 1; leave it out for a tenth of the run")?;
    ensure(eval.samples > 0, "eval.samples", "must be at least 1; split = 0 switches evaluation off")?;
    ensure(eval.patience != Some(0), "eval.patience", "must be at least 1; leave it out to train to the end")?;
    ensure(eval.max_tokens > 0, "eval.max_tokens", "must be at least 1; generate = 0 switches generations off")?;
    let measured = eval.best == BestBy::Loss || eval.generate != Some(0);
    ensure(measured, "eval.best", "\"call_accuracy\" is measured by generations: give eval.generate at least 1")?;
    let kinds = [eval.data.is_some(), eval.split.is_some(), eval.synth];
    let one = kinds.into_iter().filter(|&given| given).count() <= 1;
    ensure(one, "eval", "give at most one of data, split, synth")?;
    let split = eval.split.unwrap_or(0.0);
    ensure((0.0..=0.5).contains(&split), "eval.split", "must lie in 0..0.5")?;
    ensure(
        !recipe.files().is_empty() || eval.held_out() == 0.0,
        "eval.split",
        "needs a jsonl source; give data or synth = true",
    )
}

fn phase(index: usize, phase: &Phase) -> Result<()> {
    let (steps, epochs) = (phase.steps, phase.epochs);
    ensure(steps != Some(0), format!("phase[{index}].steps"), "must be at least 1")?;
    ensure(epochs != Some(0), format!("phase[{index}].epochs"), "must be at least 1")?;
    ensure(steps.is_some() != epochs.is_some(), format!("phase[{index}]"), "give steps or epochs, one of them")?;
    let finite = matches!(phase.sources.as_slice(), [SourceSection { jsonl: Some(_), .. }]);
    let message = "count conversations: give exactly one source, a jsonl (which may list several files), or steps";
    ensure(epochs.is_none() || finite, format!("phase[{index}].epochs"), message)?;
    ensure(!phase.sources.is_empty(), format!("phase[{index}].source"), "give at least one [[phase.source]]")?;
    phase
        .sources
        .iter()
        .enumerate()
        .try_for_each(|(n, source)| self::source(&format!("phase[{index}].source[{n}]"), source))
}

fn source(at: &str, source: &SourceSection) -> Result<()> {
    let SourceSection { copy, recall, synth, world, jsonl, .. } = source;
    let kinds = [copy.is_some(), recall.is_some(), synth.is_some(), world.is_some(), jsonl.is_some()];
    let one = kinds.into_iter().filter(|&given| given).count() == 1;
    ensure(one, at, "give exactly one of copy, recall, synth, world, jsonl")?;
    ensure(source.weight > 0.0 && source.weight.is_finite(), format!("{at}.weight"), "must be positive")?;
    ensure((0.0..=1.0).contains(&source.lm_weight), format!("{at}.lm_weight"), "must lie in 0..1")?;
    ensure(
        source.name_weight > 0.0 && source.name_weight.is_finite(),
        format!("{at}.name_weight"),
        "must be positive",
    )?;
    let files = jsonl.as_ref().is_none_or(|paths| !paths.all().is_empty());
    ensure(files, format!("{at}.jsonl"), "name at least one file")?;
    if let Some(synth) = &source.synth {
        synth.validate().map_err(|e| TrainError::field(format!("{at}.synth"), e.to_string()))?;
    }
    if let Some(world) = world {
        world.validate().map_err(|e| TrainError::field(format!("{at}.world"), e.to_string()))?;
    }
    if let Some(copy) = &source.copy {
        range(&format!("{at}.copy.pool"), copy.pool, 2)?;
        range(&format!("{at}.copy.length"), copy.length, 2)?;
        grow(at, copy.grow)?;
    }
    if let Some(recall) = &source.recall {
        range(&format!("{at}.recall.pool"), recall.pool, 8)?;
        range(&format!("{at}.recall.functions"), recall.functions, 1)?;
        range(&format!("{at}.recall.noise"), recall.noise, 0)?;
        range(&format!("{at}.recall.key_words"), recall.key_words, 1)?;
        range(&format!("{at}.recall.name_words"), recall.name_words, 1)?;
        grow(at, recall.grow)?;
    }
    Ok(())
}

fn range(field: &str, [start, end]: [usize; 2], least: usize) -> Result<()> {
    ensure(start >= least && start <= end, field, format!("must be [start, end] with {least} <= start <= end"))
}

fn grow(at: &str, grow: f64) -> Result<()> {
    ensure(grow > 0.0 && grow <= 1.0, format!("{at}.grow"), "must lie in 0..1, above 0")
}
