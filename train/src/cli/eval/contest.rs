//! Which models take part in an evaluation: what ships with the program or others, alone and with adapters, with the grammar and without,
//! or those behind a URL. Each is loaded only while it is measured.

use crate::error::{Result, TrainError};
use crate::eval::answerer::local::{Adapter, Model};
use crate::eval::answerer::remote::Remote;
use crate::eval::kept::Kept;
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
    /// The key that the server wants.
    #[arg(long, env = "CALLSMITH_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
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
        let mut outcomes = Vec::new();
        let mut enter = |contender: Contender| {
            let taken = outcomes.iter().any(|outcome: &Outcome| outcome.name == contender.name);
            if taken {
                return Err(TrainError::Data(format!("{} is named twice; once is enough", contender.name)));
            }
            outcomes.push(measure(task, &contender, &mut kept(out, &contender)?)?);
            Ok(())
        };
        match &self.url {
            Some(url) => self.served_models.iter().try_for_each(|name| enter(self.remote(url, name)?))?,
            None => self.locals(task.shipped_adapter(), &mut enter)?,
        }
        Ok(outcomes)
    }

    fn remote(&self, url: &str, name: &str) -> Result<Contender> {
        let remote = Remote::new(url, self.api_key.clone(), name, self.max_tokens.get(), self.in_flight.get())?;
        Ok(Contender { name: name.to_owned(), answerer: Box::new(remote) })
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
    let file: String = contender.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    Kept::open(&out.join(format!("{file}.answers.jsonl")), &contender.answerer.identity())
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
