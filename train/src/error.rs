//! What can go wrong in training, data preparation, evaluation and export. Every message names the place and the remedy.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Why a command of the trainer stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe is not valid TOML, or has an unknown or missing key.
    #[error("recipe {path}: {message}")]
    Recipe { path: String, message: String },
    /// A recipe field has a value that cannot work.
    #[error("recipe field `{field}`: {message}")]
    Field { field: String, message: String },
    /// A sample cannot be used.
    #[error("data: {0}")]
    Data(String),
    /// A trainable tensor is not reached by the loss.
    #[error(
        "step 0: tensor `{tensor}` received no gradient ({reason}); nothing was trained. The decoder cuts its gradient"
    )]
    NoGradient { tensor: String, reason: &'static str },
    /// The loss or its gradient stayed non-finite.
    #[error(
        "loss or gradient was not finite in {0} steps in a row; lower optim.lr, raise optim.warmup_steps or lower optim.clip, then --resume --allow-changed-recipe"
    )]
    Diverged(usize),
    /// A checkpoint or output directory cannot be used.
    #[error("{path}: {message}")]
    Output { path: String, message: String },
    /// A file or directory that was given cannot be used.
    #[error("{path}: {message}")]
    Input { path: String, message: String },
    /// Another training or evaluation holds the output directory.
    #[error("{path} is in use by another process of the trainer (pid {pid}); wait for it or name another directory")]
    Locked { path: String, pid: String },
    /// The processes that train together cannot.
    #[error("ranks: {0}")]
    Ranks(String),
    /// Work was broken off because a stop was asked for.
    #[error("stopped on request")]
    Stopped,
    /// Another of the processes that train together failed; the message names it.
    #[error("{0}")]
    Elsewhere(String),
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error(transparent)]
    Chat(#[from] callsmith::chat::ChatError),
    #[error(transparent)]
    Model(#[from] callsmith::model::ModelError),
    #[error(transparent)]
    Adapter(#[from] callsmith::adapter::AdapterError),
    #[error(transparent)]
    Grammar(#[from] callsmith::grammar::GrammarError),
    #[error(transparent)]
    Engine(#[from] callsmith::engine::EngineError),
    #[error("tensor library: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The data engine (generator, importers, tokenizer training) failed.
    #[error(transparent)]
    DataEngine(#[from] crate::data::DataError),
}

impl TrainError {
    /// A recipe field with a value that cannot work.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { field: field.into(), message: message.into() }
    }

    /// An output directory or checkpoint that cannot be used.
    pub fn output(path: &Path, message: impl Into<String>) -> Self {
        Self::Output { path: path.display().to_string(), message: message.into() }
    }

    /// A file or directory that was given and cannot be used.
    pub fn input(path: &Path, message: impl Into<String>) -> Self {
        Self::Input { path: path.display().to_string(), message: message.into() }
    }

    /// Wraps an input/output error with its path; for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into().display().to_string();
        move |source| Self::Io { path, source }
    }

    /// The same error where its path is inside `from`, which others know as `to`.
    pub fn at(mut self, from: &Path, to: &Path) -> Self {
        if let Self::Io { path, .. } | Self::Output { path, .. } = &mut self
            && let Ok(rest) = Path::new(path.as_str()).strip_prefix(from)
        {
            *path = to.join(rest).display().to_string();
        }
        self
    }

    /// What the user can do where the file system has refused something.
    pub fn remedy(&self) -> Option<&'static str> {
        let causes = std::iter::successors(Some(self as &(dyn Error + 'static)), |&error| error.source());
        let refused = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).next()?;
        match refused.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Some("free space there or name another directory; a training run then goes on with --resume")
            }
            ErrorKind::FileTooLarge => {
                Some("raise the limit of file sizes (ulimit -f); a training run then goes on with --resume")
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Some("make it writable for this user or name another directory")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callsmith::adapter::AdapterError;

    #[test]
    fn what_a_file_system_refuses_has_a_remedy_however_deep_it_lies() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let adapter = TrainError::Adapter(AdapterError::Io { path: "model".into(), source: full() });
        assert!(adapter.remedy().unwrap().contains("--resume"));
        assert!(TrainError::io("a")(full()).remedy().is_some());
        assert_eq!(TrainError::io("a")(ErrorKind::NotFound.into()).remedy(), None);
        assert_eq!(TrainError::Diverged(3).remedy(), None);
    }
}
