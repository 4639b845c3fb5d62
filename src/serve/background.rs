//! Our own server in this process, on threads of its own, for commands that talk to it over HTTP like to any other.

use super::{Loaded, ServeError};
use crate::settings::Settings;
use tokio::runtime::{Builder, Runtime};

/// Answers until it is dropped.
pub(crate) struct Background {
    pub(crate) url: String,
    /// A line that says what was loaded.
    pub(crate) summary: String,
    /// Apart from the client's, so that neither waits for the other's tasks.
    runtime: Option<Runtime>,
}

impl Background {
    pub(crate) fn start(settings: Settings) -> Result<Self, ServeError> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let server = runtime.block_on(Loaded::new(settings))?;
        let (url, summary) = (format!("http://{}", server.address), server.summary.clone());
        runtime.spawn(server.accept());
        Ok(Self { url, summary, runtime: Some(runtime) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // What is still under way must not hold the exit up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
