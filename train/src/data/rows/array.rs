//! One JSON array over a whole file: each element a row, wherever its lines break.
//!
//! Finds where elements end by quotes and brackets alone; what is between, the JSON parser reads.

use super::{Flaw, Reason, Row, parse};
use std::io::{self, BufRead};

pub(super) struct Elements<R> {
    input: R,
    limit: usize,
    state: State,
    line: u64,
    element: Element,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    Inside,
    After,
    Over,
}

/// The element that is being read.
#[derive(Default)]
struct Element {
    line: u64,
    bytes: Vec<u8>,
    too_long: bool,
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Element {
    /// Whether this byte, a comma or a closing bracket, ends the element.
    fn ends_at(&mut self, byte: u8) -> bool {
        if std::mem::take(&mut self.escaped) {
            return false;
        }
        match byte {
            b'\\' => self.escaped = self.quoted,
            b'"' => self.quoted = !self.quoted,
            // No string has one: a quote is missing. What follows the next comma is readable again.
            b'\n' if self.quoted => (self.quoted, self.depth) = (false, 0),
            _ if self.quoted => {}
            b',' | b']' if self.depth == 0 => return true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }

    fn push(&mut self, byte: u8, line: u64, limit: usize) {
        if self.bytes.is_empty() {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.line = line;
        }
        match self.bytes.len() < limit {
            true => self.bytes.push(byte),
            false => self.too_long = true,
        }
    }

    fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self { bytes, ..Self::default() };
    }
}

impl<R: BufRead> Elements<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, limit, state: State::Before, line: 1, element: Element::default() }
    }

    /// Reads up to the byte that `stop` names, and gives it; `None` at the end of the file.
    fn until(&mut self, mut stop: impl FnMut(&mut Element, u8, u64) -> bool) -> io::Result<Option<u8>> {
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            for (at, &byte) in chunk.iter().enumerate() {
                let line = self.line;
                self.line += u64::from(byte == b'\n');
                if stop(&mut self.element, byte, line) {
                    self.input.consume(at + 1);
                    return Ok(Some(byte));
                }
            }
            let read = chunk.len();
            self.input.consume(read);
        }
    }

    /// The next element; `None` after the last.
    fn element(&mut self) -> io::Result<Option<Row>> {
        self.element.clear();
        let limit = self.limit;
        let end = self.until(|element, byte, line| {
            let ends = element.ends_at(byte);
            if !ends {
                element.push(byte, line, limit);
            }
            ends
        })?;
        let empty = self.element.bytes.is_empty();
        match end {
            None => {
                self.state = State::Over;
                let flaw = Flaw::new(Reason::Truncated, "the file ends inside the array");
                return Ok(Some(Row { line: if empty { self.line } else { self.element.line }, json: Err(flaw) }));
            }
            Some(b']') => self.state = State::After,
            Some(_) if empty => {
                let flaw = Flaw::new(Reason::Json, "nothing between two commas");
                return Ok(Some(Row { line: self.line, json: Err(flaw) }));
            }
            Some(_) => {}
        }
        Ok((!empty).then(|| self.row()))
    }

    fn row(&self) -> Row {
        let json = match self.element.too_long {
            true => Err(Flaw::too_long(self.limit)),
            false => parse(&self.element.bytes),
        };
        Row { line: self.element.line, json }
    }

    /// What stands behind the array.
    fn rest(&mut self) -> io::Result<Option<Row>> {
        self.state = State::Over;
        let stray = self.until(|_, byte, _| !byte.is_ascii_whitespace())?;
        let flaw = || Flaw::new(Reason::Json, "text after the array; nothing of it is read");
        Ok(stray.map(|_| Row { line: self.line, json: Err(flaw()) }))
    }

    fn step(&mut self) -> io::Result<Option<Row>> {
        if self.state == State::Before {
            self.until(|_, byte, _| byte == b'[')?;
            self.state = State::Inside;
        }
        if self.state == State::Inside
            && let Some(row) = self.element()?
        {
            return Ok(Some(row));
        }
        if self.state == State::After { self.rest() } else { Ok(None) }
    }
}

impl<R: BufRead> Iterator for Elements<R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
