//! `data check`: which files, against which test data, what may be dropped.

use crate::data::DataError;
use crate::data::check::{self, CheckOptions, Fix};
use crate::error::Result;
use crate::{atomic, monitor};
use clap::Args;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Files of native conversations.
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
    /// Share of common three-word shingles from which conversations are near-duplicates.
    #[arg(long, default_value_t = 0.8)]
    similarity: f64,
    /// Number of findings to show with their line.
    #[arg(long, default_value_t = 20, value_name = "N")]
    show: usize,
    /// Longest row that is taken; memory grows with it.
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(1), value_name = "MIB")]
    max_row_mib: NonZeroUsize,
}

/// Checks, and says what was found; problems that are left are an error.
pub(super) fn run(args: &CheckArgs) -> Result<()> {
    let report = check::run(&CheckOptions {
        files: args.files.clone(),
        against: args.against.clone(),
        drop: args.fix.iter().flat_map(|fix| fix.problems()).copied().collect(),
        out: args.out.clone(),
        similarity: args.similarity,
        longest_row: Some(args.max_row_mib.get() << 20),
        shown: args.show,
    })?;
    if let Some(path) = &args.report {
        atomic::file(path, format!("{:#}\n", json!(report)).as_bytes())?;
    }
    match report.left {
        0 => monitor::note(&report.to_string()),
        _ => return Err(DataError::Problems(report.to_string()).into()),
    }
    Ok(())
}
