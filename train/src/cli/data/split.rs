//! `data split`: which file is divided how, and what is told of it.

use crate::cli::download::DownloadArgs;
use crate::error::Result;
use crate::monitor;
use crate::split::{self, By, Outputs, Rule};
use clap::{Args, ValueEnum};
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Args)]
pub(in crate::cli) struct SplitArgs {
    /// File, or URL of a file, with one conversation per line.
    file: PathBuf,
    /// What is trained on.
    #[arg(long, value_name = "FILE")]
    out_train: PathBuf,
    /// What is kept for tests.
    #[arg(long, value_name = "FILE")]
    out_test: PathBuf,
    /// Lines that can stand on neither side; without it they are counted alone, as are those that are too long or no UTF-8.
    #[arg(long, value_name = "FILE")]
    out_rest: Option<PathBuf>,
    /// Share of the dialogues, functions or families that goes to the test side.
    #[arg(long, default_value_t = 0.1)]
    share: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What stays together on one side.
    #[arg(long, value_enum, default_value = "dialogue")]
    by: ByArg,
    /// Longest line that is taken; memory grows with it.
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(1), value_name = "MIB")]
    max_row_mib: NonZeroUsize,
    #[command(flatten)]
    download: DownloadArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByArg {
    /// Equal dialogues.
    Dialogue,
    /// All calls of a function; dialogues that call functions of both sides stand on neither.
    Function,
    /// All calls of functions that are called in one dialogue, or in dialogues with the same tools.
    Family,
}

/// Divides, and tells the counts.
pub(super) fn run(args: &SplitArgs) -> Result<()> {
    let by = match args.by {
        ByArg::Dialogue => By::Dialogue,
        ByArg::Function => By::Function,
        ByArg::Family => By::Family,
    };
    let rule = Rule { by, share: args.share, seed: args.seed, longest: args.max_row_mib.get() << 20 };
    let outputs = Outputs { train: &args.out_train, test: &args.out_test, rest: args.out_rest.as_deref() };
    let report = split::split(&args.download.downloads().file(&args.file)?, &rule, &outputs)?;
    monitor::note(report.to_string().trim_end());
    Ok(())
}
