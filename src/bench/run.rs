//! `callsmith bench run`: a target and scenarios → measurements → a report.

use super::cases::{self, Case};
use super::client::chat;
use super::load::{Pace, drive};
use super::measured::Measured;
use super::report::{Report, ServerCard, Settings};
use super::target::{Target, TokenCounters};
use super::workload::{Ask, Common, Form, Workload};
use super::{BenchError, publish, tell};
use crate::chat::clock::strftime_now;
use crate::cli::{BenchRunArgs, Scenario};
use crate::client::{Cause, Client, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Words of the two requests that show how many tokens a word has.
const PROBES: [usize; 2] = [8, 72];

/// Measures and reports; false when no request was answered.
pub(super) fn run(args: &BenchRunArgs) -> Result<bool, BenchError> {
    let target = Target::of(args.url.as_deref(), &args.serve)?;
    if let Some(loaded) = &target.loaded {
        tell(&format!("{loaded}\n"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::Runtime)?;
    let report = runtime.block_on(measure_all(args, &target))?;
    publish(args.json.as_deref(), &report, || report.text())?;
    Ok(report.any_answered())
}

async fn measure_all(args: &BenchRunArgs, target: &Target) -> Result<Report, BenchError> {
    let stop = interrupted();
    let client = target.client()?;
    let named = named_adapters(args, target);
    let scenarios = scenarios(args, &named)?;
    let cases: Arc<[Case]> = cases::read(args.tools.as_deref())?.into();
    let (server, common) = introduce(args, target, &client).await?;
    let mut bench = Bench { client, stop, next: 0, args };
    let mut measurements = Vec::new();
    for cell in cells(args, &scenarios, &named, &cases, &common) {
        if *bench.stop.borrow() {
            break;
        }
        measurements.push(bench.measure(&cell).await);
    }
    let interrupted = *bench.stop.borrow();
    let settings = settings(args, &common);
    let (date, callsmith) = (strftime_now("%FT%TZ"), env!("CARGO_PKG_VERSION"));
    Ok(Report { date, callsmith, server, settings, interrupted, measurements })
}

/// The models of the scenario `adapters`.
fn named_adapters(args: &BenchRunArgs, target: &Target) -> Vec<String> {
    if args.adapter_names.is_empty() { target.adapters.clone() } else { args.adapter_names.clone() }
}

/// Those asked for, or all that can be run.
fn scenarios(args: &BenchRunArgs, adapters: &[String]) -> Result<Vec<Scenario>, BenchError> {
    use Scenario::{Adapters, Call, Poisson, Prefix, Schema, Text};
    let possible = |scenario: &Scenario| match scenario {
        Adapters => !adapters.is_empty(),
        Poisson => args.rate.is_some(),
        _ => true,
    };
    if args.scenarios.is_empty() {
        return Ok([Text, Call, Schema, Prefix, Adapters, Poisson].into_iter().filter(possible).collect());
    }
    match args.scenarios.iter().find(|scenario| !possible(scenario)) {
        Some(Adapters) => Err(BenchError::Usage("--scenario adapters needs --adapters NAME,NAME".to_owned())),
        Some(_) => Err(BenchError::Usage("--scenario poisson needs --rate RATE".to_owned())),
        None => Ok(args.scenarios.clone()),
    }
}

/// Finds out what the server is, what it takes, and how many words make a prompt of the wanted length.
async fn introduce(args: &BenchRunArgs, target: &Target, client: &Client) -> Result<(ServerCard, Common), BenchError> {
    let wrong = |failure: Failure| BenchError::Server { url: target.url.clone(), failure };
    let given = args.serve.served_model_name.clone();
    let (listed, server) = match client.first_model().await {
        Ok(found) => found,
        // Whoever names the model needs no list of them.
        Err(_) if given.is_some() => (None, None),
        Err(failure) => return Err(wrong(failure)),
    };
    let none = || BenchError::Usage(format!("{}/v1/models lists no model: give --served-model-name", target.url));
    let model = given.or(listed).ok_or_else(none)?;
    let BenchRunArgs { temperature, seed, known_tools, .. } = *args;
    let mut common =
        Common { model, max_tokens: 1, temperature, seed, ignore_eos: true, words: PROBES[0], known_tools };
    let first = match chat(client, &probe(&common, 0), Instant::now()).await {
        Err(Failure { cause: Cause::Status { code: 400..=499, .. }, .. }) => {
            common.ignore_eos = false;
            chat(client, &probe(&common, 0), Instant::now()).await
        }
        other => other,
    };
    let first = first.map_err(wrong)?;
    common.words = PROBES[1];
    let second = chat(client, &probe(&common, 1), Instant::now()).await.map_err(wrong)?;
    common.words = words_for(args.prompt_tokens, [first.usage.prompt_tokens, second.usage.prompt_tokens]);
    common.max_tokens = args.max_tokens;
    let card = ServerCard {
        url: target.url.clone(),
        model: common.model.clone(),
        loaded: target.loaded.clone(),
        server,
        system_fingerprint: second.fingerprint,
        ignores_eos: common.ignore_eos,
    };
    Ok((card, common))
}

fn probe(common: &Common, number: u64) -> Ask {
    // Numbers that no measured request has.
    Workload { common: common.clone(), form: Form::Text }.ask((1 << 60) + number)
}

/// How many words make a prompt of `wanted` tokens, where prompts of [`PROBES`] words had `found`.
fn words_for(wanted: u32, found: [u64; 2]) -> usize {
    let [few, many] = found.map(|tokens| tokens as f64);
    let per_word = (many - few) / (PROBES[1] - PROBES[0]) as f64;
    if per_word <= 0.0 {
        return wanted as usize;
    }
    let around = few - per_word * PROBES[0] as f64;
    ((f64::from(wanted) - around) / per_word).round().max(1.0) as usize
}

/// One measurement to make.
struct Cell {
    name: String,
    workload: Workload,
    pace: Pace,
}

fn cells(
    args: &BenchRunArgs,
    scenarios: &[Scenario],
    adapters: &[String],
    cases: &Arc<[Case]>,
    common: &Common,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for scenario in scenarios {
        let forms = match scenario {
            Scenario::Text => vec![("text", Form::Text)],
            Scenario::Call => vec![("call", Form::Call(Arc::clone(cases)))],
            Scenario::Schema => vec![("schema", Form::Schema(Arc::clone(cases)))],
            Scenario::Prefix => vec![("prefix", Form::Prefix)],
            Scenario::Adapters => vec![("base alone", Form::Text), ("adapters", Form::Models(adapters.to_vec()))],
            Scenario::Poisson => vec![("poisson", Form::Text)],
        };
        let paces = match (scenario, args.rate) {
            (Scenario::Poisson, Some(rate)) => vec![Pace::Rate(rate)],
            _ => args.concurrencies.iter().map(|places| Pace::Concurrency(*places as usize)).collect(),
        };
        for pace in paces {
            cells.extend(forms.iter().map(|(name, form)| {
                let workload = Workload { common: common.clone(), form: form.clone() };
                Cell { name: (*name).to_owned(), workload, pace }
            }));
        }
    }
    cells
}

/// What measurements have in common.
struct Bench<'a> {
    client: Client,
    stop: watch::Receiver<bool>,
    /// The number of the next request: no two of a run are alike.
    next: u64,
    args: &'a BenchRunArgs,
}

impl Bench<'_> {
    async fn measure(&mut self, cell: &Cell) -> Measured {
        let warm = match cell.pace {
            Pace::Rate(_) => Pace::Concurrency(1),
            pace => pace,
        };
        self.send(cell, warm, self.args.warmup, &ProgressBar::hidden()).await;
        let before = TokenCounters::read(&self.client).await;
        let bar = progress_bar(cell, self.args.requests);
        let run = self.send(cell, cell.pace, self.args.requests, &bar).await;
        bar.finish_and_clear();
        let after = TokenCounters::read(&self.client).await;
        let mut measured = Measured::of(cell.name.clone(), cell.pace, self.args.requests, run);
        measured.forced_share = before.zip(after).and_then(|(before, after)| after.share_since(before));
        measured
    }

    async fn send(&mut self, cell: &Cell, pace: Pace, count: u64, bar: &ProgressBar) -> super::load::Run {
        let first = self.next;
        self.next += count;
        let mut stop = self.stop.clone();
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        let client = &self.client;
        let send = |number: u64, due| {
            let ask = cell.workload.ask(first + number);
            async move { chat(client, &ask, due).await }
        };
        drive(pace, (count, self.args.seed), send, stopped, || bar.inc(1)).await
    }
}

/// Nothing is drawn where standard error is no terminal.
fn progress_bar(cell: &Cell, requests: u64) -> ProgressBar {
    let bar = ProgressBar::new(requests).with_message(cell.name.clone());
    let style = ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len} {elapsed} (left: {eta})");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Becomes true at the first Ctrl-C; the second ends the process.
fn interrupted() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if sender.send_replace(true) {
                std::process::exit(130);
            }
        }
        // Without the signal nothing ever stops the run.
        std::future::pending::<()>().await;
    });
    receiver
}

fn settings(args: &BenchRunArgs, common: &Common) -> Settings {
    Settings {
        requests: args.requests,
        warmup: args.warmup,
        prompt_tokens: args.prompt_tokens,
        prompt_words: common.words,
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        seed: args.seed,
        tools: args.tools.as_ref().map(|path| path.display().to_string()),
        known_tools: args.known_tools,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_many_as_the_tokenizer_needs() {
        // 20 tokens around the prompt, 1.5 tokens a word.
        assert_eq!(words_for(320, [32, 128]), 200);
        assert_eq!(words_for(5, [32, 128]), 1);
        // A server that counts no tokens.
        assert_eq!(words_for(300, [0, 0]), 300);
    }
}
