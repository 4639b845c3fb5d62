//! Regular expressions: ECMA 262 as the `jsonschema` crate reads it, into the grammar compiler's syntax with equal meaning.
//!
//! Refuses what either side cannot do or reads differently: look-around, back-references, word boundaries, flags, class
//! arithmetic. Names of escapes that both read alike (`\d`, `\w`: ASCII) pass unchanged.

/// ECMA 262 white space, which is neither Rust's nor ASCII's.
const SPACE: &str = r"\t-\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

/// The pattern rewritten; the error completes the sentence "`pattern` …".
pub(super) fn translate(regex: &str) -> Result<String, String> {
    let mut out = String::with_capacity(regex.len() + 16);
    let mut chars = regex.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(chars.next(), &mut out)?,
            _ if in_class => {
                check_class(c, chars.peek())?;
                in_class = c != ']';
                out.push(c);
            }
            '(' => {
                out.push('(');
                if chars.next_if_eq(&'?').is_some() {
                    chars.next_if_eq(&':').ok_or("uses `(?…`; only plain groups and `(?:…)` are supported")?;
                    out.push_str("?:");
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                out.extend(chars.next_if_eq(&'^'));
                if chars.peek() == Some(&']') {
                    return Err("has an empty character class".into());
                }
            }
            '{' if chars.peek() == Some(&',') => return Err("has a repetition without a minimum".into()),
            _ => out.push(c),
        }
    }
    Ok(out)
}

fn escape(escaped: Option<char>, out: &mut String) -> Result<(), String> {
    let c = escaped.ok_or("ends in a backslash")?;
    match c {
        's' => out.extend(["[", SPACE, "]"]),
        'S' => out.extend(["[^", SPACE, "]"]),
        'd' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' | 'p' | 'P' | 'x' | 'u' => out.extend(['\\', c]),
        'b' | 'B' => return Err("uses a word boundary, which is not supported".into()),
        '0'..='9' | 'k' => return Err("uses a back-reference, which is not supported".into()),
        '<' | '>' => out.push(c),
        _ if c.is_ascii_punctuation() => out.extend(['\\', c]),
        _ => return Err(format!("uses the unknown escape `\\{c}`")),
    }
    Ok(())
}

/// Refuses what the compiler would read as set arithmetic or as a nested class.
fn check_class(c: char, next: Option<&char>) -> Result<(), String> {
    if c == '[' || (matches!(c, '&' | '~' | '-') && next == Some(&c)) {
        return Err(format!("has `{c}` in a character class in a way that is not supported; escape it"));
    }
    Ok(())
}
