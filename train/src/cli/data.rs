//! `data`: files of conversations, and tokenizers from them.

use super::check::{self, CheckArgs};
use super::import::{self, ImportArgs};
use crate::data::synth::{self, SynthConfig};
use crate::dataset::encode;
use crate::error::{Result, TrainError};
use callsmith::chat::dialect;
use clap::Subcommand;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum DataCommand {
    /// Make native conversations of files in other formats.
    Import(ImportArgs),
    /// Check native conversations: calls, turns, duplicates, overlap with test data.
    Check(CheckArgs),
    /// Generate dialogues, one JSON object per line.
    Synth {
        /// TOML file with the generator's settings; its defaults when absent.
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long, default_value_t = 1000)]
        count: u64,
        #[arg(long)]
        out: PathBuf,
    },
    /// Train a byte-level BPE tokenizer on generated dialogues, and write the chat template beside it.
    Tokenizer {
        #[arg(long, default_value_t = 0)]
        seed: u64,
        #[arg(long, default_value_t = 4096)]
        vocab_size: usize,
        /// Directory to write tokenizer files into.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Does what was typed.
pub(super) fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::Import(args) => import::run(&args),
        DataCommand::Check(args) => check::run(&args),
        DataCommand::Synth { config, count, out } => {
            Ok(synth::write_jsonl(&synth_config(config.as_deref())?, count, &out)?)
        }
        DataCommand::Tokenizer { seed, vocab_size, out } => {
            synth::write_synth_tokenizer(seed, vocab_size, dialect::by_name("tool_uses")?.as_ref(), &out)?;
            encode::write_template(&out)
        }
    }
}

fn synth_config(path: Option<&Path>) -> Result<SynthConfig> {
    let Some(path) = path else { return Ok(SynthConfig::default()) };
    let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
    toml::from_str(&text).map_err(|e| TrainError::Recipe { path: path.display().to_string(), message: e.to_string() })
}
