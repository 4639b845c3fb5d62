//! The lines of a file of any size, in batches that bound memory.
//!
//! A line that cannot be read (too long, no UTF-8) stands in its place with the reason. Knows nothing of what lines hold.

use super::DataError;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// A batch ends with the line that reaches one of these.
const BATCH_BYTES: usize = 16 << 20;
const BATCH_LINES: usize = 4096;
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Reads the next line into `line` and says whether it is whole: of one longer than `longest` bytes the rest is skipped.
/// `None` at the end.
pub(super) fn read_bounded(input: &mut impl BufRead, longest: usize, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    if io::Read::take(&mut *input, (longest as u64).saturating_add(1)).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    let whole = line.len() <= longest || line.ends_with(b"\n");
    if !whole {
        input.skip_until(b'\n')?;
    }
    Ok(Some(whole))
}

/// A line of a file that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Without its end, or why it cannot be read.
    pub text: Result<String, String>,
}

/// Reads a file in order, with a bar where somebody watches. A byte-order mark and blank lines are skipped, and lines of more
/// than `longest` bytes never held.
///
/// # Errors
/// When the file cannot be opened; a batch is an error when it cannot be read on.
pub fn batches(path: &Path, longest: usize) -> Result<impl Iterator<Item = Result<Vec<Line>, DataError>>, DataError> {
    let file = File::open(path).map_err(|error| DataError::file(path, error))?;
    let size = file.metadata().map_or(0, |found| found.len());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}");
    let bar = ProgressBar::new(size).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bar = bar.with_message(path.display().to_string()).with_finish(ProgressFinish::AndClear);
    Ok(Batches { path: path.to_owned(), input: BufReader::new(bar.wrap_read(file)), number: 0, longest })
}

struct Batches<R> {
    path: PathBuf,
    input: R,
    /// Of the line read last.
    number: u64,
    longest: usize,
}

impl<R: BufRead> Iterator for Batches<R> {
    type Item = Result<Vec<Line>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch().map_err(|error| DataError::file(&self.path, error));
        batch.map(|lines| (!lines.is_empty()).then_some(lines)).transpose()
    }
}

impl<R: BufRead> Batches<R> {
    fn batch(&mut self) -> io::Result<Vec<Line>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let Some(line) = self.line()? else { break };
            bytes += line.text.as_ref().map_or(0, String::len);
            lines.push(line);
        }
        Ok(lines)
    }

    /// The next line that is not blank.
    fn line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        loop {
            let Some(whole) = read_bounded(&mut self.input, self.longest, &mut bytes)? else { return Ok(None) };
            self.number += 1;
            if !whole {
                let reason = format!("longer than {} bytes; raise --max-row-mib to take it", self.longest);
                return Ok(Some(Line { number: self.number, text: Err(reason) }));
            }
            let line = bytes.strip_prefix(BOM).filter(|_| self.number == 1).unwrap_or(&bytes).trim_ascii();
            if !line.is_empty() {
                let text = str::from_utf8(line).map(str::to_owned);
                let text = text.map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1));
                return Ok(Some(Line { number: self.number, text }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], longest: usize) -> Vec<Line> {
        let batches = Batches { path: "x".into(), input: BufReader::with_capacity(7, text), number: 0, longest };
        batches.flat_map(Result::unwrap).collect()
    }

    fn line(number: u64, text: Result<&str, &str>) -> Line {
        Line { number, text: text.map(str::to_owned).map_err(str::to_owned) }
    }

    #[test]
    fn ends_of_lines_marks_and_blank_lines_are_no_text() {
        let lines = read(b"\xEF\xBB\xBFone\r\n\r\n  \ntwo\n\n\xC3\xA9 three", 100);
        assert_eq!(lines, [line(1, Ok("one")), line(4, Ok("two")), line(6, Ok("\u{e9} three"))]);
        assert!(read(b"", 100).is_empty());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told_by_its_number_and_the_next_one_is_read() {
        let lines = read(b"0123456789\n012345678901\n\xFF\xFE\nlast\n", 10);
        let long = "longer than 10 bytes; raise --max-row-mib to take it";
        let expected =
            [line(1, Ok("0123456789")), line(2, Err(long)), line(3, Err("not UTF-8 at byte 1")), line(4, Ok("last"))];
        assert_eq!(lines, expected);
        assert_eq!(read(b"01234567890", 10), [line(1, Err(long))]);
    }

    #[test]
    fn batches_end_with_the_line_that_fills_them_and_lose_none() {
        let text: String = (0..BATCH_LINES + 3).map(|n| format!("{n}\n")).collect();
        let batches = Batches { path: "x".into(), input: text.as_bytes(), number: 0, longest: 100 };
        let batches: Vec<_> = batches.map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH_LINES, 3]);
        assert_eq!(batches[1][2], line(BATCH_LINES as u64 + 3, Ok(&(BATCH_LINES + 2).to_string())));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = batches(Path::new("/nowhere/x.jsonl"), 100).err().unwrap().to_string();
        assert!(error.contains("/nowhere/x.jsonl"), "{error}");
    }
}
