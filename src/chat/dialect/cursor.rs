//! A place in a text that may end at any point, and what can be read there. Knows no dialect.

use super::super::SPACE;
use super::description::{ID_LENGTH, is_name};

/// Why something was not read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stop {
    /// The text ends inside it.
    More,
    /// Something else stands there.
    Mismatch,
}

pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(SPACE).len();
    }

    /// These texts one after the other, with white space before any.
    pub(super) fn literals(&mut self, literals: &[impl AsRef<str>]) -> Result<(), Stop> {
        for literal in literals.iter().map(AsRef::as_ref) {
            self.skip_space();
            if !self.rest().starts_with(literal) {
                return Err(if literal.starts_with(self.rest()) { Stop::More } else { Stop::Mismatch });
            }
            self.at += literal.len();
        }
        Ok(())
    }

    /// The same where they may be left out; false when they are.
    pub(super) fn optional(&mut self, literals: &[impl AsRef<str>]) -> Result<bool, Stop> {
        let start = self.at;
        match self.literals(literals) {
            Ok(()) => Ok(!literals.is_empty()),
            Err(Stop::More) => Err(Stop::More),
            Err(Stop::Mismatch) => {
                self.at = start;
                Ok(false)
            }
        }
    }

    /// A function's name without quotes; something else must follow it.
    pub(super) fn name(&mut self) -> Result<String, Stop> {
        self.skip_space();
        let length = self.rest().find(|c| !is_name(c)).ok_or(Stop::More)?;
        let name = &self.rest()[..length];
        self.at += length;
        if name.is_empty() { Err(Stop::Mismatch) } else { Ok(name.to_owned()) }
    }

    /// An id of letters and digits.
    pub(super) fn id(&mut self) -> Result<(), Stop> {
        self.skip_space();
        let length = self.rest().bytes().take(ID_LENGTH).take_while(u8::is_ascii_alphanumeric).count();
        match length {
            ID_LENGTH => {
                self.at += length;
                Ok(())
            }
            _ if length == self.rest().len() => Err(Stop::More),
            _ => Err(Stop::Mismatch),
        }
    }

    /// A JSON string, decoded.
    pub(super) fn string(&mut self) -> Result<String, Stop> {
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
pub(super) struct ObjectEnd {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl ObjectEnd {
    /// The position after the closing brace, if it stands in this piece.
    pub(super) fn find(&mut self, piece: &str) -> Option<usize> {
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
