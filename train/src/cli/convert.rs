//! The arguments of `merge` and `convert`, and which function does what they say.

use crate::convert::{gguf, meta, zero};
use crate::error::Result;
use crate::merge::{self, Share, Storage};
use crate::model_dir::Precision;
use crate::monitor;
use crate::tensors::write::SHARD_BYTES;
use callsmith::model::gguf::Encoding;
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct MergeArgs {
    /// Hugging Face model directory.
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// PEFT directory, and the factor on what it adds (1 when absent); may be repeated.
    #[arg(long = "adapter", value_name = "DIR[:WEIGHT]", required = true)]
    adapters: Vec<Share>,
    /// Directory to write the merged model to; it must not be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How values are stored.
    #[arg(long, value_enum, default_value = "as-base")]
    dtype: Dtype,
    /// Largest file of weights, in bytes.
    #[arg(long, value_name = "N", default_value_t = SHARD_BYTES)]
    shard_bytes: u64,
}

#[derive(Subcommand)]
pub(super) enum ConvertCommand {
    /// Meta's consolidated.NN.pth and params.json to a Hugging Face directory.
    MetaToHf {
        #[command(flatten)]
        paths: Paths,
        /// How values are stored.
        #[arg(long, value_enum, default_value = "as-stored")]
        dtype: Dtype,
    },
    /// A Hugging Face directory of a Llama to Meta's consolidated.NN.pth and params.json.
    HfToMeta {
        #[command(flatten)]
        paths: Paths,
        /// Number of files that the weights are divided among.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
        shards: u8,
    },
    /// A Hugging Face directory to one GGUF file with its tokenizer.
    HfToGguf {
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How matrices are stored.
        #[arg(long = "type", value_enum)]
        encoding: GgufType,
    },
    /// A DeepSpeed ZeRO checkpoint (stage 1, 2 or 3) to weights in f32.
    ZeroToHf {
        /// Directory with `latest` and the folders of steps.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Folder of a step; the one that `latest` names when absent.
        #[arg(long, value_name = "global_stepN")]
        tag: Option<String>,
        /// A .safetensors file, or a Hugging Face directory (config.json must lie in --from).
        #[arg(long, value_name = "DIR|FILE")]
        out: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct Paths {
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Directory to write to; it must not be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtype {
    /// Each value as it was.
    #[value(alias = "as-base")]
    AsStored,
    F32,
    Bf16,
    F16,
}

impl Dtype {
    fn precision(self) -> Option<Precision> {
        match self {
            Self::AsStored => None,
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::F16 => Some(Precision::F16),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum GgufType {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_k")]
    Q4,
}

impl GgufType {
    fn encoding(self) -> Encoding {
        match self {
            Self::F32 => Encoding::F32,
            Self::F16 => Encoding::F16,
            Self::Bf16 => Encoding::Bf16,
            Self::Q8 => Encoding::Q8_0,
            Self::Q4 => Encoding::Q4K,
        }
    }
}

pub(super) fn merge(args: &MergeArgs) -> Result<()> {
    let storage = Storage { precision: args.dtype.precision(), shard_bytes: args.shard_bytes };
    merge::run(&args.base, &args.adapters, &args.out, storage)?;
    note_written(&args.out);
    Ok(())
}

pub(super) fn convert(command: &ConvertCommand) -> Result<()> {
    match command {
        ConvertCommand::MetaToHf { paths, dtype } => meta::to_hf(&paths.from, &paths.out, dtype.precision())?,
        ConvertCommand::HfToMeta { paths, shards } => meta::from_hf(&paths.from, &paths.out, usize::from(*shards))?,
        ConvertCommand::HfToGguf { from, out, encoding } => gguf::from_hf(from, out, encoding.encoding())?,
        ConvertCommand::ZeroToHf { from, tag, out } => zero::to_hf(from, tag.as_deref(), out)?,
    }
    note_written(command.out());
    Ok(())
}

impl ConvertCommand {
    fn out(&self) -> &Path {
        match self {
            Self::MetaToHf { paths, .. } | Self::HfToMeta { paths, .. } => &paths.out,
            Self::HfToGguf { out, .. } | Self::ZeroToHf { out, .. } => out,
        }
    }
}

fn note_written(out: &Path) {
    monitor::note(&format!("wrote {}", out.display()));
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("callsmith-train").chain(line.split(' '))).map(|cli| cli.command)
    }

    #[test]
    fn a_merge_keeps_the_types_of_its_base_unless_told_otherwise() {
        let merge = |line: &str| match parsed(line) {
            Ok(Command::Merge(args)) => args,
            _ => panic!("{line}"),
        };
        let plain = merge("merge --base m --adapter a:0.5 --adapter b --out o");
        assert_eq!((plain.dtype.precision(), plain.shard_bytes), (None, 5_000_000_000));
        assert_eq!(plain.adapters.iter().map(|share| share.weight).collect::<Vec<_>>(), [0.5, 1.0]);
        let half = merge("merge --base m --adapter a --out o --dtype bf16");
        assert_eq!(half.dtype.precision(), Some(Precision::Bf16));
        assert!(parsed("merge --base m --out o").is_err());
        assert!(parsed("merge --base m --adapter a:inf --out o").is_err());
    }

    #[test]
    fn a_conversion_is_refused_when_it_cannot_be_meant() {
        assert!(parsed("convert hf-to-meta --from a --out b --shards 8").is_ok());
        assert!(parsed("convert hf-to-gguf --from a --out b --type q8_0").is_ok());
        for wrong in ["hf-to-meta --from a --out b --shards 9", "hf-to-gguf --from a --out b", "meta-to-hf --from a"] {
            assert!(parsed(&format!("convert {wrong}")).is_err(), "{wrong}");
        }
    }
}
