//! The `callsmith` binary: parse, resolve, start, and turn failures into exit codes (0 done, 1 failed, 2 wrong usage, 70 the engine
//! has stopped).

use callsmith::cli::{Cli, ServeArgs, Subcommands, become_trainer};
use callsmith::serve::ServeError;
use callsmith::settings::Settings;
use callsmith::{bench, inspect, serve, talk, telemetry, visible};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    let cli = Cli::parse();
    match cli.command {
        Some(Subcommands::Serve(args)) => run_server(*args),
        Some(Subcommands::Chat(args)) => match talk::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.exit_code(), &error.into()),
        },
        Some(Subcommands::Grammar(command)) => match inspect::run(&command) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(1, &error),
        },
        Some(Subcommands::Bench(command)) => match bench::run(command) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(error.exit_code(), &error.into()),
        },
        None => run_server(cli.serve),
        Some(other) => match other.trainer() {
            Some(args) => fail(1, &become_trainer(&args).into()),
            None => ExitCode::from(2),
        },
    }
}

fn run_server(args: ServeArgs) -> ExitCode {
    let settings = match Settings::from_args(args) {
        Ok(settings) => settings,
        Err(error) => return fail(2, &error.into()),
    };
    // Sends what is left of the traces when it goes.
    let _guard = telemetry::start(&settings.telemetry);
    match serve_until_drained(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(ServeError::EngineStopped)) => fail(70, &error),
        Err(error) => fail(1, &error),
    }
}

fn serve_until_drained(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve::run(settings));
    // Work that was cut off (a tokenisation, a load) must not hold the exit up.
    runtime.shutdown_background();
    Ok(outcome?)
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    // It may be in the words of a server.
    let _ = writeln!(std::io::stderr(), "callsmith: {}", visible::text(&format!("{error:#}")));
    ExitCode::from(code)
}
