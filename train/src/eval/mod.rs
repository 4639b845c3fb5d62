//! How well a model calls functions: held-out dialogues through the real engine, grammar and dialect of the server.
//!
//! Every assistant turn of the set is asked for with the true dialogue before it, greedily, under `tool_choice: auto`.

mod answer;
pub mod generate;
pub mod held_out;
pub mod score;
pub mod teacher;

use crate::data::synth::{self, Kind, Naming, Sample, Split, TurnInfo};
use crate::dataset::encode::Encoder;
use crate::error::{Result, TrainError};
use answer::{Asker, Question};
use callsmith::adapter::peft;
use callsmith::adapter::registry::Lease;
use callsmith::chat::dialect::DialectChoice;
use callsmith::engine::{EngineHandle, EngineOptions, Event};
use callsmith::model::{Checkpoint, CpuDecoder, Precision};
use callsmith::priority;
use candle_core::{DType, Device};
use score::{Call, Class, Score, Turn};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc::UnboundedReceiver;

/// Turns that run together.
const IN_FLIGHT: usize = 16;
const KV_CACHE_BYTES: usize = 512 << 20;

/// What to evaluate, and on what.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    pub model: PathBuf,
    pub adapter: Option<PathBuf>,
    pub dialect: DialectChoice,
    pub split: Split,
    pub naming: Option<Naming>,
    /// Dialogues with single calls or none.
    pub count: usize,
    /// Further dialogues that need several calls.
    pub parallel: usize,
    pub seed: u64,
    /// Without the grammar.
    pub free: bool,
    pub max_tokens: usize,
}

/// A turn that was not answered as wanted.
pub struct Failure {
    pub wanted: Value,
    pub text: String,
    pub request: String,
}

/// Scores and what went wrong.
pub struct EvalReport {
    pub score: Score,
    pub failures: Vec<Failure>,
}

/// Runs the evaluation.
pub fn run(options: &EvalOptions, device: &Device) -> Result<EvalReport> {
    let harness = Harness::open(options, device)?;
    let mut report = EvalReport { score: Score::default(), failures: Vec::new() };
    let mut flight = VecDeque::new();
    let mut samples = synth::eval_set(options.split, options.count, options.seed, options.naming);
    samples.extend(synth::eval_parallel(options.split, options.parallel, options.seed));
    for sample in samples {
        for info in &sample.turns {
            if flight.len() == IN_FLIGHT {
                harness.collect(flight.pop_front(), &mut report)?;
            }
            flight.push_back(harness.submit(&sample, info)?);
        }
    }
    while !flight.is_empty() {
        harness.collect(flight.pop_front(), &mut report)?;
    }
    Ok(report)
}

struct Harness {
    engine: EngineHandle,
    asker: Asker,
    adapter: Option<Lease>,
    max_tokens: usize,
    /// Never asked for: nothing is lost with this process.
    stop: AtomicBool,
}

/// A turn that the engine works on.
struct Asked {
    turn: Turn,
    question: Question,
    events: UnboundedReceiver<Event>,
    request: String,
}

impl Harness {
    fn open(options: &EvalOptions, device: &Device) -> Result<Self> {
        let dir = &options.model;
        let checkpoint = Checkpoint::open(dir)?;
        let config = checkpoint.config();
        let mut template = None;
        let adapter = match &options.adapter {
            Some(path) => {
                let loaded = peft::load(path, config, DType::F32, device)?.servable()?;
                template = loaded.chat_template;
                let weights = Arc::new(loaded.weights.beside(&checkpoint)?);
                Some(answer::lease(loaded.digest.chars().take(16).collect(), path, weights))
            }
            None => None,
        };
        let encoder = Encoder::speaking(template.as_deref(), dir, &options.dialect, config.vocab_size)?;
        let limits = limits(KV_CACHE_BYTES);
        let engine = match device.is_cpu() {
            true => {
                let decoder = CpuDecoder::load(&checkpoint, Precision::FULL, priority::processors(), &|_| {})?;
                EngineHandle::start_packed(decoder, limits)?
            }
            false => EngineHandle::start(checkpoint.decoder(DType::F32, device)?, limits)?,
        };
        let asker = Asker::new(Arc::new(encoder), options.free)?;
        Ok(Self { engine, asker, adapter, max_tokens: options.max_tokens, stop: AtomicBool::default() })
    }

    fn submit(&self, sample: &Sample, info: &TurnInfo) -> Result<Asked> {
        let turn = Turn::of(sample, info)?;
        let mut conversation = sample.conversation.clone();
        conversation.messages.truncate(info.assistant_message);
        let request = conversation.messages.last().map_or_else(String::new, |message| message.content.clone());
        let question = self.asker.question(&conversation)?;
        let events = self.asker.submit(&self.engine, &question, self.adapter.clone(), self.max_tokens)?;
        Ok(Asked { turn, question, events, request })
    }

    fn collect(&self, asked: Option<Asked>, report: &mut EvalReport) -> Result<()> {
        let Some(Asked { turn, question, events, request }) = asked else { return Ok(()) };
        let written = self.asker.written(&question, events, &self.stop)?;
        if !report.score.add(&turn, &written.answer) {
            report.failures.push(Failure { wanted: calls_json(&turn.calls), text: written.text, request });
        }
        Ok(())
    }
}

/// Limits of an engine that answers a bounded set of turns.
fn limits(kv_cache_bytes: usize) -> EngineOptions {
    EngineOptions {
        max_batch: IN_FLIGHT,
        token_budget: 2048,
        kv_cache_bytes,
        max_queue: 2 * IN_FLIGHT,
        prefix_cache: true,
        // What is measured is the model, and not the machine.
        bounded_masks: false,
    }
}

/// Calls as a list of objects.
fn calls_json(calls: &[Call]) -> Value {
    calls.iter().map(|(name, arguments)| json!({"name": name, "arguments": arguments})).collect()
}

impl Turn {
    /// What the sample wants of the assistant in this turn.
    pub(crate) fn of(sample: &Sample, info: &TurnInfo) -> Result<Self> {
        let messages = &sample.conversation.messages;
        let message = messages.get(info.assistant_message).ok_or_else(|| {
            TrainError::Data(format!("the sample has no message {} although a turn names it", info.assistant_message))
        })?;
        let class = match info.kind {
            Kind::SingleCall => Class::Single,
            Kind::ParallelSame => Class::ParallelSame,
            Kind::ParallelDifferent => Class::ParallelDifferent,
            Kind::NoCall => Class::NoCall,
            Kind::Chat => Class::Chat,
        };
        let naming = format!("{:?}", info.naming).to_lowercase();
        let calls = score::calls_of(message);
        Ok(Self { class, naming, offered: info.offered, noun_last: info.noun_last, calls })
    }
}
