//! JSON lines: one row a line, empty lines apart.

use super::{Flaw, Row};
use crate::data::lines::read_bounded;
use std::io::{self, BufRead};

pub(super) struct Lines<R> {
    input: R,
    limit: usize,
    /// Of the line read last.
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, limit, number: 0, line: Vec::new() }
    }

    /// Reads a line and says whether all of it is held; `None` at the end.
    fn read(&mut self) -> io::Result<Option<bool>> {
        let whole = read_bounded(&mut self.input, self.limit, &mut self.line)?;
        self.number += u64::from(whole.is_some());
        Ok(whole)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = match self.read() {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(false)) => Row::flawed(self.number, Flaw::too_long(self.limit)),
                Ok(Some(true)) if self.line.trim_ascii().is_empty() => continue,
                Ok(Some(true)) => Row::of(self.number, self.line.trim_ascii()),
            };
            return Some(Ok(row));
        }
    }
}
