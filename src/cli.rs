//! The command line as it is typed; [`crate::settings`] says what it means.

mod bench;
mod chat;

pub use bench::{BenchCommand, BenchRunArgs, EncodingName, FamilyName, MakeModelArgs, MasksArgs, Scenario};
pub use chat::ChatArgs;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Serve a function-calling model whose calls always fit their schema, and teach it new functions.
///
/// Without a command: serve the model that is built in.
#[derive(Debug, Parser)]
#[command(name = "callsmith", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Subcommands>,
    /// `callsmith` alone takes the options of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Subcommands {
    /// Serve a model over HTTP (OpenAI's chat completions)
    Serve(Box<ServeArgs>),
    /// Talk to a model in the terminal, and see and answer its calls
    Chat(Box<ChatArgs>),
    /// Look at the grammar of a turn: what it is, what it accepts, what it may produce
    #[command(subcommand)]
    Grammar(GrammarCommand),
    /// Measure a server, make models to measure with, measure token masks
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Train an adapter (`train lora RECIPE`), a soft prompt (`train prompt`) or all weights (`train full`) (runs callsmith-train)
    #[command(disable_help_flag = true)]
    Train(TrainerArgs),
    /// Prepare training data (runs callsmith-train)
    #[command(disable_help_flag = true)]
    Data(TrainerArgs),
    /// Measure models: ViGGO, the Berkeley leaderboard, dialogues (runs callsmith-train)
    #[command(disable_help_flag = true)]
    Eval(TrainerArgs),
    /// Write a run's newest checkpoint as a model or adapter directory (runs callsmith-train)
    #[command(disable_help_flag = true)]
    Export(TrainerArgs),
    /// Merge adapters into the weights of their base (runs callsmith-train)
    #[command(disable_help_flag = true)]
    Merge(TrainerArgs),
    /// Convert checkpoints: Meta, Hugging Face, GGUF, DeepSpeed ZeRO (runs callsmith-train)
    #[command(disable_help_flag = true)]
    Convert(TrainerArgs),
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum GrammarCommand {
    /// Print the grammar that the server would enforce
    Explain(TurnArgs),
    /// Judge the text on standard input: exit 0 if it is a complete turn, 1 if it is not
    Accepts(AcceptsArgs),
    /// Print random turns that the grammar accepts
    Sample(SampleArgs),
}

/// A turn, as a request describes it.
#[derive(Debug, Clone, Default, Args)]
pub struct TurnArgs {
    /// JSON file: a list of OpenAI tools, or of bare functions
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// Which calls: auto, required, none, or a function's name
    #[arg(long, value_name = "CHOICE")]
    pub choice: Option<String>,
    /// At most one call in a turn
    #[arg(long)]
    pub no_parallel_tool_calls: bool,
    /// JSON file: OpenAI's `response_format`
    #[arg(long, value_name = "FILE")]
    pub response_format: Option<PathBuf>,
    /// How the model writes calls; default: seen from the chat template of --model, else tool_uses
    #[arg(long, value_name = "NAME")]
    pub dialect: Option<String>,
    /// Directory of further dialects, one *.toml each
    #[arg(long, value_name = "DIR", env = "CALLSMITH_DIALECT_DIR")]
    pub dialect_dir: Option<PathBuf>,
    /// Model directory or GGUF file, for its chat template (needs no weights)
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct AcceptsArgs {
    #[command(flatten)]
    pub turn: TurnArgs,
    /// Read one {"tools", "choice", "text"} a line and print one {"accepted", "at", "error"} a line
    #[arg(long)]
    pub jsonl: bool,
}

#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    #[command(flatten)]
    pub turn: TurnArgs,
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Longest turn
    #[arg(long, default_value_t = 2000)]
    pub max_bytes: usize,
    /// One object a line: the text, and what a client would get of it
    #[arg(long)]
    pub jsonl: bool,
}

/// Passed on as typed.
#[derive(Debug, Args)]
pub struct TrainerArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<OsString>,
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Model directory (config.json, tokenizer.json, *.safetensors) or GGUF file; default: the model that is built in
    #[arg(long, value_name = "PATH", env = "CALLSMITH_MODEL")]
    pub model: Option<PathBuf>,
    /// The base model's name in requests; default: the directory's or file's name
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Load this PEFT directory under this name at start (may be given several times)
    #[arg(long = "adapter", value_name = "NAME=DIR", value_parser = named_dir)]
    pub adapters: Vec<(String, PathBuf)>,
    /// Allow loading and unloading adapters over HTTP, from inside this directory alone
    #[arg(long, value_name = "DIR", env = "CALLSMITH_ADAPTER_ROOT")]
    pub adapter_root: Option<PathBuf>,
    /// Let adapters below --adapter-root bring chat templates of their own; those of --adapter always may
    #[arg(long, requires = "adapter_root", env = "CALLSMITH_ADAPTER_TEMPLATES")]
    pub adapter_templates: bool,
    /// Most memory that loaded adapters may take
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub adapter_budget_mib: u64,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 = any free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// How the model writes calls (tool_uses, hermes, llama3, mistral, mistral_args, llama_functions, viggo, or one of
    /// --dialect-dir); default: seen from its chat template
    #[arg(long, value_name = "NAME")]
    pub dialect: Option<String>,
    /// Directory of further dialects, one *.toml each (grammars/README.md says how to write one)
    #[arg(long, value_name = "DIR", env = "CALLSMITH_DIALECT_DIR")]
    pub dialect_dir: Option<PathBuf>,
    /// Thoughts before an answer, for models that think aloud; they come back as `reasoning_content`
    #[arg(long, value_enum, default_value_t = ReasoningName::Auto)]
    pub reasoning: ReasoningName,
    /// Keys that inference needs (Authorization: Bearer KEY); several times, or comma-separated. Others can read a command
    /// line: prefer the variable or the file
    #[arg(
        long = "api-key",
        value_name = "KEY",
        env = "CALLSMITH_API_KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub api_keys: Vec<String>,
    /// File of further such keys, one a line
    #[arg(long, value_name = "FILE", env = "CALLSMITH_API_KEY_FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Keys that changing adapters needs; they open everything else too
    #[arg(
        long = "admin-key",
        value_name = "KEY",
        env = "CALLSMITH_ADMIN_KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub admin_keys: Vec<String>,
    /// File of further such keys, one a line
    #[arg(long, value_name = "FILE", env = "CALLSMITH_ADMIN_KEY_FILE")]
    pub admin_key_file: Option<PathBuf>,
    /// Most requests under way with one API key; more get a 429
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_requests_per_key: Option<u32>,
    /// /metrics needs a key too
    #[arg(long)]
    pub protect_metrics: bool,
    /// Origin of web pages that may call this server (may be given several times)
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    pub cors_origins: Vec<String>,
    /// Look for changed adapter files below --adapter-root this often; 0 = never
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub adapter_poll_seconds: u64,
    /// Most sequences that run together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_batch: u32,
    /// Most requests that wait for a place
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_queue: u32,
    /// Compute every prompt from its start, even what it has in common with earlier ones
    #[arg(long)]
    pub no_prefix_cache: bool,
    /// Memory for keys and values; default: full contexts for the whole batch, at most 1024
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub kv_cache_mib: Option<u64>,
    /// Type of the weights in memory that are not quantised
    #[arg(long, value_enum, default_value_t = DtypeName::F32)]
    pub dtype: DtypeName,
    /// Make the weights smaller and faster while they are loaded (on the CPU); what a file holds quantised stays so
    #[arg(long, value_enum, default_value_t = QuantizeName::None)]
    pub quantize: QuantizeName,
    /// Type of keys and values in memory; auto: f32 beside weights in f32, else f16
    #[arg(long, value_enum, default_value_t = KvTypeName::Auto)]
    pub kv_cache_dtype: KvTypeName,
    /// Threads that compute; default: one for each processor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Longest time that a request may wait for its turn; then it gets a 503
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub queue_timeout_seconds: u64,
    /// Longest time that a request may take altogether; then it gets a 504, a stream an error event
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub request_timeout_seconds: u64,
    /// Longest time between two tokens; then the same
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub silence_timeout_seconds: u64,
    /// Longest time that running requests get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub drain_seconds: u64,
    /// Send traces there (OTLP over HTTP, for example http://127.0.0.1:4318); needs a build with --features otel
    #[arg(long, value_name = "URL")]
    #[cfg_attr(feature = "otel", arg(env = "OTEL_EXPORTER_OTLP_ENDPOINT"))]
    pub otlp_endpoint: Option<String>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormatName::Text)]
    pub log_format: LogFormatName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeName {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantizeName {
    None,
    /// 8 bits, and a scale for every 32 weights.
    #[value(name = "q8_0")]
    Q8,
    /// 4 bits, and two scales for every 32 weights; embedding and head 8 bits.
    #[value(name = "q4_k")]
    Q4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvTypeName {
    Auto,
    F32,
    F16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasoningName {
    /// If the chat template knows `<think>`.
    Auto,
    /// Never, as far as the chat template can be told so.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatName {
    Text,
    Json,
}

fn named_dir(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => Ok((name.to_owned(), PathBuf::from(dir))),
        _ => Err("expected NAME=DIR".to_owned()),
    }
}

impl Subcommands {
    /// The trainer's arguments, if this is a command of its own. The methods (`lora`, `full`) are commands of the trainer itself.
    pub fn trainer(&self) -> Option<Vec<OsString>> {
        let (command, rest) = match self {
            Self::Serve(_) | Self::Chat(_) | Self::Grammar(_) | Self::Bench(_) => return None,
            Self::Train(trainer) => (None, &trainer.args),
            Self::Data(trainer) => (Some("data"), &trainer.args),
            Self::Eval(trainer) => (Some("eval"), &trainer.args),
            Self::Export(trainer) => (Some("export"), &trainer.args),
            Self::Merge(trainer) => (Some("merge"), &trainer.args),
            Self::Convert(trainer) => (Some("convert"), &trainer.args),
        };
        Some(command.into_iter().map(OsString::from).chain(rest.iter().cloned()).collect())
    }
}

/// Why `callsmith-train` could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    #[error("{path} is not there; build it with `cargo build --release -p callsmith-train`")]
    Absent { path: String },
    #[error("cannot run {path}: {source}")]
    Start { path: String, source: std::io::Error },
}

/// Becomes `callsmith-train` (found beside this binary): signals and exit code are its own. Returns only on failure.
pub fn become_trainer(args: &[OsString]) -> TrainerError {
    let path = std::env::current_exe().unwrap_or_default().with_file_name("callsmith-train");
    trainer_error(&path, || Command::new(&path).args(args).exec())
}

fn trainer_error(path: &Path, run: impl FnOnce() -> std::io::Error) -> TrainerError {
    let text = path.display().to_string();
    if !path.is_file() {
        return TrainerError::Absent { path: text };
    }
    TrainerError::Start { path: text, source: run() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_trainer_pass_through_untouched() {
        let passed = |args: &[&str]| {
            let cli = Cli::try_parse_from([&["callsmith"], args].concat()).unwrap();
            cli.command.unwrap().trainer().unwrap()
        };
        assert_eq!(passed(&["train", "lora", "r.toml", "--help", "-x"]), ["lora", "r.toml", "--help", "-x"]);
        assert_eq!(passed(&["data", "synth", "--count", "3"]), ["data", "synth", "--count", "3"]);
        assert_eq!(passed(&["merge", "--base", "m"]), ["merge", "--base", "m"]);
        assert_eq!(passed(&["convert", "hf-to-gguf", "--help"]), ["convert", "hf-to-gguf", "--help"]);
    }

    #[test]
    fn an_adapter_needs_a_name_and_a_directory() {
        for wrong in ["weather", "=dir", "name="] {
            assert!(Cli::try_parse_from(["callsmith", "serve", "--adapter", wrong]).is_err(), "{wrong}");
        }
        let cli = Cli::try_parse_from(["callsmith", "serve", "--adapter", "a=b=c"]).unwrap();
        let Some(Subcommands::Serve(args)) = cli.command else { panic!("not serve") };
        assert_eq!(args.adapters, [("a".to_owned(), PathBuf::from("b=c"))]);
    }

    #[test]
    fn an_absent_trainer_is_answered_with_how_to_build_it() {
        let error = trainer_error(Path::new("/nowhere/callsmith-train"), || unreachable!("not started"));
        assert!(error.to_string().contains("cargo build --release -p callsmith-train"), "{error}");
    }
}
