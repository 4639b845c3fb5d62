//! A CSV table (RFC 4180) whose first line names the columns: each row an object of strings.
//!
//! Reads through the state machine below the `csv` crate rather than that crate, whose reader holds a cell however long it is.

use super::{Flaw, Reason, Row, text};
use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value as Json};
use std::io::{self, BufRead};

/// Columns of the widest table.
const COLUMNS: usize = 1024;

pub(super) struct Table<R> {
    input: R,
    reader: Reader,
    /// Line of the next byte.
    line: u64,
    columns: Vec<String>,
    /// The cells of a row, one behind the other.
    cells: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// A row as it lies in the buffers.
struct Record {
    line: u64,
    /// Number of cells, or that they do not fit.
    cells: Option<usize>,
    /// Where the file ends inside quotes, the bytes of the row.
    open: Option<u64>,
}

/// Whether a byte stands inside quotes. Only those at the beginning of a cell open it; within one they are text.
#[derive(Default)]
struct Quotes {
    open: bool,
    /// Whether the cell has begun.
    begun: bool,
    /// Whether the byte before was a quote that may have closed the cell.
    closed: bool,
}

impl Quotes {
    fn see(&mut self, byte: u8) {
        let closed = std::mem::take(&mut self.closed);
        match byte {
            b'"' if self.open => (self.open, self.closed) = (false, true),
            b'"' if closed || !self.begun => self.open = true,
            b',' | b'\r' | b'\n' if !self.open => {
                self.begun = false;
                return;
            }
            _ => {}
        }
        self.begun = true;
    }
}

impl<R: BufRead> Table<R> {
    /// Reads the header. A flaw there leaves no table.
    pub(super) fn new(input: R, limit: usize) -> io::Result<Result<Self, Flaw>> {
        let (cells, ends) = (vec![0; limit], vec![0; COLUMNS]);
        let mut table = Self { input, reader: Reader::new(), line: 1, columns: Vec::new(), cells, ends };
        let Some(header) = table.record()? else { return Ok(Ok(table)) };
        Ok(table.texts(&header).and_then(distinct).map(|columns| Self { columns, ..table }))
    }

    fn record(&mut self) -> io::Result<Option<Record>> {
        self.skip_line_ends()?;
        let mut record = Record { line: self.line, cells: None, open: None };
        let (mut written, mut ended, mut fits) = (0, 0, true);
        let (mut quotes, mut size) = (Quotes::default(), 0);
        loop {
            let chunk = self.input.fill_buf()?;
            let (result, read, more, cells) =
                self.reader.read_record(chunk, &mut self.cells[written..], &mut self.ends[ended..]);
            chunk[..read].iter().for_each(|&byte| quotes.see(byte));
            size += read as u64;
            self.line += chunk[..read].iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.input.consume(read);
            (written, ended) = (written + more, ended + cells);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (written, ended, fits) = (0, 0, false);
                }
                ReadRecordResult::Record => {
                    record.open = quotes.open.then_some(size);
                    record.cells = fits.then_some(ended);
                    return Ok(Some(record));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    /// Skips empty lines, which are no rows, and what is left of a line's end.
    fn skip_line_ends(&mut self) -> io::Result<()> {
        loop {
            let chunk = self.input.fill_buf()?;
            let ends = chunk.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            self.line += chunk[..ends].iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.input.consume(ends);
            if ends == 0 {
                return Ok(());
            }
        }
    }

    fn texts(&self, record: &Record) -> Result<Vec<String>, Flaw> {
        if let Some(size) = record.open {
            let detail = format!("a quote opens here and never closes; the {size} bytes after it are not read");
            return Err(Flaw::new(Reason::Truncated, detail));
        }
        let cells = record.cells.ok_or_else(|| Flaw::too_long(self.cells.len()))?;
        let start = |cell: usize| cell.checked_sub(1).map_or(0, |before| self.ends[before]);
        (0..cells).map(|cell| Ok(text(&self.cells[start(cell)..self.ends[cell]])?.to_owned())).collect()
    }

    fn object(&self, record: &Record) -> Result<Json, Flaw> {
        let texts = self.texts(record)?;
        if texts.len() != self.columns.len() {
            let detail = format!("{} cells, but {} columns", texts.len(), self.columns.len());
            return Err(Flaw::new(Reason::Cells, detail));
        }
        let cells = self.columns.iter().cloned().zip(texts.into_iter().map(Json::String));
        Ok(Json::Object(cells.collect::<Map<_, _>>()))
    }
}

/// The names of columns, if no two are the same.
fn distinct(names: Vec<String>) -> Result<Vec<String>, Flaw> {
    let names: Vec<_> = names.into_iter().map(|name| name.trim().to_owned()).collect();
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => Err(Flaw::new(Reason::Cells, format!("two columns are called `{twice}`"))),
        None => Ok(names),
    }
}

impl<R: BufRead> Iterator for Table<R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.record().transpose()?;
        Some(record.map(|record| Row { line: record.line, json: self.object(&record), text: String::new() }))
    }
}
