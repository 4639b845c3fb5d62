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
    /// As [`Self::dialects`], [`Dialects::by_name`] and [`Dialects::for_template`].
    pub fn resolve(&self, template: Option<&str>) -> Result<Arc<dyn Dialect>, ChatError> {
        let dialects = self.dialects()?;
        self.name.as_deref().map_or_else(|| dialects.for_template(template), |name| dialects.by_name(name))
    }

    /// The dialects that there are to choose from.
    ///
    /// # Errors
    /// As [`Dialects::with_dir`].
    pub fn dialects(&self) -> Result<Dialects, ChatError> {
        self.dir.as_deref().map_or_else(|| Ok(Dialects::built_in()), Dialects::with_dir)
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

    /// Chooses a dialect from a chat template's text: the one that it names, or the first that recognises it, or the
    /// project's own.
    ///
    /// # Errors
    /// When the template names a dialect that is not known.
    pub fn for_template(&self, template: Option<&str>) -> Result<Arc<dyn Dialect>, ChatError> {
        let template = template.unwrap_or_default();
        if let Some(name) = named_in(template) {
            return self.by_name(name).map_err(|error| ChatError::Template(format!("a comment names an {error}")));
        }
        let speaks = |dialect: &&Arc<dyn Dialect>| dialect.detect().iter().any(|mark| template.contains(mark));
        let own = |dialect: &&Arc<dyn Dialect>| dialect.name() == DEFAULT;
        let found = self.all.iter().find(speaks).or_else(|| self.all.iter().find(own));
        Ok(Arc::clone(found.unwrap_or(&self.all[0])))
    }

    /// Every name, in the order in which templates are recognised.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|dialect| dialect.name())
    }
}

/// The dialect that a template names, in a comment that says nothing else: `{#- dialect: NAME -#}`.
fn named_in(template: &str) -> Option<&str> {
    let comments = template.split("{#").skip(1).filter_map(|rest| Some(rest.split_once("#}")?.0));
    let texts = comments.map(|comment| comment.trim_matches(['-', '+']).trim());
    let mut names = texts.filter_map(|text| text.strip_prefix("dialect:")).map(str::trim);
    names.find(|name| name.len() <= 64 && !name.contains(char::is_whitespace))
}

fn read(path: &Path) -> Result<Envelope, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    let source = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Envelope::parse(&source).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(template: &str) -> String {
        let found = Dialects::built_in().for_template(Some(template));
        found.map_or_else(|error| error.to_string(), |dialect| dialect.name().to_owned())
    }

    #[test]
    fn a_template_speaks_the_dialect_that_it_names_whatever_it_looks_like() {
        for comment in
            ["{#- dialect: viggo -#}", "{# dialect:viggo #}", "{#dialect: viggo#}", "{#+ dialect: viggo\n+#}"]
        {
            assert_eq!(chosen(&format!("{{# About. #}}{comment}<tool_call> {{{{ tools }}}}")), "viggo", "{comment}");
        }
        assert_eq!(chosen("<tool_call>"), "hermes");
        assert_eq!(chosen(""), "tool_uses");
    }

    #[test]
    fn only_a_comment_that_says_nothing_else_names_a_dialect() {
        for text in
            ["dialect: viggo", "{# its dialect: viggo #}", "{# dialect: the one of games #}", "{# dialect: viggo"]
        {
            assert_eq!(chosen(text), "tool_uses", "{text}");
        }
    }

    #[test]
    fn an_unknown_dialect_is_refused_with_those_that_are_known() {
        let refused = chosen("{# dialect: klingon #}");
        assert!(refused.contains("`klingon`") && refused.contains("hermes, llama3"), "{refused}");
    }

    #[test]
    fn a_dialect_of_the_users_own_can_be_named_too() {
        let dir = tempfile::tempdir().unwrap();
        let source = include_str!("../../../grammars/tool_uses.toml").replace("\"tool_uses\"\n", "\"mine\"\n");
        std::fs::write(dir.path().join("mine.toml"), source).unwrap();
        let choice = DialectChoice { name: None, dir: Some(dir.path().to_owned()) };
        assert_eq!(choice.resolve(Some("{# dialect: mine #}")).unwrap().name(), "mine");
    }
}
