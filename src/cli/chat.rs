//! The command line of `callsmith chat`.

use super::ServeArgs;
use clap::Args;
use clap::builder::Resettable;
use std::path::PathBuf;

/// `--url` names a running server; without it one is started with the options of `callsmith serve`, for this chat alone.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("model", |arg| arg.env(Resettable::Reset).conflicts_with("url")),
    mut_arg("port", |arg| arg.default_value("0")),
    mut_arg("host", |arg| arg.hide(true)),
)]
pub struct ChatArgs {
    /// Server to talk to, for example http://127.0.0.1:8080; without it our own is started with the server options below
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Which of the server's models answers; default: the first --adapter, else the first that the server lists
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// JSON file: a list of OpenAI tools, or of bare functions
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// Command that answers the calls of a function (may be given several times): it gets the arguments as JSON on standard
    /// input, and what it writes is the result. Results of other functions are typed
    #[arg(long = "run", value_name = "NAME=COMMAND", value_parser = named_command, requires = "tools")]
    pub runs: Vec<(String, String)>,
    /// Longest time that such a command may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub run_timeout_seconds: u64,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Longest answer; default: as the server has it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_tokens: Option<u32>,
    /// Default: as the server has it
    #[arg(long)]
    pub temperature: Option<f32>,
    #[command(flatten, next_help_heading = "Server options (with --url, --api-key is what is sent)")]
    pub serve: ServeArgs,
}

fn named_command(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => Ok((name.to_owned(), command.to_owned())),
        _ => Err("expected NAME=COMMAND".to_owned()),
    }
}
