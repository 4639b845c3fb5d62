//! The dialects there are: the built-in ones, and those of files in a directory. Knows no grammar and no prompt.

use super::envelope::Envelope;
use super::viggo::Viggo;
use super::{ChatError, Dialect};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// The built-in dialect files; a template that several recognise speaks the first.
const FILES: [&str; 6] = [
    include_str!("../../../grammars/hermes.toml"),
    include_str!("../../../grammars/llama3.toml"),
    include_str!("../../../grammars/mistral_args.toml"),
    include_str!("../../../grammars/mistral.toml"),
    include_str!("../../../grammars/llama_functions.toml"),
    include_str!("../../../grammars/tool_uses.toml"),
];
/// Spoken where no template says otherwise.
const DEFAULT: &str = "tool_uses";
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Which dialect a model shall use.
#[derive(Debug, Clone, Default)]
pub struct DialectChoice {
    /// By name; `None` = as its chat template says.
    pub name: Option<String>,
    /// Where more dialects are defined.
    pub dir: Option<PathBuf>,
}

impl DialectChoice {
    /// The dialect for a model with this chat template.
    ///
    /// # Errors
    /// As [`Dialects::with_dir`] and [`Dialects::by_name`].
    pub fn resolve(&self, template: Option<&str>) -> Result<Arc<dyn Dialect>, ChatError> {
        let dialects = self.dir.as_deref().map_or_else(|| Ok(Dialects::built_in()), Dialects::with_dir)?;
        self.name.as_deref().map_or_else(|| Ok(dialects.for_template(template)), |name| dialects.by_name(name))
    }
}

/// Dialects by name.
#[derive(Clone)]
pub struct Dialects {
    /// A user's own come first, so that they may recognise a template before the built-in ones do.
    all: Vec<Arc<dyn Dialect>>,
}

impl Dialects {
    /// The dialects that need no file.
    pub fn built_in() -> Self {
        static BUILT_IN: LazyLock<Dialects> = LazyLock::new(Dialects::read_built_in);
        BUILT_IN.clone()
    }

    fn read_built_in() -> Self {
        let parse = |source: &&str| -> Arc<dyn Dialect> {
            Arc::new(Envelope::parse(source).expect("the built-in dialect files are right: a test reads them"))
        };
        let mut all: Vec<Arc<dyn Dialect>> = FILES.iter().map(parse).collect();
        all.push(Arc::new(Viggo));
        Self { all }
    }

    /// The built-in dialects and one for each `*.toml` in `dir`; a file may replace a built-in dialect of the same name.
    ///
    /// # Errors
    /// When the directory or a file cannot be read, or a file is no dialect; the error names file and key.
    pub fn with_dir(dir: &Path) -> Result<Self, ChatError> {
        let mut dialects = Self::built_in();
        let failed = |error: std::io::Error| ChatError::Dialect(format!("{}: {error}", dir.display()));
        let entries: Result<Vec<_>, _> = std::fs::read_dir(dir).map_err(failed)?.collect();
        let mut paths: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
        paths.sort();
        let mut own: Vec<Arc<dyn Dialect>> = Vec::with_capacity(paths.len());
        for path in &paths {
            let dialect = read(path).map_err(|reason| ChatError::Dialect(format!("{}: {reason}", path.display())))?;
            if own.iter().any(|other| other.name() == dialect.name()) {
                let message = format!("{}: another file has a dialect `{}`", path.display(), dialect.name());
                return Err(ChatError::Dialect(message));
            }
            own.push(Arc::new(dialect));
        }
        dialects.all.retain(|known| own.iter().all(|other| other.name() != known.name()));
        own.append(&mut dialects.all);
        Ok(Self { all: own })
    }

    /// Finds a dialect by name.
    ///
    /// # Errors
    /// When no dialect has that name; the error lists those that exist.
    pub fn by_name(&self, name: &str) -> Result<Arc<dyn Dialect>, ChatError> {
        let found = self.all.iter().find(|dialect| dialect.name() == name);
        found.cloned().ok_or_else(|| ChatError::UnknownDialect {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Chooses a dialect from a chat template's text; the project's own when none is recognised.
    pub fn for_template(&self, template: Option<&str>) -> Arc<dyn Dialect> {
        let template = template.unwrap_or_default();
        let speaks = |dialect: &&Arc<dyn Dialect>| dialect.detect().iter().any(|mark| template.contains(mark));
        let own = |dialect: &&Arc<dyn Dialect>| dialect.name() == DEFAULT;
        let found = self.all.iter().find(speaks).or_else(|| self.all.iter().find(own));
        Arc::clone(found.unwrap_or(&self.all[0]))
    }

    /// Every name, in the order in which templates are recognised.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|dialect| dialect.name())
    }
}

fn read(path: &Path) -> Result<Envelope, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    let source = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Envelope::parse(&source).map_err(|error| error.to_string())
}
