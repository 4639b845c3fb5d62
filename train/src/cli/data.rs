//! `data`: files of conversations, and tokenizers from them.

mod split;
mod stats;

use self::split::SplitArgs;
use self::stats::StatsArgs;
use super::check::{self, CheckArgs};
use super::import::{self, ImportArgs};
use crate::data::catalogue::Catalogue;
use crate::data::synth::{self, SynthConfig};
use crate::data::world::{self, WorldConfig};
use crate::dataset::encode;
use crate::error::{Result, TrainError};
use crate::monitor;
use callsmith::chat::dialect;
use clap::{Subcommand, ValueEnum};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// What `data synth` generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// Turns of one or several calls, or none, over very many functions.
    Calls,
    /// Dialogues of all scenario classes, acted out in a world of records.
    Dialogues,
    /// Single calls as pairs of instruction, input and output.
    Pairs,
}

#[derive(Subcommand)]
pub(super) enum DataCommand {
    /// Make native conversations of files in other formats.
    Import(ImportArgs),
    /// Check native conversations: calls, turns, duplicates, overlap with test data.
    Check(CheckArgs),
    /// Generate training data, one JSON object per line.
    Synth {
        /// What is generated; default: calls, or dialogues where --tools-from is given.
        #[arg(long, value_enum)]
        preset: Option<Preset>,
        /// TOML file with the generator's settings; its defaults when absent.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Dialogues over functions of a file instead: an OpenAPI document (JSON or YAML) or the tool list of Seal-Tools. Of
        /// the settings seed, split, distractors and the classes that need no results count.
        #[arg(long, value_name = "FILE")]
        tools_from: Option<PathBuf>,
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
    /// Count what files hold: lengths in tokens, calls, functions, values, kinds of answers.
    Stats(StatsArgs),
    /// Divide a file into one to train on and one to test on.
    Split(SplitArgs),
}

/// Does what was typed.
pub(super) fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::Import(args) => import::run(&args),
        DataCommand::Check(args) => check::run(&args),
        DataCommand::Synth { preset, config, tools_from, count, out } => {
            let config = config.as_deref();
            match (preset, tools_from) {
                (None | Some(Preset::Dialogues), Some(from)) => of_tools(&settings(config)?, &from, count, &out),
                (Some(_), Some(_)) => {
                    Err(TrainError::Data("--tools-from makes dialogues; leave --preset out".to_owned()))
                }
                (None | Some(Preset::Calls), None) => {
                    Ok(synth::write_jsonl(&settings::<SynthConfig>(config)?, count, &out)?)
                }
                (Some(Preset::Pairs), None) => world::write_pairs(&settings(config)?, count, &out),
                (Some(Preset::Dialogues), None) => world::write_dialogues(&settings(config)?, count, &out),
            }
        }
        DataCommand::Tokenizer { seed, vocab_size, out } => {
            synth::write_synth_tokenizer(seed, vocab_size, dialect::by_name("tool_uses")?.as_ref(), &out)?;
            encode::write_template(&out)
        }
        DataCommand::Stats(args) => stats::run(&args),
        DataCommand::Split(args) => split::run(&args),
    }
}

/// Dialogues over the functions of a file; tells which of them cannot be used.
fn of_tools(config: &WorldConfig, from: &Path, count: u64, out: &Path) -> Result<()> {
    let catalogue = Catalogue::open(from, config)?;
    if let left_out @ [_, ..] = catalogue.left_out() {
        let names = left_out.join(", ");
        monitor::note(&format!("{} functions take what cannot be made up and are left out: {names}", left_out.len()));
    }
    catalogue.write(config, count, out)
}

/// The settings in a TOML file, or the defaults.
fn settings<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
    toml::from_str(&text).map_err(|e| TrainError::Recipe { path: path.display().to_string(), message: e.to_string() })
}
