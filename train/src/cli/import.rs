//! `data import`: which files, which format, which of its switches.

use super::download::DownloadArgs;
use crate::data::DataError;
use crate::data::import::{self, FormatName, GlaiveRule, ImportOptions, Report, ViggoSwitches};
use crate::error::Result;
use crate::{atomic, monitor};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct ImportArgs {
    /// Files, or URLs of files: JSON lines, a JSON array, or CSV with a header (by its name).
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Format of the rows.
    #[arg(long, value_parser = formats(), default_value = "auto")]
    format: Choice,
    /// File of native conversations, one a line.
    #[arg(long)]
    out: PathBuf,
    /// Also write the counts here as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Number of flawed rows to show with their line.
    #[arg(long, default_value_t = 20, value_name = "N")]
    show: usize,
    /// Longest row that is taken; memory grows with it.
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(1), value_name = "MIB")]
    max_row_mib: NonZeroUsize,
    /// Of everything that is drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// ViGGO: rows that share a conversation, drawn at random; 1 keeps the order of the file.
    #[arg(long, default_value_t = NonZeroUsize::MIN, value_name = "N")]
    turns_per_conversation: NonZeroUsize,
    /// Glaive: the rules that clean it. The original project had all of them but `without-functions` and trained each
    /// dialogue's last turn alone; without `frequent`, `questions` and `call-endings` nothing is dropped at random.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "functions,phrases,results,calls,turns,endings,duplicates"
    )]
    glaive_rules: Vec<GlaiveRule>,
    /// Seal-Tools: functions offered beside those that are called.
    #[arg(long, default_value_t = 4, value_name = "N")]
    distractors: usize,
    #[command(flatten)]
    download: DownloadArgs,
}

/// A format, or none for `auto`.
type Choice = Option<FormatName>;

fn formats() -> impl TypedValueParser<Value = Choice> {
    let auto = PossibleValue::new("auto").help("Seen from the fields of each file's first row that can be read");
    let names = FormatName::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    PossibleValuesParser::new([auto].into_iter().chain(names)).map(|name| FormatName::from_str(&name, false).ok())
}

/// Imports, and says what became of the rows.
pub(super) fn run(args: &ImportArgs) -> Result<()> {
    let files = args.download.files(&args.files)?;
    let inputs: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let outputs: Vec<&Path> = [&args.out].into_iter().chain(&args.report).map(PathBuf::as_path).collect();
    atomic::distinct(&inputs, &outputs)?;
    let imported = import::run(&ImportOptions {
        files,
        format: args.format,
        out: args.out.clone(),
        longest_row: Some(args.max_row_mib.get() << 20),
        shown: args.show,
        seed: args.seed,
        viggo: ViggoSwitches { turns: args.turns_per_conversation },
        glaive_rules: args.glaive_rules.clone(),
        distractors: args.distractors,
    });
    match (&args.report, &imported) {
        (Some(path), Ok(report)) => write(report, path)?,
        // Wanted most where nothing else is written.
        (Some(path), Err(DataError::Nothing(report))) => write(report, path)?,
        _ => {}
    }
    monitor::note(&imported?.to_string());
    Ok(())
}

fn write(report: &Report, path: &Path) -> Result<()> {
    atomic::file(path, format!("{:#}\n", json!(report)).as_bytes())
}
