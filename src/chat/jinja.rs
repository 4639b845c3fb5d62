//! Runs a chat template as Hugging Face's tools run it: the same whitespace rules, filters and functions, with limits on
//! time and size. Knows nothing of conversations or tokens.

use super::json::{JsonStyle, sorted};
use super::{ChatError, clock};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use std::io::{self, Write};

/// Instructions that one rendering may execute.
const FUEL: u64 = 50_000_000;
/// Bytes that one rendering may produce.
const RENDER_LIMIT: usize = 8 << 20;
const NAME: &str = "chat_template";

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    pub(super) fn compile(source: &str) -> Result<Self, ChatError> {
        Self::compile_with(source, |_| {})
    }

    /// With filters and functions beyond those that chat templates know.
    pub(super) fn compile_with(
        source: &str,
        extend: impl FnOnce(&mut Environment<'static>),
    ) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| template_error(&e))?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        // As in Python, where strings can be iterated; Llama's template quotes tool results because of that.
        environment.add_test("iterable", |value: Value| {
            value.is_undefined() || value.as_str().is_some() || value.try_iter().is_ok()
        });
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: String| clock::strftime_now(&format));
        extend(&mut environment);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|e| template_error(&e))?;
        Ok(Self { environment })
    }

    /// Renders with the variables of `context`, a JSON object.
    pub(super) fn render(&self, context: &serde_json::Value) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(|e| template_error(&e))?;
        let mut output = Limited::default();
        let rendered = template.render_captured_to(Value::from(Serde(context)), &mut output).map(drop);
        if output.overflown {
            return Err(ChatError::Template(format!("the prompt is longer than {RENDER_LIMIT} bytes")));
        }
        rendered.map_err(|e| template_error(&e))?;
        String::from_utf8(output.bytes).map_err(|_| ChatError::Template("the template wrote invalid UTF-8".into()))
    }
}

fn template_error(error: &Error) -> ChatError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    ChatError::Template(text)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, printed as Python prints it.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja asks of a filter")]
fn tojson(value: Serde<serde_json::Value>, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut style = JsonStyle { indent, ascii: ascii.unwrap_or(false), ..JsonStyle::spaced() };
    if indent.is_some() {
        style.item_separator = ",".into();
    }
    if let Some([item, key]) = separators.as_deref() {
        (style.item_separator, style.key_separator) = (item.clone(), key.clone());
    }
    Ok(style.text(&if sort.unwrap_or(false) { sorted(value.0) } else { value.0 }))
}

/// A buffer that refuses to grow beyond the limit.
#[derive(Default)]
struct Limited {
    bytes: Vec<u8>,
    overflown: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDER_LIMIT {
            self.overflown = true;
            return Err(io::Error::other("render limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, context: &serde_json::Value) -> Result<String, String> {
        let jinja = Jinja::compile(source).map_err(|e| e.to_string())?;
        jinja.render(context).map_err(|e| e.to_string())
    }

    #[test]
    fn tojson_prints_as_python_does_and_escapes_no_html() {
        let value = json!({"v": {"b": [1, "<é>'&"], "a": null}});
        assert_eq!(render("{{ v|tojson }}", &value).unwrap(), r#"{"b": [1, "<é>'&"], "a": null}"#);
        assert_eq!(render("{{ v|tojson(separators=(',', ':')) }}", &value).unwrap(), r#"{"b":[1,"<é>'&"],"a":null}"#);
        assert_eq!(render("{{ v|tojson(sort_keys=True) }}", &value).unwrap(), r#"{"a": null, "b": [1, "<é>'&"]}"#);
        assert_eq!(render("{{ v.b|tojson(indent=1) }}", &value).unwrap(), "[\n 1,\n \"<é>'&\"\n]");
    }

    #[test]
    fn blocks_leave_no_blank_lines_and_python_methods_work() {
        let source =
            "  {% for x in xs %}\n{{ x.strip().upper() }}\n  {% if x == ' b' %}{% break %}{% endif %}\n{% endfor %}\n";
        assert_eq!(render(source, &json!({"xs": ["a ", " b", "c"]})).unwrap(), "A\nB\n");
    }

    #[test]
    fn a_templates_own_refusal_is_passed_on() {
        let error = render("{{ raise_exception('roles must alternate') }}", &json!({})).unwrap_err();
        assert!(error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn a_broken_template_says_where() {
        let error = render("{% if %}", &json!({})).unwrap_err();
        assert!(error.contains("line 1") || error.contains(":1"), "{error}");
    }

    #[test]
    fn endless_work_and_endless_output_are_stopped() {
        let busy = "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}";
        assert!(render(busy, &json!({})).unwrap_err().contains("fuel"));
        let long = "{% for a in range(9999) %}{{ 'x' * 1000 }}{% endfor %}";
        assert!(render(long, &json!({})).unwrap_err().contains("longer than"));
    }

    #[test]
    fn the_date_can_be_printed() {
        assert_eq!(render("{{ strftime_now('%Y')|length }}", &json!({})).unwrap(), "4");
    }
}
