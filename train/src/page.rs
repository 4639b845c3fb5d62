//! Pages that need nothing else: a template, what it shows, and the style that all of them share.
//!
//! Knows nothing of what is shown.

use crate::atomic;
use crate::error::{Result, TrainError};
use minijinja::value::Serde;
use minijinja::{Environment, Error};
use serde::Serialize;
use std::path::Path;

const STYLE: &str = include_str!("page/style.css");

/// Writes a page of `shown` (which is escaped) in the words of `template`; that includes `style.css`.
///
/// # Errors
/// A template that does not fit what is shown, and what the file system refuses.
pub(crate) fn write(path: &Path, template: &str, shown: &impl Serialize) -> Result<()> {
    let html = render(template, shown).map_err(|error| TrainError::output(path, error.to_string()))?;
    atomic::file(path, html.as_bytes())
}

fn render(template: &str, shown: &impl Serialize) -> Result<String, Error> {
    // The name's ending switches on the escaping of all that is put in.
    const NAME: &str = "page.html";
    let mut templates = Environment::new();
    templates.add_template("style.css", STYLE)?;
    templates.add_template(NAME, template)?;
    templates.get_template(NAME)?.render(Serde(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_shown_is_escaped_and_the_style_is_not() {
        let page = render("<style>{% include \"style.css\" %}</style>{{ name }}", &json!({"name": "<b>&"})).unwrap();
        assert!(page.contains("figcaption > span {") && page.ends_with("</style>&lt;b&gt;&amp;"), "{page}");
    }
}
