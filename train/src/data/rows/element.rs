//! Where one element of a JSON array ends, seen from quotes and brackets alone.
//!
//! Of a proper element that is the comma or bracket behind it. One that lacks a quote or a bracket must not take those behind it
//! along, so what no JSON has tells where it ends: a closing bracket closes everything up to the one that it matches, no object
//! has a `{` after a comma, no string a line end, and no letter follows a closing quote.

use super::{Flaw, Row};
use std::mem;

/// Brackets that are told apart; the JSON parser takes no more.
const DEEPEST: usize = 128;

/// Where a byte stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: u64,
    column: usize,
    /// Whether its line is blank before it.
    first: bool,
}

impl Place {
    pub(super) const START: Self = Self { line: 1, column: 0, first: true };

    pub(super) fn pass(&mut self, byte: u8) {
        *self = match byte {
            b'\n' => Self { line: self.line + 1, ..Self::START },
            _ => Self { column: self.column + 1, first: self.first && byte.is_ascii_whitespace(), ..*self },
        };
    }
}

/// What comes after a byte was looked at.
pub(super) enum Step {
    On,
    /// The byte ends the element.
    End,
    /// The element has ended before the byte, which begins the next one.
    EndBefore,
    /// What was held back is to be looked at again, then the byte.
    Again,
}

/// The element that is being read.
#[derive(Default)]
pub(super) struct Element {
    line: u64,
    /// Where its line begins with it.
    column: Option<usize>,
    bytes: Vec<u8>,
    /// Bytes that it has, held or not.
    size: u64,
    too_long: bool,
    /// Open brackets, and how many more there are.
    open: Vec<u8>,
    deeper: usize,
    quoted: bool,
    escaped: bool,
    /// Where the last string begins.
    string: usize,
    /// Whether the byte before closed it.
    closed: bool,
    /// Whether a line has ended inside a string, after a comma.
    torn: bool,
    /// The last byte that was not blank.
    last: u8,
    again: Vec<u8>,
}

impl Element {
    /// Takes the next byte of the file, and holds it if it is its own.
    pub(super) fn take(&mut self, byte: u8, place: Place, limit: usize) -> Step {
        let step = self.step(byte, place);
        if matches!(step, Step::On) {
            self.push(byte, place, limit);
        }
        step
    }

    fn step(&mut self, byte: u8, place: Place) -> Step {
        if self.quoted {
            self.in_string(byte);
            return Step::On;
        }
        let torn = !byte.is_ascii_whitespace() && mem::take(&mut self.torn);
        let word = byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
        if mem::take(&mut self.closed) && word {
            return self.reopen(byte);
        }
        match byte {
            b'"' => (self.quoted, self.string) = (true, self.bytes.len()),
            b',' | b']' if self.open.is_empty() => return Step::End,
            b'{' if self.is_next(torn, place) => return Step::EndBefore,
            b'{' | b'[' if self.open.len() < DEEPEST => self.open.push(byte),
            b'{' | b'[' => self.deeper += 1,
            b'}' | b']' if self.deeper > 0 => self.deeper -= 1,
            b'}' => drop(self.close(b'{')),
            // None was open but that of the array.
            b']' if !self.close(b'[') => return Step::End,
            _ => {}
        }
        Step::On
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => (self.quoted, self.closed) = (false, true),
            b'\n' => (self.quoted, self.torn) = (false, self.last == b','),
            _ => {}
        }
    }

    /// The last string was none, but began with the quote that should end another one. What it held is looked at again.
    fn reopen(&mut self, byte: u8) -> Step {
        if self.too_long {
            self.quoted = true;
            self.in_string(byte);
            return Step::On;
        }
        self.again = self.bytes.split_off(self.string + 1);
        self.size -= self.again.len() as u64;
        Step::Again
    }

    /// Closes everything up to a bracket of this kind; whether there is one.
    fn close(&mut self, kind: u8) -> bool {
        let matching = self.open.iter().rposition(|&open| open == kind);
        self.open.truncate(matching.unwrap_or(self.open.len()));
        matching.is_some()
    }

    /// Whether a `{` begins the next element. In this one it closes the objects in which it cannot stand. Where elements begin
    /// lines, they begin them alike.
    fn is_next(&mut self, torn: bool, place: Place) -> bool {
        if self.bytes.is_empty() || self.deeper > 0 {
            return false;
        }
        let alike = !place.first || self.column.is_none_or(|column| column == place.column);
        if torn && alike {
            return true;
        }
        while self.last == b',' && self.open.len() > usize::from(!alike) && self.open.last() == Some(&b'{') {
            self.open.pop();
        }
        self.open.is_empty()
    }

    fn push(&mut self, byte: u8, place: Place, limit: usize) {
        if self.bytes.is_empty() {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.line = place.line;
            self.column = place.first.then_some(place.column);
        }
        self.size += 1;
        if !byte.is_ascii_whitespace() {
            self.last = byte;
        }
        match self.bytes.len() < limit {
            true => self.bytes.push(byte),
            false => self.too_long = true,
        }
    }

    /// Makes room for the next one.
    pub(super) fn clear(&mut self) {
        let (mut bytes, again) = (mem::take(&mut self.bytes), mem::take(&mut self.again));
        bytes.clear();
        *self = Self { bytes, again, ..Self::default() };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What is to be looked at again, before the file is read on.
    pub(super) fn take_again(&mut self) -> Vec<u8> {
        mem::take(&mut self.again)
    }

    pub(super) fn put_back(&mut self, again: &[u8]) {
        self.again = again.to_vec();
    }

    pub(super) fn row(&self, limit: usize) -> Row {
        match self.too_long {
            true => Row::flawed(self.line, Flaw::too_long(limit)),
            false => Row::of(self.line, &self.bytes),
        }
    }
}
