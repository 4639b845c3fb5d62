//! `callsmith bench`: measures servers over HTTP as their users see them, and makes what is needed for that.
//!
//! Stands on top of everything else, like the command line; nothing uses it.

mod answer;
mod cases;
mod client;
mod load;
mod make_model;
mod masks;
mod measured;
mod random_weights;
mod report;
mod run;
mod sse;
mod stats;
mod table;
mod target;
mod words;
mod workload;

pub(crate) use sse::Events;

use crate::adapter::AdapterError;
use crate::chat::ChatError;
use crate::cli::BenchCommand;
use crate::client::Failure;
use crate::grammar::GrammarError;
use crate::model::ModelError;
use crate::serve::ServeError;
use crate::settings::SettingsError;
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Why a benchmark cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error("cannot start a runtime: {0}")]
    Runtime(std::io::Error),
    #[error("{url}: {failure}")]
    Server { url: String, failure: Failure },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
}

impl BenchError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }

    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Settings(_) | Self::Usage(_)) { 2 } else { 1 }
    }
}

/// Runs the command; false when nothing was answered.
///
/// # Errors
/// Wrong usage, a server that cannot be started or reached, files that cannot be read or written.
pub fn run(command: BenchCommand) -> Result<bool, BenchError> {
    match command {
        BenchCommand::Run(args) => run::run(&args),
        BenchCommand::Masks(args) => masks::run(&args),
        BenchCommand::MakeModel(args) => make_model::run(&args).map(|()| true),
    }
}

/// Writes a report: JSON to the given file, and the text to standard output unless the JSON goes there.
fn publish(json: Option<&Path>, report: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), BenchError> {
    let Some(path) = json else {
        print(&text());
        return Ok(());
    };
    let json = serde_json::to_string_pretty(report).map_err(std::io::Error::other).map_err(BenchError::io(path))?;
    if path.as_os_str() == "-" {
        print(&format!("{json}\n"));
        return Ok(());
    }
    std::fs::write(path, json + "\n").map_err(BenchError::io(path))?;
    print(&text());
    Ok(())
}

/// Whoever has read enough has closed the pipe.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn tell(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
