//! How well a model calls functions: held-out dialogues through the real engine, grammar and dialect of the server.
//!
//! Every assistant turn of the set is asked for with the true dialogue before it, greedily, under `tool_choice: auto`.

pub mod score;
pub mod teacher;

use crate::data::synth::{self, Kind, Naming, Sample, Split, TurnInfo};
use crate::dataset::encode::Encoder;
use crate::error::{Result, TrainError};
use callsmith::adapter::peft;
use callsmith::adapter::registry::{Generation, Lease};
use callsmith::chat::dialect::{Delta, DialectChoice, Function, TurnSpec};
use callsmith::chat::reasoning::{self, Reasoning};
use callsmith::chat::{Conversation, Tool, ToolChoice};
use callsmith::engine::{EngineHandle, EngineOptions, Event, GenerateRequest, SamplingParams};
use callsmith::grammar::{Constraint, GrammarCompiler, schema};
use callsmith::model::{Checkpoint, CpuDecoder, Precision};
use callsmith::priority;
use candle_core::{DType, Device};
use score::{Answer, Class, Score, Turn};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    encoder: Encoder,
    compiler: GrammarCompiler,
    adapter: Option<Lease>,
    free: bool,
    max_tokens: usize,
}

/// A turn that the engine works on.
struct Asked {
    turn: Turn,
    functions: Vec<Function>,
    reasoning: Reasoning,
    events: UnboundedReceiver<Event>,
    request: String,
}

impl Harness {
    fn open(options: &EvalOptions, device: &Device) -> Result<Self> {
        let dir = &options.model;
        let checkpoint = Checkpoint::open(dir)?;
        let config = checkpoint.config();
        let encoder = Encoder::load(dir, &options.dialect, config.vocab_size)?;
        let adapter = match &options.adapter {
            Some(path) => Some(lease(path, peft::load(path, config, DType::F32, device)?)),
            None => None,
        };
        let limits = EngineOptions {
            max_batch: IN_FLIGHT,
            token_budget: 2048,
            kv_cache_bytes: KV_CACHE_BYTES,
            max_queue: 2 * IN_FLIGHT,
            prefix_cache: true,
        };
        let compiler = GrammarCompiler::new(encoder.tokenizer.tok_env(), 1)?;
        let engine = match device.is_cpu() {
            true => {
                let decoder = CpuDecoder::load(&checkpoint, Precision::FULL, priority::processors(), &|_| {})?;
                EngineHandle::start_packed(decoder, limits)?
            }
            false => EngineHandle::start(checkpoint.decoder(DType::F32, device)?, limits)?,
        };
        Ok(Self { engine, encoder, compiler, adapter, free: options.free, max_tokens: options.max_tokens })
    }

    fn submit(&self, sample: &Sample, info: &TurnInfo) -> Result<Asked> {
        let turn = Turn::of(sample, info)?;
        let mut conversation = sample.conversation.clone();
        conversation.messages.truncate(info.assistant_message);
        let request = conversation.messages.last().map_or_else(String::new, |message| message.content.clone());
        let (prompt, reasoning) = self.encoder.turn(&conversation)?;
        let functions = functions(&conversation)?;
        let parallel = conversation.parallel_tool_calls;
        let constraint = if self.free { None } else { Some(self.constraint(&functions, parallel, reasoning)?) };
        let events = self.engine.submit(GenerateRequest {
            prompt,
            params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens: self.max_tokens,
            stop_token_ids: self.encoder.tokenizer.eos_token_ids().to_vec(),
            constraint,
            adapter: self.adapter.clone(),
            tenant: None,
        })?;
        Ok(Asked { turn, functions, reasoning, events, request })
    }

    fn constraint(&self, functions: &[Function], parallel: bool, reasoning: Reasoning) -> Result<Constraint> {
        let control = self.encoder.tokenizer.control_ids();
        let spec = TurnSpec { tools: functions, choice: &ToolChoice::Auto, parallel, reasoning, control, answer: None };
        Ok(self.compiler.compile_blocking(&self.encoder.dialect.grammar(&spec)?)?)
    }

    fn collect(&self, asked: Option<Asked>, report: &mut EvalReport) -> Result<()> {
        let Some(mut asked) = asked else { return Ok(()) };
        let text = self.text(&mut asked.events)?;
        let answer = self.parse(&asked, &text);
        if !report.score.add(&asked.turn, &answer) {
            let wanted = json!(
                asked
                    .turn
                    .calls
                    .iter()
                    .map(|(name, arguments)| json!({"name": name, "arguments": arguments}))
                    .collect::<Vec<_>>()
            );
            report.failures.push(Failure { wanted, text, request: asked.request });
        }
        Ok(())
    }

    /// Waits for the end of a generation.
    fn text(&self, events: &mut UnboundedReceiver<Event>) -> Result<String> {
        let mut ids = Vec::new();
        loop {
            match events.blocking_recv() {
                Some(Event::Started { .. }) => {}
                Some(Event::Tokens(tokens)) => ids.extend(tokens.iter().map(|token| token.id)),
                Some(Event::Finished(_)) => return Ok(self.encoder.tokenizer.decode(&ids)),
                Some(Event::Failed(error)) => return Err(error.into()),
                None => return Err(TrainError::Data("the engine ended before an answer was complete".into())),
            }
        }
    }

    fn parse(&self, asked: &Asked, text: &str) -> Answer {
        let answered = reasoning::split(asked.reasoning, text).rest;
        let mut parser = self.encoder.dialect.parser(&asked.functions);
        let mut deltas = parser.push(&answered);
        deltas.extend(parser.finish());
        answer(&deltas)
    }
}

/// The functions on offer, as the grammar needs them.
fn functions(conversation: &Conversation) -> Result<Vec<Function>> {
    let admit = |tool: &Tool| Ok((tool.name.clone(), schema::admit_parameters(&tool.parameters)?));
    conversation.tools.iter().map(admit).collect()
}

/// Calls out of a parsed turn; arguments that are not JSON become `null`, which equals no wanted arguments.
fn answer(deltas: &[Delta]) -> Answer {
    let mut calls: Vec<(String, String)> = Vec::new();
    for delta in deltas {
        match delta {
            Delta::CallStart { name, .. } => calls.push((name.clone(), String::new())),
            Delta::CallArguments { index, fragment } => {
                if let Some((_, arguments)) = calls.get_mut(*index) {
                    arguments.push_str(fragment);
                }
            }
            Delta::Thought(_) | Delta::Text(_) | Delta::CallEnd { .. } => {}
        }
    }
    let parsed = |(name, text): (String, String)| (name, serde_json::from_str(&text).unwrap_or(Value::Null));
    Answer { calls: calls.into_iter().map(parsed).collect() }
}

fn lease(path: &Path, loaded: peft::LoadedAdapter) -> Lease {
    Arc::new(Generation {
        name: "evaluated".into(),
        id: loaded.digest.chars().take(16).collect(),
        rank: loaded.config.rank,
        bytes: loaded.weights.bytes(),
        path: path.to_owned(),
        created: 0,
        weights: Arc::new(loaded.weights),
    })
}

impl Turn {
    /// What the sample wants of the assistant in this turn.
    pub(crate) fn of(sample: &Sample, info: &TurnInfo) -> Result<Self> {
        let messages = &sample.conversation.messages;
        let message = messages.get(info.assistant_message).ok_or_else(|| {
            TrainError::Data(format!("the sample has no message {} although a turn names it", info.assistant_message))
        })?;
        let calls: Vec<_> = message.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
        let class = match info.kind {
            Kind::SingleCall => Class::Single,
            Kind::ParallelSame => Class::ParallelSame,
            Kind::ParallelDifferent => Class::ParallelDifferent,
            Kind::NoCall => Class::NoCall,
            Kind::Chat => Class::Chat,
        };
        let naming = format!("{:?}", info.naming).to_lowercase();
        Ok(Self { class, naming, offered: info.offered, noun_last: info.noun_last, calls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_become_calls_and_broken_arguments_equal_nothing() {
        let start = |index, name: &str| Delta::CallStart { index, name: name.into() };
        let fragment = |index, text: &str| Delta::CallArguments { index, fragment: text.into() };
        let deltas = [
            start(0, "a"),
            fragment(0, "{\"x\""),
            fragment(0, ":1}"),
            Delta::CallEnd { index: 0 },
            start(1, "b"),
            fragment(1, "{"),
        ];
        let Answer { calls } = answer(&deltas);
        assert_eq!(calls, [("a".to_owned(), json!({"x": 1})), ("b".to_owned(), Value::Null)]);
        assert!(answer(&[Delta::Text("hello".into())]).calls.is_empty());
    }
}
