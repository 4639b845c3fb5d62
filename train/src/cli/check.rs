//! `data check`: which files, against which test data, what may be dropped.

use super::download::DownloadArgs;
use crate::data::DataError;
use crate::data::check::{self, CheckOptions, Fix, Report};
use crate::error::Result;
use crate::{atomic, monitor};
use clap::Args;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Files, or URLs of files, of native conversations.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Test data with which nothing may overlap (may be repeated).
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Drop conversations, and write the others to --out.
    #[arg(long, value_enum, value_delimiter = ',', requires = "out")]
    fix: Vec<Fix>,
    #[arg(long, requires = "fix")]
    out: Option<PathBuf>,
    /// Also write the counts here as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Share of common three-word shingles from which conversations are near-duplicates, 0.5 to 1.
    #[arg(long, default_value_t = 0.8, value_parser = share)]
    similarity: f64,
    /// Number of findings to show with their line.
    #[arg(long, default_value_t = 20, value_name = "N")]
    show: usize,
    /// Longest row that is taken; memory grows with it.
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(1), value_name = "MIB")]
    max_row_mib: NonZeroUsize,
    #[command(flatten)]
    download: DownloadArgs,
}

/// Less similar conversations than half are found too rarely to be looked for.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.5..=1.0).contains(share));
    share.ok_or_else(|| "must lie between 0.5 and 1".to_owned())
}

/// Checks, and says what was found; problems that are left are an error.
pub(super) fn run(args: &CheckArgs) -> Result<()> {
    let (files, against) = (args.download.files(&args.files)?, args.download.files(&args.against)?);
    let inputs: Vec<&Path> = files.iter().chain(&against).map(PathBuf::as_path).collect();
    let outputs: Vec<&Path> = args.out.iter().chain(&args.report).map(PathBuf::as_path).collect();
    atomic::distinct(&inputs, &outputs)?;
    let checked = check::run(&CheckOptions {
        files,
        against,
        drop: args.fix.iter().flat_map(|fix| fix.problems()).copied().collect(),
        out: args.out.clone(),
        similarity: args.similarity,
        longest_row: Some(args.max_row_mib.get() << 20),
        shown: args.show,
    });
    match (&args.report, &checked) {
        (Some(path), Ok(report)) => write(report, path)?,
        // Wanted most where nothing else is written.
        (Some(path), Err(DataError::Unfixed(report))) => write(report, path)?,
        _ => {}
    }
    let report = checked?;
    match report.left {
        0 => monitor::note(&report.to_string()),
        _ => return Err(DataError::Problems(report.to_string()).into()),
    }
    Ok(())
}

fn write(report: &Report, path: &Path) -> Result<()> {
    atomic::file(path, format!("{:#}\n", json!(report)).as_bytes())
}
