//! Settings → everything that requests share: model, tokenizer, template, registry, compiler, engine.

use super::{ServeError, progress};
use crate::adapter::BuiltIn;
use crate::adapter::registry::{Card, Registry, RegistryOptions, TemplateJudge};
use crate::api::auth::Keys;
use crate::api::voice::Voices;
use crate::api::{AppState, Gate, Limits, ModelCard, ResponseStore, unix_seconds};
use crate::chat::tokenizer::ChatTokenizer;
use crate::engine::{EngineHandle, EngineOptions};
use crate::grammar::GrammarCompiler;
use crate::metrics::Metrics;
use crate::model::kv_cache::BLOCK_SIZE;
use crate::model::{Checkpoint, CpuDecoder, KvCache, ModelConfig, ModelError, Packing, Quantise};
use crate::settings::{ModelSource, Settings};
use candle_core::{DType, Device};
use std::sync::Arc;

/// Most tokens of one forward pass.
const TOKEN_BUDGET: usize = 512;
/// Threads that compile grammars.
const COMPILE_THREADS: usize = 2;
/// Highest rank of an adapter.
const MAX_RANK: usize = 256;
/// Most memory for keys and values, unless the operator says otherwise.
const KV_CACHE_LIMIT: usize = 1 << 30;

/// Loads a server's parts and starts its engine thread; also returns a line that says what was loaded.
pub fn load(settings: &Settings) -> Result<(Arc<AppState>, String), ServeError> {
    let device = device()?;
    let (checkpoint, tokenizer) = open_model(settings)?;
    let voices = Arc::new(Voices::new(&tokenizer, &settings.dialect, settings.thoughts)?);
    let tokenizer = Arc::new(tokenizer);
    let config = checkpoint.config().clone();
    let level = if device.is_cpu() { "cpu" } else { "gpu" };
    let Started { engine, options, weights, packing } = start_engine(settings, &checkpoint, &device)?;
    let registry = registry(settings, Arc::new(checkpoint), device.clone(), packing).with_judge(judge(&voices));
    load_adapters(settings, &registry)?;
    let limits = Limits {
        max_requests: options.max_batch + options.max_queue,
        max_queue: options.max_queue,
        runtime_adapters: settings.adapter_root.is_some(),
        deadlines: settings.deadlines,
    };
    let summary = summarise(settings, &config, &weights, &spoken(&voices, &registry));
    let state = AppState {
        compiler: GrammarCompiler::new(tokenizer.tok_env(), COMPILE_THREADS)?,
        metrics: Arc::new(Metrics::new(&settings.name, settings.max_batch, level)?),
        engine,
        registry,
        voices,
        model: model_card(settings, &config),
        longest_token: longest_token(&tokenizer, config.vocab_size),
        gate: Gate::new(limits.max_requests),
        keys: keys(settings),
        origins: settings.cors_origins.clone(),
        responses: ResponseStore::default(),
        limits,
        tokenizer,
    };
    Ok((Arc::new(state), summary))
}

fn keys(settings: &Settings) -> Keys {
    let keys = &settings.keys;
    Keys::new(&keys.inference, &keys.admin, keys.requests_per_key, keys.protect_metrics)
}

/// The first GPU when built with CUDA, else the CPU.
fn device() -> Result<Device, ServeError> {
    Device::cuda_if_available(0).map_err(|error| ServeError::Model(error.into()))
}

fn open_model(settings: &Settings) -> Result<(Checkpoint<'static>, ChatTokenizer), ServeError> {
    match &settings.model {
        ModelSource::Path(path) => {
            let checkpoint = Checkpoint::open(path)?;
            let tokenizer = ChatTokenizer::load(path, checkpoint.config().vocab_size)?;
            Ok((checkpoint, tokenizer))
        }
        ModelSource::Embedded => open_embedded(),
    }
}

#[cfg(feature = "embedded-model")]
fn open_embedded() -> Result<(Checkpoint<'static>, ChatTokenizer), ServeError> {
    crate::embedded::open().map_err(|error| ServeError::Embedded(error.to_string()))
}

#[cfg(not(feature = "embedded-model"))]
fn open_embedded() -> Result<(Checkpoint<'static>, ChatTokenizer), ServeError> {
    Err(ServeError::Embedded("this build has none (feature `embedded-model`); give --model PATH".to_owned()))
}

/// An engine with its weights.
struct Started {
    engine: EngineHandle,
    options: EngineOptions,
    /// How the weights are held, in words.
    weights: String,
    /// How adapters are held; `None` = as tensors.
    packing: Option<Packing>,
}

/// Loads the weights and starts the thread that computes with them.
fn start_engine(settings: &Settings, checkpoint: &Checkpoint<'_>, device: &Device) -> Result<Started, ServeError> {
    let (config, precision) = (checkpoint.config(), settings.precision);
    if device.is_cpu() {
        let bar = progress::Bar::new("loading weights", config.parameters());
        let decoder = CpuDecoder::load(checkpoint, precision, settings.threads, &|more| bar.advance(more))?;
        let (weights, packing) = (decoder.formats(), Some(decoder.packing()));
        let options = engine_options(settings, config, decoder.block_bytes());
        let engine = EngineHandle::start_packed(decoder, options.clone())?;
        return Ok(Started { engine, options, weights, packing });
    }
    if precision.quantise != Quantise::None || precision.kv.is_some() {
        let message = "--quantize and --kv-cache-dtype are for the CPU: on a GPU weights, keys and values have --dtype";
        return Err(ModelError::Config(message.to_owned()).into());
    }
    let decoder = checkpoint.decoder(precision.dtype, device)?;
    let (weights, packing) = (format!("{:?}", precision.dtype).to_lowercase(), None);
    let options = engine_options(settings, config, KvCache::block_bytes(config, decoder.dtype()));
    let engine = EngineHandle::start(decoder, options.clone())?;
    Ok(Started { engine, options, weights, packing })
}

fn registry(settings: &Settings, base: Arc<Checkpoint<'static>>, device: Device, packing: Option<Packing>) -> Registry {
    let options = RegistryOptions {
        base_name: settings.name.clone(),
        root: settings.adapter_root.clone(),
        byte_budget: settings.adapter_budget,
        max_rank: MAX_RANK,
        packing,
        root_templates: settings.adapter_templates,
    };
    let dtype = if device.is_cpu() { DType::F32 } else { settings.precision.dtype };
    Registry::new(options, base.config().clone(), dtype, device).with_base(base)
}

fn judge(voices: &Arc<Voices>) -> TemplateJudge {
    let voices = Arc::clone(voices);
    Box::new(move |template| voices.judge(template).map_err(|error| error.to_string()))
}

/// The operator's adapters, and those of the built-in model whose names they leave.
fn load_adapters(settings: &Settings, registry: &Registry) -> Result<(), ServeError> {
    let failed = |name: &str, source| ServeError::Adapter { name: name.to_owned(), source };
    for (name, dir) in &settings.adapters {
        registry.load_trusted(name, dir).map_err(|source| failed(name, source))?;
    }
    for &(name, files) in built_in_adapters(&settings.model) {
        if registry.card(name).is_none() {
            registry.load_built_in(name, files).map_err(|source| failed(name, source))?;
        }
    }
    Ok(())
}

#[cfg(feature = "embedded-model")]
fn built_in_adapters(model: &ModelSource) -> &'static [(&'static str, BuiltIn)] {
    if *model == ModelSource::Embedded { crate::embedded::ADAPTERS } else { &[] }
}

#[cfg(not(feature = "embedded-model"))]
fn built_in_adapters(_: &ModelSource) -> &'static [(&'static str, BuiltIn)] {
    &[]
}

fn engine_options(settings: &Settings, config: &ModelConfig, block_bytes: usize) -> EngineOptions {
    let blocks = config.max_position_embeddings.div_ceil(BLOCK_SIZE) * settings.max_batch;
    let whole_batch = blocks.saturating_mul(block_bytes);
    EngineOptions {
        max_batch: settings.max_batch,
        token_budget: TOKEN_BUDGET,
        kv_cache_bytes: settings.kv_cache_bytes.unwrap_or_else(|| whole_batch.min(KV_CACHE_LIMIT)),
        max_queue: settings.max_queue,
        prefix_cache: settings.prefix_cache,
        bounded_masks: true,
    }
}

fn model_card(settings: &Settings, config: &ModelConfig) -> ModelCard {
    ModelCard {
        name: settings.name.clone(),
        context_length: config.max_position_embeddings,
        logits_width: config.vocab_size,
        created: unix_seconds(),
    }
}

fn longest_token(tokenizer: &ChatTokenizer, vocab_size: usize) -> usize {
    (0..vocab_size as u32).map(|id| tokenizer.token_bytes(id).len()).max().unwrap_or(1).max(1)
}

/// The base's dialect and the adapters, with the dialects of those that do not speak as the base does.
fn spoken(voices: &Voices, registry: &Registry) -> String {
    let base = voices.base().dialect.name();
    let adapter = |card: Card| match voices.dialect_of(card.chat_template.as_deref()) {
        dialect if dialect == base => card.name,
        dialect => format!("{} (dialect {dialect})", card.name),
    };
    let adapters: Vec<String> = registry.cards().into_iter().map(adapter).collect();
    format!("dialect {base}, adapters: {}", if adapters.is_empty() { "none".to_owned() } else { adapters.join(", ") })
}

fn summarise(settings: &Settings, config: &ModelConfig, weights: &str, spoken: &str) -> String {
    format!(
        "loaded `{}`: {} layers of width {}, {:.1} M parameters, {}, context {}, {spoken}",
        settings.name,
        config.num_layers,
        config.hidden_size,
        config.parameters() as f64 / 1e6,
        weights,
        config.max_position_embeddings,
    )
}
