//! `eval`: which model is measured on what, and where the figures go.

use crate::data::synth::{Naming, Split};
use crate::error::{Result, TrainError};
use crate::eval::{self, EvalOptions, EvalReport};
use crate::recipe::DeviceKind;
use crate::trainable;
use callsmith::chat::dialect::DialectChoice;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

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

#[derive(Args)]
pub(super) struct EvalArgs {
    /// Model directory.
    #[arg(long)]
    model: PathBuf,
    /// PEFT adapter directory.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// How the model writes calls; default: seen from its chat template.
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
    /// Directory of further dialects.
    #[arg(long, value_name = "DIR", env = "CALLSMITH_DIALECT_DIR")]
    dialect_dir: Option<PathBuf>,
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
    /// Decode without the grammar.
    #[arg(long)]
    free: bool,
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Run on the GPU.
    #[arg(long)]
    cuda: bool,
    /// Also write the numbers here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also write every wrong answer here, one JSON object per line.
    #[arg(long)]
    failures: Option<PathBuf>,
}

/// Measures, and writes what was asked for.
pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let options = EvalOptions {
        model: args.model.clone(),
        adapter: args.adapter.clone(),
        dialect: DialectChoice { name: args.dialect.clone(), dir: args.dialect_dir.clone() },
        split: match args.split {
            SplitArg::Train => Split::Train,
            SplitArg::HeldOut => Split::HeldOut,
        },
        naming: args.naming.map(|naming| match naming {
            NamingArg::Overlap => Naming::Overlap,
            NamingArg::Synonym => Naming::Synonym,
            NamingArg::Unrelated => Naming::Unrelated,
        }),
        count: args.count,
        parallel: args.parallel,
        seed: args.seed,
        free: args.free,
        max_tokens: args.max_tokens,
    };
    let kind = if args.cuda { DeviceKind::Cuda } else { DeviceKind::Cpu };
    let report = eval::run(&options, &trainable::device(kind)?)?;
    // A reader that closes the pipe early is no failure.
    let _ = write!(std::io::stdout().lock(), "{}", report.score);
    write_report(args, &report)
}

fn write_report(args: &EvalArgs, report: &EvalReport) -> Result<()> {
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", report.score.to_json())).map_err(TrainError::io(path))?;
    }
    if let Some(path) = &args.failures {
        let line = |failure: &eval::Failure| {
            format!("{}\n", json!({"request": failure.request, "wanted": failure.wanted, "answer": failure.text}))
        };
        let lines: String = report.failures.iter().map(line).collect();
        std::fs::write(path, lines).map_err(TrainError::io(path))?;
    }
    Ok(())
}
