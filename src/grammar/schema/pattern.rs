//! Regular expressions: ECMA 262 as the `jsonschema` crate reads it, into the grammar compiler's syntax with equal meaning.
//!
//! Refuses what either side cannot do or reads differently: look-around, back-references, word boundaries, flags, class
//! arithmetic. `\d` and `\w` are ASCII and written out.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// ECMA 262 white space, which is neither Rust's nor ASCII's.
const SPACE: &str = r"\t-\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

/// Strings of a pattern that are worth a name each.
const MAX_STRINGS: usize = 64;
/// Bytes of one, roughly.
const MAX_LENGTH: usize = 200;

/// All strings that a rewritten pattern can match, where they are few; some of them may not match.
pub(super) fn strings(translated: &str) -> Option<Vec<String>> {
    let tree = regex_syntax::parse(translated).ok()?;
    let properties = tree.properties();
    let starts = properties.look_set_prefix().contains(Look::Start);
    let ends = properties.look_set_suffix().contains(Look::End);
    if starts && ends { strings_of(&tree) } else { None }
}

/// Whether the start of any string that a rewritten pattern matches is the start of endlessly many.
pub(in super::super) fn is_endless(translated: &str) -> bool {
    regex_syntax::parse(translated).is_ok_and(|tree| {
        let ends = tree.properties().look_set().contains(Look::End);
        !ends || (tree.properties().look_set_suffix().contains(Look::End) && has_endless_tail(&tree))
    })
}

/// Whether the string can be made longer at its end, whatever its start is.
fn has_endless_tail(tree: &Hir) -> bool {
    match tree.kind() {
        HirKind::Repetition(repetition) => {
            let part = repetition.sub.properties();
            let adds = part.look_set().is_empty() && part.minimum_len().is_some_and(|length| length > 0);
            adds && repetition.max.is_none()
        }
        HirKind::Capture(capture) => has_endless_tail(&capture.sub),
        HirKind::Alternation(options) => options.iter().all(has_endless_tail),
        HirKind::Concat(parts) => {
            let last = parts.iter().rfind(|part| !matches!(part.kind(), HirKind::Look(_)));
            last.is_some_and(has_endless_tail)
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => false,
    }
}

/// Recurses as deep as groups are nested, which the parser bounds.
fn strings_of(tree: &Hir) -> Option<Vec<String>> {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Class(Class::Unicode(class)) => {
            let count = class.iter().map(|range| range.len()).sum::<usize>();
            let chars = class.iter().flat_map(|range| range.start()..=range.end());
            (count <= MAX_STRINGS).then(|| chars.map(String::from).collect())
        }
        HirKind::Class(Class::Bytes(_)) => None,
        HirKind::Repetition(repetition) => {
            let most = repetition.max.filter(|most| *most as usize <= MAX_STRINGS)?;
            let once = strings_of(&repetition.sub)?;
            union((repetition.min..=most).map(|count| joined((0..count).map(|_| Some(once.clone())))))
        }
        HirKind::Capture(capture) => strings_of(&capture.sub),
        HirKind::Concat(parts) => joined(parts.iter().map(strings_of)),
        HirKind::Alternation(options) => union(options.iter().map(strings_of)),
    }
}

fn joined(parts: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    for part in parts {
        let next = part?;
        if all.len() * next.len() > MAX_STRINGS || all.iter().any(|start| start.len() > MAX_LENGTH) {
            return None;
        }
        all = all.iter().flat_map(|start| next.iter().map(move |end| format!("{start}{end}"))).collect();
    }
    Some(all)
}

fn union(options: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for option in options {
        all.extend(option?);
        if all.len() > MAX_STRINGS {
            return None;
        }
    }
    Some(all)
}

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
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'n' | 'r' | 't' | 'f' | 'v' | 'p' | 'P' | 'x' | 'u' => out.extend(['\\', c]),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_strings_are_listed() {
        let of = |regex: &str| {
            strings(regex).map(|mut strings| {
                strings.sort();
                strings.join(" ")
            })
        };
        assert_eq!(of("^(de|en(_us)?)$").unwrap(), "de en en_us");
        assert_eq!(of("^x[1-3]{1,2}$").unwrap(), "x1 x11 x12 x13 x2 x21 x22 x23 x3 x31 x32 x33");
        for many in ["de|en", "^de", "en$", "^[a-z]{2}$", "^a+$", "^(a|^b)", "^(((a{60}){60}){60}){60}$"] {
            assert_eq!(of(many), None, "{many}");
        }
    }

    #[test]
    fn an_endless_pattern_has_no_last_name() {
        for endless in ["^S_", "a", "^[a-z]+$", "^x-.*$", "^(a+|b[0-9]*)$"] {
            assert!(is_endless(endless), "{endless}");
        }
        for ending in ["^[A-Z]{3}$", "^(default|x-.+)$", "^a+b$", "a$|b", "(", "^a(b$)*$"] {
            assert!(!is_endless(ending), "{ending}");
        }
    }
}
