//! `eval`: what is measured on which models, and where the figures go.

mod contest;

use crate::data::synth::{Naming, Split};
use crate::error::{Result, TrainError};
use crate::eval::bfcl::Bfcl;
use crate::eval::calls::{Calls, Generated};
use crate::eval::viggo::Viggo;
use crate::eval::{Outcome, Task, report, table};
use crate::{atomic, lock};
use clap::{Args, Subcommand, ValueEnum};
use contest::ContestArgs;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum EvalCommand {
    /// Sentences of ViGGO → meaning representations, by Levanter's metrics.
    Viggo {
        /// CSV with the columns mr and ref, or conversations made from it, one JSON object a line.
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Single turns of the Berkeley Function-Calling Leaderboard, by its AST rules.
    Bfcl {
        /// Questions (`BFCL_v4_NAME.json`).
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
        /// Answers (`possible_answer/BFCL_v4_NAME.json`); irrelevance has none.
        #[arg(long, value_name = "FILE")]
        gold: Option<PathBuf>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// The assistant turns of generated dialogues, or of a file: right function, right call, call or no call, schemas.
    Calls {
        /// Conversations, one JSON object a line; generated ones when absent.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["split", "naming", "count", "parallel", "seed"])]
        data: Option<PathBuf>,
        #[command(flatten)]
        generated: GeneratedArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// What all evaluations take.
#[derive(Args)]
pub(super) struct CommonArgs {
    #[command(flatten)]
    contest: ContestArgs,
    /// Only the first N rows (turns, of `calls`).
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
    /// Keep answers, metrics.json and report.html here; the same command then asks only for what is missing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also write every wrong answer here, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    failures: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct GeneratedArgs {
    #[arg(long, value_enum, default_value = "held-out")]
    split: SplitArg,
    /// Only dialogues whose functions are named so.
    #[arg(long, value_enum)]
    naming: Option<NamingArg>,
    /// Number of dialogues with single calls or none.
    #[arg(long, default_value_t = 500)]
    count: usize,
    /// Number of further dialogues that need several calls.
    #[arg(long, default_value_t = 100)]
    parallel: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitArg {
    Train,
    HeldOut,
}

#[derive(Clone, Copy, ValueEnum)]
enum NamingArg {
    Overlap,
    Synonym,
    Unrelated,
}

impl GeneratedArgs {
    fn wanted(&self) -> Generated {
        Generated {
            split: match self.split {
                SplitArg::Train => Split::Train,
                SplitArg::HeldOut => Split::HeldOut,
            },
            naming: self.naming.map(|naming| match naming {
                NamingArg::Overlap => Naming::Overlap,
                NamingArg::Synonym => Naming::Synonym,
                NamingArg::Unrelated => Naming::Unrelated,
            }),
            count: self.count,
            parallel: self.parallel,
            seed: self.seed,
        }
    }
}

/// Measures, and writes what was asked for.
pub(super) fn run(command: &EvalCommand) -> Result<()> {
    match command {
        EvalCommand::Viggo { data, common } => common.run(&Viggo::open(data, common.limit())?),
        EvalCommand::Bfcl { data, gold, common } => common.run(&Bfcl::open(data, gold.as_deref(), common.limit())?),
        EvalCommand::Calls { data: Some(data), common, .. } => common.run(&Calls::open(data, common.limit())?),
        EvalCommand::Calls { generated, common, .. } => {
            common.run(&Calls::generate(&generated.wanted(), common.limit())?)
        }
    }
}

impl CommonArgs {
    fn limit(&self) -> Option<usize> {
        self.limit.map(NonZeroUsize::get)
    }

    fn run(&self, task: &dyn Task) -> Result<()> {
        let _lock = self.out.as_deref().map(lock::take).transpose()?;
        let outcomes = self.contest.measure(task, self.out.as_deref())?;
        let metrics = metrics(&outcomes);
        if let Some(out) = &self.out {
            atomic::file(&out.join("metrics.json"), format!("{metrics:#}\n").as_bytes())?;
            report::write(&out.join("report.html"), task, &outcomes)?;
        }
        if let Some(path) = &self.failures {
            write_failures(path, task, &outcomes)?;
        }
        let text = if self.json { format!("{metrics}\n") } else { table::text(&outcomes) };
        // A reader that closes the pipe early is no failure.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        Ok(())
    }
}

/// One model's own object, or one for each by its name.
fn metrics(outcomes: &[Outcome]) -> Value {
    match outcomes {
        [only] => only.judged.metrics.clone(),
        several => {
            let named = several.iter().map(|outcome| (outcome.name.clone(), outcome.judged.metrics.clone()));
            json!({"models": named.collect::<Map<_, _>>()})
        }
    }
}

fn write_failures(path: &Path, task: &dyn Task, outcomes: &[Outcome]) -> Result<()> {
    let write = |out: &mut dyn Write| {
        for outcome in outcomes {
            let judged = task.cases().iter().zip(&outcome.replies).zip(&outcome.judged.verdicts);
            for ((case, reply), verdict) in judged.filter(|(_, verdict)| !verdict.right) {
                let line = json!({
                    "model": outcome.name, "case": case.id, "request": report::request(case), "wanted": verdict.wanted,
                    "answer": reply.shown(), "fault": verdict.fault,
                });
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    };
    atomic::stream(path, write).map_err(TrainError::io(path))
}
