//! Which models take part in an evaluation: what ships with the program or others, alone and with adapters, with the grammar and without,
//! or those behind a URL. Each is loaded only while it is measured.

use crate::error::{Result, TrainError};
use crate::eval::answerer::local::{Adapter, Model};
use crate::eval::answerer::remote::Remote;
use crate::eval::kept::{self, Kept};
use crate::eval::{Contender, Outcome, Task, measure};
use crate::recipe::DeviceKind;
use crate::trainable;
use callsmith::chat::dialect::DialectChoice;
use callsmith::embedded;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct ContestArgs {
    /// Model directory or GGUF file; the model that ships with the program when absent, with the adapter that ships for the
    /// task. May be repeated.
    #[arg(long = "model", value_name = "DIR", conflicts_with = "url")]
    models: Vec<PathBuf>,
    /// PEFT adapter directory, on the first model. May be repeated.
    #[arg(long = "adapter", value_name = "DIR", conflicts_with = "url")]
    adapters: Vec<PathBuf>,
    /// Measure each model also without its adapters, and without the grammar.
    #[arg(long, conflicts_with_all = ["url", "unconstrained"])]
    compare: bool,
    /// Decode without the grammar.
    #[arg(long, visible_alias = "free", conflicts_with = "url")]
    unconstrained: bool,
    /// Ask an OpenAI-compatible server instead.
    #[arg(long, requires = "served_models")]
    url: Option<String>,
    /// What the server calls the model. May be repeated.
    #[arg(long = "served-model", value_name = "NAME", requires = "url")]
    served_models: Vec<String>,
    /// The key that the server wants; of several, separated by commas, the first is sent.
    #[arg(
        long = "api-key",
        env = "CALLSMITH_API_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "KEY"
    )]
    api_keys: Vec<String>,
    /// Requests that are under way at a server at once.
    #[arg(long, value_name = "N", default_value = "16")]
    in_flight: NonZeroUsize,
    /// Longest answer.
    #[arg(long, value_name = "TOKENS", default_value = "256")]
    max_tokens: NonZeroUsize,
    /// How the model writes calls; default: seen from its chat template.
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
    /// Directory of further dialects.
    #[arg(long, value_name = "DIR", env = "CALLSMITH_DIALECT_DIR")]
    dialect_dir: Option<PathBuf>,
    /// Run on the GPU.
    #[arg(long)]
    cuda: bool,
}

/// A model alone or with an adapter, under its name.
type Entry<'a> = (String, Option<Adapter<'a>>);

impl ContestArgs {
    /// Measures all that take part, one after the other; answers are kept in `out`.
    pub(super) fn measure(&self, task: &dyn Task, out: Option<&Path>) -> Result<Vec<Outcome>> {
        self.check_names(task.shipped_adapter())?;
        let mut outcomes = Vec::new();
        let mut enter = |contender: Contender| -> Result<()> {
            outcomes.push(measure(task, &contender, &mut kept(out, &contender)?)?);
            Ok(())
        };
        match &self.url {
            Some(url) => {
                self.served_models.iter().try_for_each(|name| enter(self.remote(url, name, out.is_some())?))?;
            }
            None => self.locals(task.shipped_adapter(), &mut enter)?,
        }
        Ok(outcomes)
    }

    /// Tells whoever is named twice before anybody is asked.
    fn check_names(&self, shipped: Option<&str>) -> Result<()> {
        let mut names: Vec<String> = self.served_models.clone();
        if self.url.is_none() {
            names.extend(self.entries(shipped).into_iter().flat_map(|(_, entries)| entries).map(|(name, _)| name));
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(TrainError::Data(format!("{} is named twice; once is enough", pair[0]))),
            None => Ok(()),
        }
    }

    /// What the server at `url` calls `name`; `kept`: its answers are.
    fn remote(&self, url: &str, name: &str, kept: bool) -> Result<Contender> {
        let key = self.api_keys.first().map(String::as_str);
        let remote = Remote::new(url, key, name, self.max_tokens.get(), self.in_flight.get())?;
        Ok(Contender { name: name.to_owned(), answerer: Box::new(remote.kept(kept)) })
    }

    fn locals(&self, shipped: Option<&str>, enter: &mut dyn FnMut(Contender) -> Result<()>) -> Result<()> {
        let dialect = DialectChoice { name: self.dialect.clone(), dir: self.dialect_dir.clone() };
        let device = trainable::device(if self.cuda { DeviceKind::Cuda } else { DeviceKind::Cpu })?;
        for (path, entries) in self.entries(shipped) {
            let model = Model::open(path, &dialect, &device)?;
            for (name, adapter) in entries {
                for &free in self.grammars() {
                    let answerer = model.answerer(adapter, free, self.max_tokens.get())?;
                    let name = if self.compare && free { format!("{name}, unconstrained") } else { name.clone() };
                    enter(Contender { name, answerer: Box::new(answerer) })?;
                }
            }
        }
        Ok(())
    }

    /// Each model with what is measured of it. Adapters are of the first; where neither is named, what ships is measured.
    fn entries(&self, shipped: Option<&str>) -> Vec<(Option<&Path>, Vec<Entry<'_>>)> {
        let models = match self.models.as_slice() {
            [] => vec![(None, "shipped".to_owned())],
            models => models.iter().map(|path| (Some(path.as_path()), path.display().to_string())).collect(),
        };
        let entries = |(index, (path, name)): (usize, (_, String))| {
            let adapters = if index == 0 { self.adapters_of_first(shipped) } else { Vec::new() };
            let alone = (self.compare || adapters.is_empty()).then_some((name, None));
            let adapted = adapters.into_iter().map(|adapter| (adapter.place().display().to_string(), Some(adapter)));
            (path, alone.into_iter().chain(adapted).collect())
        };
        models.into_iter().enumerate().map(entries).collect()
    }

    fn adapters_of_first(&self, shipped: Option<&str>) -> Vec<Adapter<'_>> {
        let built_in = embedded::ADAPTERS.iter().filter(|(name, _)| Some(*name) == shipped && self.models.is_empty());
        match self.adapters.as_slice() {
            [] => built_in.map(|&(name, files)| Adapter::Shipped(name, files)).collect(),
            paths => paths.iter().map(|path| Adapter::Directory(path)).collect(),
        }
    }

    /// Whether answers are free of the grammar, in each way that is measured.
    fn grammars(&self) -> &'static [bool] {
        match (self.compare, self.unconstrained) {
            (true, _) => &[false, true],
            (false, true) => &[true],
            (false, false) => &[false],
        }
    }
}

/// Where a contender's answers are.
fn kept(out: Option<&Path>, contender: &Contender) -> Result<Kept> {
    let Some(out) = out else { return Ok(Kept::default()) };
    Kept::open(&kept::file(out, &contender.name), &contender.answerer.identity())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        contest: ContestArgs,
    }

    fn names(line: &[&str]) -> Vec<String> {
        let contest = Line::try_parse_from([&["x"], line].concat()).unwrap().contest;
        let ways = contest.grammars().len();
        let entries = contest.entries(None);
        let names = entries.iter().flat_map(|(path, entries)| entries.iter().map(move |entry| (path, entry)));
        names.map(|(path, (name, adapter))| format!("{ways} {path:?} {name} {}", adapter.is_some())).collect()
    }

    #[test]
    fn the_shipped_model_takes_part_unless_another_is_named() {
        assert_eq!(names(&[]), ["1 None shipped false"]);
        assert_eq!(names(&["--model", "m", "--unconstrained"]), ["1 Some(\"m\") m false"]);
        assert_eq!(names(&["--adapter", "a"]), ["1 None a true"]);
    }

    #[test]
    fn a_comparison_has_the_base_the_adapters_and_further_models() {
        let found = names(&["--compare", "--model", "m", "--model", "merged", "--adapter", "a", "--adapter", "b"]);
        let expected = [
            "2 Some(\"m\") m false",
            "2 Some(\"m\") a true",
            "2 Some(\"m\") b true",
            "2 Some(\"merged\") merged false",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn whoever_is_named_twice_is_told_before_anybody_is_asked() {
        let checked = |line: &[&str]| {
            let contest = Line::try_parse_from([&["x"], line].concat()).unwrap().contest;
            contest.check_names(None).map_err(|error| error.to_string())
        };
        assert!(checked(&["--adapter", "a", "--adapter", "b"]).is_ok());
        assert!(checked(&["--adapter", "a", "--adapter", "a"]).unwrap_err().contains("a is named twice"));
        let served = ["--url", "u", "--served-model", "m", "--served-model", "n", "--served-model", "m"];
        assert!(checked(&served).unwrap_err().contains("m is named twice"));
    }

    #[test]
    fn of_several_keys_the_first_is_the_servers() {
        let keys = |line: &[&str]| Line::try_parse_from([&["x"], line].concat()).unwrap().contest.api_keys;
        assert_eq!(keys(&["--api-key", "k1,k2"])[0], "k1");
    }

    #[test]
    fn a_url_stands_alone_and_needs_the_models_name() {
        for wrong in [
            &["--url", "u"][..],
            &["--served-model", "n"],
            &["--url", "u", "--served-model", "n", "--model", "m"],
            &["--url", "u", "--served-model", "n", "--unconstrained"],
        ] {
            assert!(Line::try_parse_from([&["x"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
