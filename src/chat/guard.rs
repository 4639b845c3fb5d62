//! Keeps control and content apart in a rendered prompt.
//!
//! A template mixes its own control tokens with strings that a caller wrote. Before rendering, every place in such a string
//! where a control token stands, or where a piece of one could join with its neighbours, is broken up by a nonce; what
//! still reads as a control token after rendering was therefore written by the template. Then the nonce is taken out again.
//! Knows no template and no tokenizer.

use super::template::Segment;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// The texts of a tokenizer's control tokens, ready to be searched for.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// Tokens by first byte, longest first.
    tokens: HashMap<u8, Vec<String>>,
    /// Proper prefixes and suffixes of all tokens: pieces that must not stand at the edge of a string.
    prefixes: HashSet<String>,
    suffixes: HashSet<String>,
    longest: usize,
}

impl Guard {
    /// Tokens of a single character are left out: they could not be told from ordinary text.
    pub(super) fn new(control_tokens: Vec<String>) -> Self {
        let mut guard = Self::default();
        for token in control_tokens.into_iter().filter(|token| token.chars().count() > 1) {
            for (at, _) in token.char_indices().skip(1) {
                guard.prefixes.insert(token[..at].to_owned());
                guard.suffixes.insert(token[at..].to_owned());
            }
            guard.longest = guard.longest.max(token.len());
            guard.tokens.entry(token.as_bytes()[0]).or_default().push(token);
        }
        for tokens in guard.tokens.values_mut() {
            tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
        }
        guard
    }

    /// The longest control token that starts at byte `at`.
    fn token_at(&self, text: &str, at: usize) -> Option<&str> {
        let candidates = self.tokens.get(text.as_bytes().get(at)?)?;
        candidates.iter().map(String::as_str).find(|token| text.as_bytes()[at..].starts_with(token.as_bytes()))
    }

    /// For each control token in `text`, overlapping ones too, a byte position inside it.
    pub(super) fn cuts(&self, text: &str) -> Vec<usize> {
        let inside = |(at, character): (usize, char)| self.token_at(text, at).map(|_| at + character.len_utf8());
        text.char_indices().filter_map(inside).collect()
    }

    fn starts_inside_a_token(&self, text: &str) -> bool {
        let ends = text.char_indices().skip(1).map(|(at, _)| at).chain([text.len()]);
        ends.take_while(|&end| end <= self.longest).any(|end| self.suffixes.contains(&text[..end]))
    }

    fn ends_inside_a_token(&self, text: &str) -> bool {
        let starts = text.char_indices().rev().map(|(at, _)| at);
        starts
            .take_while(|&start| text.len() - start <= self.longest)
            .any(|start| self.prefixes.contains(&text[start..]))
    }

    /// Byte positions where the nonce must stand so that `text` neither holds a control token nor helps to form one.
    fn breaks(&self, text: &str) -> Vec<usize> {
        let mut breaks = self.cuts(text);
        // Templates trim what they print: the edges count with and without their white space.
        let start = text.len() - text.trim_start().len();
        let end = text.trim_end().len();
        let edges = [
            (0, self.starts_inside_a_token(text)),
            (start, self.starts_inside_a_token(&text[start..])),
            (end, self.ends_inside_a_token(&text[..end])),
            (text.len(), self.ends_inside_a_token(text)),
        ];
        breaks.extend(edges.into_iter().filter(|(_, inside)| *inside).map(|(at, _)| at));
        breaks.sort_unstable();
        breaks.dedup();
        breaks
    }

    /// Breaks up all strings and keys of `value`.
    pub(super) fn seal(&self, value: &mut Value, nonce: &Nonce) {
        match value {
            Value::String(text) => self.seal_text(text, nonce),
            Value::Array(items) => items.iter_mut().for_each(|item| self.seal(item, nonce)),
            Value::Object(map) => *map = self.sealed_map(std::mem::take(map), nonce),
            _ => {}
        }
    }

    fn sealed_map(&self, map: Map<String, Value>, nonce: &Nonce) -> Map<String, Value> {
        let sealed = |(mut key, mut value): (String, Value)| {
            self.seal_text(&mut key, nonce);
            self.seal(&mut value, nonce);
            (key, value)
        };
        map.into_iter().map(sealed).collect()
    }

    fn seal_text(&self, text: &mut String, nonce: &Nonce) {
        for at in self.breaks(text).into_iter().rev() {
            text.insert_str(at, &nonce.0);
        }
    }

    /// Splits a rendered prompt at its control tokens and takes the nonce out of the rest.
    pub(super) fn open(&self, rendered: &str, nonce: &Nonce) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while at < rendered.len() {
            let Some(token) = self.token_at(rendered, at) else {
                at += 1;
                continue;
            };
            nonce.push_text(&mut segments, &rendered[start..at]);
            segments.push(Segment::Control(token.to_owned()));
            at += token.len();
            start = at;
        }
        nonce.push_text(&mut segments, &rendered[start..]);
        segments
    }
}

/// A random text that no input holds.
///
/// Only digits, so that a template's changes of case leave it alone; its first digit occurs once, so that no occurrence
/// can begin before and end inside another.
#[derive(Debug)]
pub(super) struct Nonce(String);

impl Nonce {
    const FIRST: char = '7';
    const REST: &str = "01234568";

    /// A nonce that occurs nowhere in `value`.
    pub(super) fn absent_from(value: &Value) -> Self {
        loop {
            let nonce = Self::random();
            if !contains(value, &nonce.0) {
                return nonce;
            }
        }
    }

    fn random() -> Self {
        // `RandomState` is keyed by the operating system's randomness: unknown to whoever wrote the input.
        let bits = RandomState::new().hash_one(0_u8);
        let digit = |index: u32| Self::REST.as_bytes()[(bits >> (3 * index) & 7) as usize] as char;
        Self(std::iter::once(Self::FIRST).chain((0..21).map(digit)).collect())
    }

    fn push_text(&self, segments: &mut Vec<Segment>, text: &str) {
        let text = text.replace(&self.0, "");
        if !text.is_empty() {
            segments.push(Segment::Text(text));
        }
    }
}

fn contains(value: &Value, needle: &str) -> bool {
    match value {
        Value::String(text) => text.contains(needle),
        Value::Array(items) => items.iter().any(|item| contains(item, needle)),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains(needle) || contains(value, needle)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(["<s>", "<|im_start|>", "<|im_end|>", "<|im|>", "[INST]", "!"].map(str::to_owned).to_vec())
    }

    fn sealed(text: &str) -> (String, Nonce) {
        let nonce = Nonce::random();
        let mut text = text.to_owned();
        guard().seal_text(&mut text, &nonce);
        (text, nonce)
    }

    #[test]
    fn text_without_a_piece_of_a_token_is_unchanged() {
        for text in ["", "plain", " {\"a\": \"b < c\"} ", "a|b", "<b>bold</b> ok", "!"] {
            assert_eq!(sealed(text).0, text);
        }
    }

    #[test]
    fn no_token_survives_in_sealed_text_and_opening_gives_the_text_back() {
        for text in ["<s>", "a<|im_start|><|im_end|>b", "<<s>>", "x <|im_", " im_end|> y", "<|im<|im|>|>", "é[INST]é["]
        {
            let (sealed, nonce) = sealed(text);
            assert_eq!(guard().open(&sealed, &nonce), [Segment::Text(text.to_owned())], "{text}");
        }
    }

    #[test]
    fn pieces_do_not_join_across_strings_even_when_trimmed() {
        let (left, nonce) = sealed("hello <|im_ ");
        let mut right = "\n end|> x".to_owned();
        guard().seal_text(&mut right, &nonce);
        let joined = format!("{}{}", left.trim(), right.trim());
        assert_eq!(guard().open(&joined, &nonce), [Segment::Text("hello <|im_end|> x".to_owned())]);
    }

    #[test]
    fn the_template_keeps_its_control_tokens_and_the_longest_wins() {
        let nonce = Nonce::random();
        let expected = [
            Segment::Control("<s>".into()),
            Segment::Control("<|im_start|>".into()),
            Segment::Text("hi!".into()),
            Segment::Control("<|im_end|>".into()),
        ];
        assert_eq!(guard().open("<s><|im_start|>hi!<|im_end|>", &nonce), expected);
    }

    #[test]
    fn keys_are_sealed_like_the_strings_that_name_them() {
        let mut value = serde_json::json!({"<s>": 1, "required": ["<s>"]});
        let nonce = Nonce::absent_from(&value);
        guard().seal(&mut value, &nonce);
        let key = value["required"][0].as_str().unwrap();
        assert_ne!(key, "<s>");
        assert_eq!(value[key], 1);
    }

    #[test]
    fn a_nonce_never_occurs_in_the_input() {
        let nonce = Nonce::random();
        assert!(contains(&serde_json::json!([{"k": nonce.0.clone()}]), &nonce.0));
        assert_ne!(Nonce::absent_from(&serde_json::json!([nonce.0.clone()])).0, nonce.0);
    }
}
