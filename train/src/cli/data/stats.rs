//! `data stats`: whose tokens are counted in which files, and where the figures go.

use crate::cli::download::DownloadArgs;
use crate::dataset::encode::Encoder;
use crate::error::Result;
use crate::stats::{Stats, page};
use callsmith::chat::dialect::DialectChoice;
use callsmith::chat::tokenizer::ChatTokenizer;
use clap::Args;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Args)]
pub(in crate::cli) struct StatsArgs {
    /// Files, or URLs of files, with one conversation per line.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Directory whose tokenizer and chat template count; default: those of the model that is built in.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How the model writes calls; default: seen from its chat template.
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
    /// Directory of further dialects.
    #[arg(long, value_name = "DIR", env = "CALLSMITH_DIALECT_DIR")]
    dialect_dir: Option<PathBuf>,
    /// Also write a page with plots here.
    #[arg(long, value_name = "PAGE")]
    html: Option<PathBuf>,
    /// One JSON object in place of the table.
    #[arg(long)]
    json: bool,
    /// Longest line that is taken; memory grows with it.
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(1), value_name = "MIB")]
    max_row_mib: NonZeroUsize,
    #[command(flatten)]
    download: DownloadArgs,
}

/// Counts and shows.
pub(super) fn run(args: &StatsArgs) -> Result<()> {
    let dialect = DialectChoice { name: args.dialect.clone(), dir: args.dialect_dir.clone() };
    let encoder = match &args.model {
        Some(dir) => Encoder::load(dir, &dialect, ChatTokenizer::vocabulary_size(dir)?)?,
        None => Encoder::embedded(&dialect)?,
    };
    let files = args.download.files(&args.files)?;
    let stats = Stats::of_files(&files, args.max_row_mib.get() << 20, &encoder)?;
    if let Some(path) = &args.html {
        page::write(path, &args.files, &stats)?;
    }
    let text = if args.json { format!("{:#}\n", stats.to_json()) } else { stats.table() };
    // A reader that closes the pipe early is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}
