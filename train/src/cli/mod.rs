//! The command line: what was typed, which function does it, which exit code it gives.

mod check;
mod convert;
mod data;
mod download;
mod eval;
mod import;

use self::convert::{ConvertCommand, MergeArgs};
use self::data::DataCommand;
use self::download::DownloadArgs;
use self::eval::EvalCommand;
use crate::error::{Result, TrainError};
use crate::export::{self, Precision};
use crate::monitor::{self, Display};
use crate::ranks::{self, Place, Ranks};
use crate::recipe::{Method, Recipe};
use crate::run::{self, RunOptions};
use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Trains adapters and models for function calling, and measures them.
#[derive(Parser)]
#[command(name = "callsmith-train", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train all weights as a recipe says.
    Full(TrainArgs),
    /// Train a LoRA adapter as a recipe says.
    Lora(TrainArgs),
    /// Train a soft prompt as a recipe says.
    Prompt(TrainArgs),
    /// Make data and tokenizers.
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure function calling: ViGGO, the Berkeley leaderboard, or dialogues.
    #[command(subcommand)]
    Eval(Box<EvalCommand>),
    /// Rebuild report.html of a run from its log.
    Report {
        /// Output directory of the run.
        run: PathBuf,
    },
    /// Write the newest checkpoint of a run as a model or adapter directory.
    Export(ExportArgs),
    /// Merge LoRA adapters into the weights of their base.
    Merge(MergeArgs),
    /// Convert checkpoints: Meta, Hugging Face, GGUF, DeepSpeed ZeRO.
    #[command(subcommand)]
    Convert(ConvertCommand),
}

#[derive(Args)]
struct TrainArgs {
    recipe: PathBuf,
    /// Continue from the newest whole checkpoint in the output directory.
    #[arg(long)]
    resume: bool,
    /// Continue although the recipe has changed since the checkpoint.
    #[arg(long, requires = "resume")]
    allow_changed_recipe: bool,
    /// Lines instead of the live view, also on a terminal.
    #[arg(long)]
    plain: bool,
    /// Replace a value of the recipe, for example --set optim.lr=0.001 (may be repeated).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    download: DownloadArgs,
}

#[derive(Args)]
struct ExportArgs {
    /// Output directory of a run.
    #[arg(long)]
    run: PathBuf,
    #[arg(long)]
    out: PathBuf,
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Precision,
}

/// Parses the arguments and runs them: 0 done (also when stopped on request), 1 failed, 2 wrong usage, 130 ended by a
/// second signal.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    match survive_limits().and_then(|()| dispatch(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            monitor::note(&format!("error: {}", with_remedy(&error)));
            ExitCode::FAILURE
        }
    }
}

/// A file that grows beyond the limit (`ulimit -f`) is an error of the write, and no signal that ends the process.
fn survive_limits() -> Result<()> {
    let unread = Arc::new(AtomicBool::new(false));
    let registered = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unread);
    registered.map(drop).map_err(TrainError::io("(signal handler)"))
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Full(args) => train(Method::Full, &args),
        Command::Lora(args) => train(Method::Lora, &args),
        Command::Prompt(args) => train(Method::Prompt, &args),
        Command::Data(command) => data::run(command),
        Command::Eval(command) => eval::run(&command),
        Command::Report { run } => {
            let path = monitor::report::write(&run)?;
            monitor::note(&format!("report: {}", path.display()));
            Ok(())
        }
        Command::Export(args) => export::from_run(&args.run, &args.out, args.dtype),
        Command::Merge(args) => convert::merge(&args),
        Command::Convert(command) => convert::convert(&command),
    }
}

fn train(method: Method, args: &TrainArgs) -> Result<()> {
    let recipe = recipe(method, args);
    if let Ok(recipe) = &recipe {
        limit_threads(recipe.threads)?;
    }
    // A wrong recipe is an error like any other: several ranks tell it once.
    let ranks = ranks::join()?;
    let outcome = recipe.and_then(|recipe| train_among(&ranks, &with_local_files(recipe, &ranks, args)?, args));
    outcome.inspect_err(|error| end_all(ranks.as_ref(), error))
}

fn recipe(method: Method, args: &TrainArgs) -> Result<Recipe> {
    let recipe = Recipe::load(&args.recipe, &args.sets)?;
    if recipe.method != method {
        let message = format!("is {:?}, but the command is {method:?}; use the other command", recipe.method);
        return Err(TrainError::field("method", message.to_lowercase()));
    }
    Ok(recipe)
}

/// Files that are named by URL are downloaded by the first rank; the others then find them where they can see its files.
fn with_local_files(recipe: Recipe, ranks: &Rc<dyn Ranks>, args: &TrainArgs) -> Result<Recipe> {
    let downloads = args.download.downloads();
    let local = |recipe: Recipe| recipe.with_files(|file| downloads.file(file));
    let first = ranks.place().is_first().then(|| local(recipe.clone())).transpose()?;
    ranks.meet()?;
    first.map_or_else(|| local(recipe), Ok)
}

fn train_among(ranks: &Rc<dyn Ranks>, recipe: &Recipe, args: &TrainArgs) -> Result<()> {
    let display = if args.plain { Display::Plain } else { Display::Auto };
    let options = RunOptions { resume: args.resume, allow_changed_recipe: args.allow_changed_recipe, display };
    run::train_among(ranks, recipe, options, &stop_on_signal()?).map(drop)
}

fn with_remedy(error: &TrainError) -> String {
    error.remedy().map_or_else(|| error.to_string(), |remedy| format!("{error}; {remedy}"))
}

/// An error on one of several ranks ends them all. The first one says it, wherever it was.
fn end_all(ranks: &dyn Ranks, error: &TrainError) {
    let Place { rank, size } = ranks.place();
    if size > 1 {
        let text = match error {
            TrainError::Elsewhere(text) => text.clone(),
            error => format!("error on rank {rank} of {size}: {}", with_remedy(error)),
        };
        ranks.report(&text);
        monitor::note(&text);
        ranks.abort();
    }
}

/// The tensor library reads its numbers of threads from the environment alone, so the process starts over with them set.
///
/// Its own pool for elementwise operations spins while it waits, which costs more than a second thread brings beside the
/// matrix products (measured: 2,141 → 2,597 tokens/s on two cores), so that pool gets one thread.
fn limit_threads(threads: Option<usize>) -> Result<()> {
    const ELEMENTWISE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(ELEMENTWISE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(TrainError::io("(this program)"))?;
    let mut command = std::process::Command::new(&program);
    command.args(std::env::args_os().skip(1)).env(ELEMENTWISE, "1");
    if let Some(threads) = threads {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    Err(TrainError::io(program)(command.exec()))
}

/// The first SIGINT or SIGTERM asks for a stop after the running step, the second ends the process. SIGUSR1 asks too: it
/// is what `mpirun` hands on to its ranks at once, where SIGTERM makes it end them.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let wrong = || TrainError::io("(signal handler)");
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, stop.clone()).map_err(wrong())?;
    }
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        flag::register(signal, stop.clone()).map_err(wrong())?;
    }
    Ok(stop)
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
    fn a_recipe_of_the_other_method_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "method = \"full\"\noutput = \"x\"\n[model]\npath = \"m\"\n[optim]\nlr = 0.1\n[batch]\ntokens = 64\nmax_len = 32\n\
             [[phase]]\nsteps = 1\nsource = [{ jsonl = \"a\" }]",
        )
        .unwrap();
        let typed = ["callsmith-train".as_ref(), "lora".as_ref(), file.path().as_os_str()];
        let Command::Lora(args) = Cli::parse_from(typed).command else { panic!("not lora") };
        assert!(train(Method::Lora, &args).unwrap_err().to_string().contains("method"));
    }
}
