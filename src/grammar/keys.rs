//! Keys that may not be said again: a grammar cannot know which names an object with free names has had.
//!
//! Follows whatever looks like a JSON object in the turn's bytes. Relies on names having one spelling (admission sees to it);
//! knows no grammar, and not where a dialect puts its JSON.

use super::schema;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use toktrie::{SimpleVob, TokEnv, TrieNode};

/// A comment in a grammar that writes objects with free names itself, not by `%json`.
pub const FREE_NAMES: &str = "// free names\n";
/// How the compiler is told that an object takes any names.
const ANY_NAMES: &str = "\"additionalProperties\":{";
/// The same of names that match, of which there may be no more.
const SOME_NAMES: &str = "\"patternProperties\":{";

/// What ends the thoughts before an answer.
const CLOSE: &str = "</think>";
/// Bytes that are tried to lead a key away from those that were said.
const WAYS_OUT: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. \"";

/// What the tokens of one tokenizer can do to keys.
pub(super) struct KeyTokens {
    env: TokEnv,
    /// Tokens with two quotes or more: those that can begin and end a key.
    several_quotes: Vec<u32>,
    /// All tokens of the same bytes, where there are several: the trie finds one of them only.
    twins: HashMap<u32, Vec<u32>>,
}

impl KeyTokens {
    pub(super) fn new(env: &TokEnv) -> Self {
        let trie = env.tok_trie();
        let ids = 0..trie.vocab_size() as u32;
        let quotes = |id: u32| trie.token(id).iter().filter(|byte| **byte == b'"').count();
        let several_quotes = ids.clone().filter(|id| quotes(*id) > 1).collect();
        let mut groups: HashMap<&[u8], Vec<u32>> = HashMap::new();
        ids.filter(|id| !trie.token(*id).is_empty()).for_each(|id| groups.entry(trie.token(id)).or_default().push(id));
        let several = groups.into_values().filter(|group| group.len() > 1);
        let twins = several.flat_map(|group| group.clone().into_iter().map(move |id| (id, group.clone()))).collect();
        Self { env: Arc::clone(env), several_quotes, twins }
    }

    /// The token and those of the same bytes.
    fn with_twins(&self, token: u32) -> Vec<u32> {
        self.twins.get(&token).cloned().unwrap_or_else(|| vec![token])
    }
}

/// Follows one turn.
#[derive(Clone)]
pub(super) struct KeyGuard {
    tokens: Arc<KeyTokens>,
    reader: Reader,
    /// Whether names can run out.
    exhaustible: bool,
    /// How much of the end of the thoughts has come; `None` when there are none, or no more.
    closing: Option<usize>,
}

impl KeyGuard {
    /// `None` when the grammar has no free names.
    pub(super) fn of(lark: &str, tokens: &Arc<KeyTokens>) -> Option<Self> {
        let needed = [FREE_NAMES, ANY_NAMES, SOME_NAMES].iter().any(|sign| lark.contains(sign));
        // Names that must not match are the rest of a pattern, of which there may be few.
        let exhaustible = patterns(lark).any(|(pattern, value)| value == false || !schema::is_endless(&pattern));
        let closing = lark.contains(CLOSE).then_some(0);
        needed.then(|| Self { tokens: Arc::clone(tokens), reader: Reader::default(), exhaustible, closing })
    }

    /// Advances by a token.
    pub(super) fn follow(&mut self, token: u32) {
        let tokens = Arc::clone(&self.tokens);
        for &byte in tokens.env.tok_trie().token(token) {
            if self.reader.step(byte) {
                self.reader.keep_key();
            }
            self.close_thoughts(byte);
        }
    }

    /// Thoughts may quote anything, also half an object.
    fn close_thoughts(&mut self, byte: u8) {
        let Some(come) = self.closing else { return };
        let close = CLOSE.as_bytes();
        let come = if byte == close[come] { come + 1 } else { usize::from(byte == close[0]) };
        self.closing = (come < CLOSE.len()).then_some(come);
        if self.closing.is_none() {
            self.reader.forget();
        }
    }

    /// Whether the token says a key again.
    pub(super) fn repeats(&self, token: u32) -> bool {
        let bytes = self.tokens.env.tok_trie().token(token);
        let mut reader = self.reader.clone();
        bytes.iter().enumerate().any(|(at, &byte)| {
            if !reader.step(byte) {
                return false;
            }
            let repeats = reader.is_said();
            if !repeats && bytes[at + 1..].contains(&b'"') {
                reader.keep_key();
            }
            repeats
        })
    }

    /// Takes the tokens that say a key again from a mask.
    pub(super) fn restrict(&self, mask: &mut SimpleVob) {
        for &token in &self.tokens.several_quotes {
            if mask.is_allowed(token) && self.repeats(token) {
                mask.disallow_token(token);
            }
        }
        for rest in self.reader.completions() {
            self.forbid_start(&rest, mask);
        }
    }

    /// The tokens of a mask with which a key begins as one that the object has had. Where names can run out, there may be no
    /// other way to end it.
    pub(super) fn beginnings(&self, mask: &SimpleVob) -> Vec<u32> {
        let trie = self.tokens.env.tok_trie();
        let rests = self.reader.completions().filter(|_| self.exhaustible);
        let first: HashSet<u32> = rests.flat_map(|rest| trie.all_prefixes(&rest[..rest.len() - 1])).collect();
        let mut found: Vec<u32> = first.into_iter().flat_map(|token| self.tokens.with_twins(token)).collect();
        found.retain(|token| mask.is_allowed(*token));
        found
    }

    /// The key so far.
    pub(super) fn key(&self) -> &[u8] {
        &self.reader.key
    }

    /// Tokens of which any would lead the present key away from those that the object has had, if the grammar takes it.
    pub(super) fn ways_out(&self) -> impl Iterator<Item = u32> {
        let taken: HashSet<u8> = self.reader.completions().filter_map(|rest| rest.first().copied()).collect();
        let trie = self.tokens.env.tok_trie();
        WAYS_OUT.iter().filter(move |byte| !taken.contains(*byte)).filter_map(|byte| trie.token_id_at_bytes(&[*byte]))
    }

    /// Takes the tokens that begin so.
    fn forbid_start(&self, start: &[u8], mask: &mut SimpleVob) {
        let trie = self.tokens.env.tok_trie();
        let mut nodes: Vec<&TrieNode> = trie.child_at_bytes(trie.root(), start).into_iter().collect();
        while let Some(node) = nodes.pop() {
            let tokens = node.token_id().into_iter().flat_map(|token| self.tokens.with_twins(token));
            tokens.for_each(|token| mask.disallow_token(token));
            nodes.extend(trie.node_children(node));
        }
    }
}

/// The patterns of names, and what their values must be.
fn patterns(lark: &str) -> impl Iterator<Item = (String, Value)> {
    let schemas = lark.match_indices(SOME_NAMES).map(|(at, sign)| &lark[at + sign.len() - 1..]);
    let read = |text| serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>().next();
    schemas.filter_map(read).flatten().flatten()
}

/// Where a turn stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    /// Values and what is between them; or no JSON at all.
    #[default]
    Values,
    BeforeKey,
    Key {
        escaped: bool,
    },
    AfterKey,
    Text {
        escaped: bool,
    },
}

type Names = HashSet<Box<[u8]>>;

/// Follows JSON objects; forgets them where the text turns out to be none.
#[derive(Debug, Clone, Default)]
struct Reader {
    place: Place,
    /// Objects with the names they have had, and arrays (`None`). Shared with clones until one adds a name.
    open: Vec<Option<Arc<Names>>>,
    /// The key so far, as it is spelled.
    key: Vec<u8>,
}

impl Reader {
    /// Whether a key ends with this byte. It is [`Self::keep_key`] that adds it.
    fn step(&mut self, byte: u8) -> bool {
        match (self.place, byte) {
            // No string holds a line break, and no text a token's name.
            (Place::Key { .. } | Place::Text { .. }, 0..=0x1F | 0xFF) => self.forget(),
            (Place::Key { escaped: false }, b'"') => {
                self.place = Place::AfterKey;
                return true;
            }
            (Place::Key { escaped }, _) => {
                self.key.push(byte);
                self.place = Place::Key { escaped: !escaped && byte == b'\\' };
            }
            (Place::Text { escaped: false }, b'"') => self.place = Place::Values,
            (Place::Text { escaped }, _) => self.place = Place::Text { escaped: !escaped && byte == b'\\' },
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (Place::BeforeKey, b'"') => {
                self.key.clear();
                self.place = Place::Key { escaped: false };
            }
            (Place::AfterKey, b':') => self.place = Place::Values,
            (Place::BeforeKey, b'}') | (Place::Values, _) => self.step_values(byte),
            (Place::BeforeKey | Place::AfterKey, _) => {
                self.forget();
                self.step_values(byte);
            }
        }
        false
    }

    fn step_values(&mut self, byte: u8) {
        let inside = self.open.last();
        match byte {
            b'{' => {
                self.open.push(Some(Arc::default()));
                self.place = Place::BeforeKey;
            }
            b'[' if inside.is_some() => self.open.push(None),
            b'}' | b']' if inside.is_some_and(|names| names.is_some() == (byte == b'}')) => {
                self.open.pop();
                self.place = Place::Values;
            }
            b'}' | b']' => self.forget(),
            b',' if inside.is_some_and(Option::is_some) => self.place = Place::BeforeKey,
            b'"' if inside.is_some() => self.place = Place::Text { escaped: false },
            _ => {}
        }
    }

    fn forget(&mut self) {
        self.open.clear();
        self.place = Place::Values;
    }

    fn names(&self) -> Option<&Names> {
        self.open.last()?.as_deref()
    }

    /// Whether the object has had the key that has just ended.
    fn is_said(&self) -> bool {
        self.names().is_some_and(|names| names.contains(self.key.as_slice()))
    }

    fn keep_key(&mut self) {
        if let Some(Some(names)) = self.open.last_mut() {
            Arc::make_mut(names).insert(self.key.as_slice().into());
        }
    }

    /// What would end the present key as one that the object has had.
    fn completions(&self) -> impl Iterator<Item = Vec<u8>> {
        let (within, opening) = match self.place {
            Place::Key { .. } => (self.key.as_slice(), &b""[..]),
            _ => (&b""[..], &b"\""[..]),
        };
        let names = self.names().filter(|_| matches!(self.place, Place::Key { .. } | Place::BeforeKey));
        let rests = names.into_iter().flatten().filter_map(move |name| name.strip_prefix(within));
        rests.map(move |rest| [opening, rest, b"\""].concat())
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
