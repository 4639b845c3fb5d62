//! Reads calls out of an assistant turn piece by piece, for every dialect that wraps a name and a JSON object in fixed text.
//!
//! Arguments pass through as they were written, never parsed and written again. Any split of the text gives the same calls:
//! whatever is not yet certain stays in the buffer. Knows no schema.

use super::{Delta, TurnParser};

/// The fixed text around a call, as tokens between which white space may stand.
#[derive(Debug)]
pub(super) struct Format {
    /// From the start of the first call to the function's name.
    pub(super) open: &'static [&'static str],
    /// What stands before the name inside its quotes.
    pub(super) name_prefix: &'static str,
    /// From the name to the arguments.
    pub(super) between: &'static [&'static str],
    /// After the arguments.
    pub(super) close: &'static [&'static str],
    /// From `close` to the name of a further call.
    pub(super) next: &'static [&'static str],
    /// From `close` to the end of all calls.
    pub(super) end: &'static [&'static str],
    /// Calls may stand anywhere among words; otherwise a turn is either one or the other.
    pub(super) words_around: bool,
}

/// Where the parser is; the buffer begins with what the state expects.
#[derive(Debug)]
enum State {
    /// Nothing is known yet, or words among which a call may begin.
    Open,
    Arguments(ObjectEnd),
    Close,
    /// After a call, where calls follow one another directly.
    Next,
    /// Only words can follow.
    Words,
}

/// Why a piece of fixed text was not read.
enum Stop {
    /// The text ends inside it.
    More,
    /// Something else stands there.
    Mismatch,
}

/// The incremental parser of a [`Format`].
pub(super) struct EnvelopeParser {
    format: &'static Format,
    state: State,
    buffer: String,
    calls: usize,
    /// White space right after a call belongs to nobody.
    drop_space: bool,
    deltas: Vec<Delta>,
}

impl EnvelopeParser {
    pub(super) fn new(format: &'static Format) -> Self {
        Self { format, state: State::Open, buffer: String::new(), calls: 0, drop_space: false, deltas: Vec::new() }
    }

    /// Reads as far as the buffer goes; true when there may be more to read.
    fn step(&mut self) -> bool {
        match &mut self.state {
            State::Open if self.format.words_around => self.find_call(),
            State::Open => self.start_or_words(self.format.open),
            State::Arguments(_) => self.read_arguments(),
            State::Close => self.read_close(),
            State::Next => self.read_next(),
            State::Words => {
                self.say(self.buffer.len());
                false
            }
        }
    }

    /// Words up to the next opening tag.
    fn find_call(&mut self) -> bool {
        let tag = self.format.open[0];
        let Some(at) = self.buffer.find(tag) else {
            let held = held_back(&self.buffer, tag);
            self.say(self.buffer.len() - held);
            return false;
        };
        self.say(self.buffer[..at].trim_end().len());
        let at = self.buffer.len() - self.buffer.trim_start().len();
        match read_head(&self.buffer, self.format.open, self.format) {
            Ok((name, length)) => self.start_call(name, length),
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => {
                self.say(at + tag.len());
                true
            }
        }
    }

    fn start_or_words(&mut self, opening: &[&str]) -> bool {
        match read_head(&self.buffer, opening, self.format) {
            Ok((name, length)) => self.start_call(name, length),
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => {
                self.state = State::Words;
                true
            }
        }
    }

    fn start_call(&mut self, name: String, head: usize) -> bool {
        self.buffer.drain(..head);
        self.deltas.push(Delta::CallStart { index: self.calls, name });
        self.state = State::Arguments(ObjectEnd::default());
        true
    }

    fn read_arguments(&mut self) -> bool {
        let State::Arguments(scanner) = &mut self.state else { return false };
        let end = scanner.find(&self.buffer);
        let fragment: String = self.buffer.drain(..end.unwrap_or(self.buffer.len())).collect();
        if !fragment.is_empty() {
            self.deltas.push(Delta::CallArguments { index: self.calls, fragment });
        }
        if end.is_some() {
            self.deltas.push(Delta::CallEnd { index: self.calls });
            self.calls += 1;
            self.drop_space = true;
            self.state = State::Close;
        }
        end.is_some()
    }

    fn read_close(&mut self) -> bool {
        let after = if self.format.words_around { State::Open } else { State::Next };
        self.read_fixed(self.format.close, after)
    }

    fn read_next(&mut self) -> bool {
        match Cursor::new(&self.buffer).literals(&self.format.next[..1]) {
            Ok(()) => self.start_or_words(self.format.next),
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => self.read_fixed(self.format.end, State::Words),
        }
    }

    fn read_fixed(&mut self, tokens: &[&str], after: State) -> bool {
        let mut cursor = Cursor::new(&self.buffer);
        match cursor.literals(tokens) {
            Ok(()) => {
                let length = cursor.at;
                self.buffer.drain(..length);
                self.state = after;
                true
            }
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => {
                self.state = State::Words;
                true
            }
        }
    }

    /// Takes `length` bytes of words from the buffer.
    fn say(&mut self, length: usize) {
        let mut text: String = self.buffer.drain(..length).collect();
        if self.drop_space {
            text = text.trim_start().to_owned();
        }
        if !text.is_empty() {
            self.drop_space = false;
            self.deltas.push(Delta::Text(text));
        }
    }
}

impl TurnParser for EnvelopeParser {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        self.buffer.push_str(text);
        while self.step() {}
        std::mem::take(&mut self.deltas)
    }

    fn finish(&mut self) -> Vec<Delta> {
        // A first call that was cut before its arguments is shown as it was written; later punctuation says nothing.
        if matches!(self.state, State::Open | State::Words) {
            self.say(self.buffer.len());
        }
        self.buffer.clear();
        std::mem::take(&mut self.deltas)
    }
}

/// How many bytes at the end of `text` may belong to a tag that is still being written, white space before it included.
fn held_back(text: &str, tag: &str) -> usize {
    let partial = (1..tag.len()).rev().find(|&length| text.ends_with(&tag[..length])).unwrap_or(0);
    text.len() - text[..text.len() - partial].trim_end().len()
}

/// Reads from the start of a call to the brace of its arguments: the function's name, and where the brace stands.
fn read_head(text: &str, opening: &[&str], format: &Format) -> Result<(String, usize), Stop> {
    let mut cursor = Cursor::new(text);
    cursor.literals(opening)?;
    let name = cursor.string()?;
    cursor.literals(format.between)?;
    cursor.skip_space();
    let brace = cursor.at;
    cursor.literals(&["{"])?;
    let name = name.strip_prefix(format.name_prefix).map_or(name.clone(), str::to_owned);
    Ok((name, brace))
}

/// A place in a text that may end at any point.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn literals(&mut self, literals: &[&str]) -> Result<(), Stop> {
        for literal in literals {
            self.skip_space();
            if !self.rest().starts_with(literal) {
                return Err(if literal.starts_with(self.rest()) { Stop::More } else { Stop::Mismatch });
            }
            self.at += literal.len();
        }
        Ok(())
    }

    /// A JSON string, decoded.
    fn string(&mut self) -> Result<String, Stop> {
        self.literals(&["\""])?;
        let start = self.at - 1;
        let mut escaped = false;
        for (offset, byte) in self.rest().bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at += offset + 1;
                    return serde_json::from_str(&self.text[start..self.at]).map_err(|_| Stop::Mismatch);
                }
                _ => {}
            }
        }
        Err(Stop::More)
    }
}

/// Finds where a JSON object ends, across pieces.
#[derive(Debug, Default)]
struct ObjectEnd {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl ObjectEnd {
    /// The position after the closing brace, if it stands in this piece.
    fn find(&mut self, piece: &str) -> Option<usize> {
        let closes = |scanner: &mut Self, byte| {
            scanner.advance(byte);
            scanner.depth == 0
        };
        piece.bytes().position(|byte| closes(self, byte)).map(|at| at + 1)
    }

    fn advance(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
