//! One JSON array over a whole file: each element a row, wherever its lines break.
//!
//! Finds where elements end (`element`); what is between, the JSON parser reads.

use super::element::{Element, Place, Step};
use super::{Flaw, Reason, Row};
use std::io::{self, BufRead};

pub(super) struct Elements<R> {
    input: R,
    limit: usize,
    state: State,
    place: Place,
    element: Element,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    Inside,
    After,
    Over,
}

/// Goes on up to a byte like these.
fn to(found: bool) -> Step {
    if found { Step::End } else { Step::On }
}

impl<R: BufRead> Elements<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, limit, state: State::Before, place: Place::START, element: Element::default() }
    }

    /// Reads up to the byte at which `step` ends, and gives it; `None` at the end of the file.
    fn until(&mut self, mut step: impl FnMut(&mut Element, u8, Place) -> Step) -> io::Result<Option<u8>> {
        loop {
            let again = self.element.take_again();
            let chunk = if again.is_empty() { self.input.fill_buf()? } else { &again[..] };
            if chunk.is_empty() {
                return Ok(None);
            }
            let (mut read, mut end) = (0, None);
            for &byte in chunk {
                let next = step(&mut self.element, byte, self.place);
                end = matches!(next, Step::End | Step::EndBefore).then_some(byte);
                if matches!(next, Step::On | Step::End) {
                    self.place.pass(byte);
                    read += 1;
                }
                if !matches!(next, Step::On) {
                    break;
                }
            }
            match again.is_empty() {
                true => self.input.consume(read),
                false => self.element.put_back(&again[read..]),
            }
            if end.is_some() {
                return Ok(end);
            }
        }
    }

    /// The next element; `None` after the last.
    fn element(&mut self) -> io::Result<Option<Row>> {
        self.element.clear();
        let limit = self.limit;
        let end = self.until(|element, byte, place| element.take(byte, place, limit))?;
        let empty = self.element.is_empty();
        match end {
            None => {
                self.state = State::Over;
                let size = self.element.size();
                let detail = format!("the file ends inside this element, of which {size} bytes are not read");
                let line = if empty { self.place.line } else { self.element.line() };
                return Ok(Some(Row::flawed(line, Flaw::new(Reason::Truncated, detail))));
            }
            Some(b']') => self.state = State::After,
            Some(_) if empty => return Ok(Some(self.flawed("nothing between two commas"))),
            Some(_) => {}
        }
        Ok((!empty).then(|| self.element.row(limit)))
    }

    fn flawed(&self, detail: impl Into<String>) -> Row {
        Row::flawed(self.place.line, Flaw::new(Reason::Json, detail))
    }

    /// What stands behind the array, where that was a bracket too many: more of it.
    fn rest(&mut self) -> io::Result<Option<Row>> {
        let stray = self.until(|_, byte, _| to(!byte.is_ascii_whitespace()))?;
        let Some(stray) = stray else {
            self.state = State::Over;
            return Ok(None);
        };
        let flawed = self.flawed("a bracket too many before this");
        let end = match stray {
            b'}' => self.until(|_, byte, _| to(b",]".contains(&byte)))?,
            other => Some(other),
        };
        self.state = match end {
            Some(b',') => State::Inside,
            Some(b']') => State::After,
            _ => State::Over,
        };
        if self.state != State::Over || end.is_none() {
            return Ok(Some(flawed));
        }
        let (line, mut size) = (self.place.line, 1_u64);
        self.until(|_, _, _| {
            size += 1;
            Step::On
        })?;
        let detail = format!("text after the array, of which {size} bytes are not read");
        Ok(Some(Row::flawed(line, Flaw::new(Reason::Json, detail))))
    }

    fn step(&mut self) -> io::Result<Option<Row>> {
        if self.state == State::Before {
            self.until(|_, byte, _| to(byte == b'['))?;
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
