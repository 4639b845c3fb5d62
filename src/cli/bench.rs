//! The command line of `callsmith bench`.

use super::{DtypeName, ServeArgs};
use clap::builder::Resettable;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum BenchCommand {
    /// Load a server with requests and measure its answers: any OpenAI-compatible one, or our own
    Run(Box<BenchRunArgs>),
    /// Write a model directory with random weights of a given shape, to measure with
    MakeModel(MakeModelArgs),
    /// Measure the token masks of function calls; needs a tokenizer and no weights
    Masks(MasksArgs),
}

/// `--url` names a running server; without it one is started with the options of `callsmith serve` and driven over HTTP
/// just the same.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("model", |arg| arg.env(Resettable::Reset).conflicts_with("url")),
    mut_arg("port", |arg| arg.default_value("0")),
    mut_arg("host", |arg| arg.hide(true)),
)]
pub struct BenchRunArgs {
    /// Server to drive, for example http://127.0.0.1:8080; without it our own is started with the server options below
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// What to measure (may be given several times); default: all that need no further option
    #[arg(long = "scenario", value_enum, value_name = "SCENARIO", value_delimiter = ',')]
    pub scenarios: Vec<Scenario>,
    /// Requests under way together, one measurement for each number
    #[arg(
        long = "concurrency",
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,8",
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub concurrencies: Vec<u32>,
    /// Requests of each measurement
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub requests: u64,
    /// Requests before each measurement that do not count
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub warmup: u64,
    /// Prompt length of text, poisson and adapters, and of what prompts share in prefix
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub prompt_tokens: u32,
    /// Longest answer; free text is exactly as long where the server takes `ignore_eos`
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_tokens: u32,
    /// Arrivals a second in poisson
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<f64>,
    /// Models to spread requests over in adapters; default: those of --adapter
    #[arg(long = "adapters", value_name = "NAME", value_delimiter = ',')]
    pub adapter_names: Vec<String>,
    /// Tools for call and schema: a JSON list, or one object with `tools` (and `question`) a line
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// Prompts of call and schema begin alike for the same tools, as those of one application do, so that caches of prompts
    /// can help (give each of the tools a --warmup request); without it each begins with words of its own
    #[arg(long)]
    pub known_tools: bool,
    /// Of prompts, arrivals and sampling
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Write everything that was measured there; - = standard output, in place of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(
        flatten,
        next_help_heading = "Server options (with --url, --served-model-name and --api-key are what is sent)"
    )]
    pub serve: ServeArgs,
}

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Free text after random words
    Text,
    /// A function call (tool_choice: required)
    Call,
    /// An answer in JSON (response_format: json_schema)
    Schema,
    /// Free text after a long beginning that all prompts share
    Prefix,
    /// Free text from several models in turn, and from the base alone
    Adapters,
    /// Free text at --rate, whether the server keeps up or not; latencies count from the intended arrival
    Poisson,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("must be a positive number of requests a second".to_owned()),
    }
}

/// Writes a model directory with random weights. The defaults are the shape that is used for comparisons.
#[derive(Debug, Clone, Args)]
pub struct MakeModelArgs {
    /// Directory to write; must not be there, or be empty
    pub dir: PathBuf,
    /// Directory whose tokenizer files are copied (tokenizer.json, tokenizer_config.json, …)
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    #[arg(long, value_enum, default_value_t = FamilyName::Llama)]
    pub family: FamilyName,
    /// Width of the hidden states
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = size())]
    pub hidden: u32,
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = size())]
    pub layers: u32,
    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = size())]
    pub heads: u32,
    /// Key and value heads
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = size())]
    pub kv_heads: u32,
    /// Width of a head; default: hidden / heads
    #[arg(long, value_name = "N", value_parser = size())]
    pub head_dim: Option<u32>,
    /// Width of the MLP
    #[arg(long, value_name = "N", default_value_t = 2816, value_parser = size())]
    pub intermediate: u32,
    /// Longest context in tokens
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = size())]
    pub context: u32,
    /// Give the output a matrix of its own; default: that of the embedding
    #[arg(long)]
    pub untied: bool,
    /// Type of the weights in the file
    #[arg(long, value_enum, default_value_t = DtypeName::Bf16)]
    pub dtype: DtypeName,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also write so many random adapters on all linear layers: DIR/adapters/a1, …
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub adapters: u32,
    /// Rank of the adapters
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub rank: u32,
    /// Also write the model as a GGUF file, so that other servers can be measured on the same weights
    #[arg(long, value_name = "FILE")]
    pub gguf: Option<PathBuf>,
    /// How the matrices of that file are stored
    #[arg(long, value_enum, default_value_t = EncodingName::Q8, requires = "gguf")]
    pub gguf_encoding: EncodingName,
}

/// Encodings of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncodingName {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_k")]
    Q4,
}

/// Architectures that differ in details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FamilyName {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

fn size() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1 << 20)
}

/// Each line's tools become the grammar of a required call, and a call is written token by token: the answer of BFCL where one lies
/// beside the file (`possible_answer/`), else a random one.
#[derive(Debug, Clone, Args)]
pub struct MasksArgs {
    /// Model directory, for its tokenizer and chat template
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// JSON lines with `tools` (or BFCL's `function`), several files allowed; default: the built-in tools
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub tools: Vec<PathBuf>,
    /// How the model writes calls; default: seen from its chat template
    #[arg(long, value_name = "NAME")]
    pub dialect: Option<String>,
    /// Of random calls
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Show so many of the slowest masks and where they stand
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub slowest: usize,
    /// Write everything that was measured there; - = standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
