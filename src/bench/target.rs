//! The server that is measured: one that runs elsewhere, or our own, started in this process and driven over HTTP just the same.

use super::BenchError;
use crate::cli::ServeArgs;
use crate::client::{Client, Proxy};
use crate::serve::Background;
use crate::settings::Settings;
use std::collections::HashMap;

/// A server to send requests to. Ours ends with it.
pub(super) struct Target {
    pub(super) url: String,
    /// What was loaded, when it is ours.
    pub(super) loaded: Option<String>,
    /// Its adapters, when it is ours.
    pub(super) adapters: Vec<String>,
    key: Option<String>,
    /// Ends with this.
    _own: Option<Background>,
}

impl Target {
    /// The server at `url`, or a new one.
    pub(super) fn of(url: Option<&str>, args: &ServeArgs) -> Result<Self, BenchError> {
        let key = args.api_keys.first().cloned();
        match url {
            Some(url) => Ok(Self { url: url.to_owned(), loaded: None, adapters: Vec::new(), key, _own: None }),
            None => Self::start(Settings::from_args(args.clone())?),
        }
    }

    fn start(settings: Settings) -> Result<Self, BenchError> {
        let adapters = settings.adapters.iter().map(|(name, _)| name.clone()).collect();
        let key = settings.keys.inference.first().cloned();
        let own = Background::start(settings)?;
        Ok(Self { url: own.url.clone(), loaded: Some(own.summary.clone()), adapters, key, _own: Some(own) })
    }

    pub(super) fn client(&self) -> Result<Client, BenchError> {
        let client = Client::new(&self.url, self.key.as_deref(), Proxy::Never);
        client.map_err(|failure| BenchError::Usage(format!("{}: {failure}", self.url)))
    }
}

/// Counters of forced and generated tokens, from a server that has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenCounters {
    forced: f64,
    generated: f64,
}

impl TokenCounters {
    pub(super) async fn read(client: &Client) -> Option<Self> {
        Self::parse(&client.get("/metrics").await.ok()?.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let values: HashMap<&str, &str> = lines.collect();
        let value = |name: &str| values.get(name)?.parse().ok();
        Some(Self {
            forced: value("callsmith_forced_tokens_total")?,
            generated: value("callsmith_generated_tokens_total")?,
        })
    }

    /// The share of forced tokens among those generated since `before`.
    pub(super) fn share_since(self, before: Self) -> Option<f64> {
        super::stats::ratio(self.forced - before.forced, self.generated - before.generated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forced_share_is_that_of_the_time_between() {
        let text = |forced: u32, generated: u32| {
            format!(
                "# HELP x y\ncallsmith_forced_tokens_total {forced}\ncallsmith_generated_tokens_total {generated}\n"
            )
        };
        let (before, after) =
            (TokenCounters::parse(&text(10, 100)).unwrap(), TokenCounters::parse(&text(35, 150)).unwrap());
        assert_eq!(after.share_since(before), Some(0.5));
        assert_eq!(after.share_since(after), None);
        assert_eq!(TokenCounters::parse("vllm:prompt_tokens_total 3\n"), None);
    }
}
