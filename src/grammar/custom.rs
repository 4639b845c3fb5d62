//! Grammars that callers write themselves: a regular expression, a list of texts, or Lark. Each becomes Lark rules that
//! define a given rule; what could reach beyond the caller's own answer is refused. Knows no wire format.

use super::GrammarError;
use super::schema::translate_pattern;
use serde_json::Value;

/// Longest regular expression, in bytes.
const MAX_REGEX: usize = 32 * 1024;
/// Longest Lark text, in bytes.
const MAX_LARK: usize = 64 * 1024;
/// A comment that tells the compiler to hold a grammar to narrow limits: its masks are computed while others wait.
pub(super) const CALLERS_OWN: &str = "// the caller's own\n";
/// Most texts to choose from, and their bytes together.
const MAX_CHOICES: usize = 1000;
const MAX_CHOICE_BYTES: usize = 64 * 1024;

/// Rules that make `rule` any text that the whole of `regex` describes.
///
/// # Errors
/// When the expression is too long, or uses what cannot be enforced (look-around, back-references, word boundaries).
pub fn regex(rule: &str, regex: &str) -> Result<String, GrammarError> {
    check_size(regex, MAX_REGEX, "the regular expression")?;
    let whole = without_anchors(regex);
    if whole.is_empty() {
        return Err(refuse("the regular expression is empty"));
    }
    let pattern = translate_pattern(whole).map_err(|cause| refuse(&format!("the regular expression {cause}")))?;
    Ok(format!("{rule}: CUSTOM_TEXT\nCUSTOM_TEXT: /{}/\n", as_literal(&pattern)))
}

/// Rules that make `rule` one of these texts.
///
/// # Errors
/// When there is none, an empty one, or too many.
pub fn choice(rule: &str, texts: &[String]) -> Result<String, GrammarError> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(refuse("a choice needs at least one text, and none may be empty"));
    }
    if texts.len() > MAX_CHOICES || texts.iter().map(String::len).sum::<usize>() > MAX_CHOICE_BYTES {
        return Err(refuse(&format!("a choice has at most {MAX_CHOICES} texts of {MAX_CHOICE_BYTES} bytes together")));
    }
    let literals: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    Ok(format!("{rule}: {}\n", literals.join(" | ")))
}

/// Rules that make `rule` what the Lark text's own `start` describes.
///
/// # Errors
/// When the text is too long, unbalanced, or uses directives or token ids that are not open to callers.
pub fn lark(rule: &str, source: &str) -> Result<String, GrammarError> {
    check_size(source, MAX_LARK, "the grammar")?;
    check_lark(source)?;
    Ok(format!("{CALLERS_OWN}{rule}: %lark {{\n{source}\n}}\n"))
}

fn check_size(text: &str, most: usize, what: &str) -> Result<(), GrammarError> {
    if text.len() <= most { Ok(()) } else { Err(refuse(&format!("{what} is longer than {most} bytes"))) }
}

/// The whole text is meant anyway.
fn without_anchors(regex: &str) -> &str {
    let open = regex.strip_prefix('^').unwrap_or(regex);
    match open.strip_suffix('$') {
        Some(body) if body.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0 => body,
        _ => open,
    }
}

/// The pattern between slashes.
fn as_literal(pattern: &str) -> String {
    let mut literal = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => literal.extend(std::iter::once('\\').chain(chars.next())),
            '/' => literal.push_str("\\/"),
            '\n' => literal.push_str("\\n"),
            _ => literal.push(c),
        }
    }
    literal
}

/// Schemas inside Lark would escape their own admission, token ids could write control tokens, and a brace too many would
/// leave the caller's part of the grammar.
fn check_lark(source: &str) -> Result<(), GrammarError> {
    let mut depth = 0_i32;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => quoted(rest, '"').ok_or_else(|| refuse("the grammar has a string without an end"))?,
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '/' => quoted(rest, '/').ok_or_else(|| refuse("the grammar has a regular expression without an end"))?,
            '%' => directive(rest)?,
            '<' | '@' => return Err(refuse("token ids and references to other grammars cannot be used")),
            '{' | '}' => {
                depth += if first == '{' { 1 } else { -1 };
                1
            }
            _ => first.len_utf8(),
        };
        if depth < 0 {
            break;
        }
        rest = &rest[length..];
    }
    if depth == 0 { Ok(()) } else { Err(refuse("the grammar's braces are not balanced")) }
}

/// Bytes of a text from its opening delimiter to the closing one, on one line.
fn quoted(text: &str, delimiter: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == delimiter => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn directive(text: &str) -> Result<usize, GrammarError> {
    let length = 1 + text[1..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len() - 1);
    match &text[..length] {
        "%ignore" | "%import" => Ok(length),
        "%json" => Err(refuse("`%json` cannot be used in a grammar; send the schema as `json`, or as a tool")),
        other => Err(refuse(&format!("`{}` cannot be used", other.chars().take(20).collect::<String>()))),
    }
}

fn refuse(message: &str) -> GrammarError {
    GrammarError::Compile(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::text::{self, TextGrammars};

    fn accepts(rules: &str, text: &str) -> bool {
        let start = TextGrammars::new().unwrap().compile(&format!("start: answer\n{rules}")).unwrap();
        text::verdict(start, text.as_bytes()).unwrap().accepted
    }

    #[test]
    fn a_regex_describes_the_whole_text_with_or_without_anchors() {
        for pattern in ["^a/[bc]+$", "a/[bc]+", r"a\/[bc]+"] {
            let rules = regex("answer", pattern).unwrap();
            assert!(accepts(&rules, "a/bcb") && !accepts(&rules, "xa/b") && !accepts(&rules, "a/"), "{pattern}");
        }
        let dollar = regex("answer", r"a\$").unwrap();
        assert!(accepts(&dollar, "a$") && !accepts(&dollar, "a"));
        assert!(accepts(&regex("answer", "a|b").unwrap(), "b"));
    }

    #[test]
    fn what_a_regex_cannot_enforce_is_refused() {
        for pattern in ["", "^$", r"(?=a)b", r"\bword", r"(a)\1", &"a".repeat(MAX_REGEX + 1)] {
            assert!(regex("answer", pattern).is_err(), "{:.20}", pattern);
        }
    }

    #[test]
    fn a_choice_is_one_of_its_texts() {
        let rules = choice("answer", &["yes".into(), "say \"no\"\n".into()]).unwrap();
        assert!(accepts(&rules, "yes") && accepts(&rules, "say \"no\"\n") && !accepts(&rules, "maybe"));
        assert!(choice("answer", &[]).is_err() && choice("answer", &[String::new()]).is_err());
    }

    #[test]
    fn lark_describes_the_answer_by_its_own_start() {
        let source = "start: \"{\" WORD (\",\" WORD){0,2} \"}\" // }}}\n%ignore / /\nWORD: /[a-z]+|[}]x/ \n";
        let rules = lark("answer", source).unwrap();
        assert!(accepts(&rules, "{a,b}") && !accepts(&rules, "{a,}"));
    }

    #[test]
    fn lark_that_reaches_beyond_the_answer_is_refused() {
        for source in [
            "start: %json {\"type\": \"object\"}",
            "start: a }\nstart: \"x\"",
            "start: <[5]>",
            "start: <|im_start|>",
            "start: @other",
            "%llguidance {\"no_forcing\": true}\nstart: \"a\"",
            "start: %lark { start: \"a\" }",
            "start: \"open",
        ] {
            assert!(lark("answer", source).is_err(), "{source}");
        }
    }
}
