//! Opens a data file and sees which kind it is: by its name for tables, by its first character otherwise.

use super::array::Elements;
use super::lines::Lines;
use super::table::Table;
use super::{LONGEST, Rows};
use crate::data::DataError;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// First bytes of files that hold data in another form, and what to do with them. A `ustar` archive has its mark further back.
const FOREIGN: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "is compressed; unpack it first (gunzip)"),
    (b"PK\x03\x04", "is a zip archive; unpack it first (unzip)"),
    (b"\x28\xb5\x2f\xfd", "is compressed; unpack it first (unzstd)"),
    (b"PAR1", "is a Parquet file; convert it to JSON lines first"),
    (b"\xff\xfe", "is UTF-16; convert it first (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "is UTF-16; convert it first (iconv -f UTF-16 -t UTF-8)"),
];
const TAR_MARK: std::ops::Range<usize> = 257..262;

/// The rows of a file, of which none longer than `longest` bytes is taken ([`LONGEST`] unless asked otherwise).
///
/// # Errors
/// A file that cannot be read, is an archive or no text, or a table without a readable header.
pub fn open(path: &Path, longest: Option<usize>) -> Result<Rows, DataError> {
    let limit = longest.unwrap_or(LONGEST);
    let file = File::open(path).map_err(|error| DataError::file(path, error))?;
    let mut input = BufReader::with_capacity(CHUNK, file);
    let start = input.fill_buf().map_err(|error| DataError::file(path, error))?;
    refuse_foreign(path, start)?;
    let bom = if start.starts_with(BOM) { BOM.len() } else { 0 };
    let first = start[bom..].trim_ascii_start().first().copied();
    input.consume(bom);
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        let table = Table::new(input, limit).map_err(|error| DataError::file(path, error))?;
        return Ok(Box::new(table.map_err(|flaw| DataError::file(path, format!("header: {flaw}")))?));
    }
    Ok(if first == Some(b'[') { Box::new(Elements::new(input, limit)) } else { Box::new(Lines::new(input, limit)) })
}

fn refuse_foreign(path: &Path, start: &[u8]) -> Result<(), DataError> {
    let mark = FOREIGN.iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, remedy)| *remedy);
    let tar = (start.get(TAR_MARK) == Some(b"ustar")).then_some("is a tar archive; unpack it first (tar -x)");
    mark.or(tar).map_or(Ok(()), |remedy| Err(DataError::file(path, remedy)))
}
