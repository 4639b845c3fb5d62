//! A PyTorch file on disk: its pickle in memory, its tensors read one at a time when they are asked for.

use super::node::{Item, Pickle};
use super::tensor::{Records, TorchTensor, describe};
use super::{Content, PickleError, machine, refuse};
use crate::error::{Result, TrainError};
use crate::tensors::Raw;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// Longest pickle: 10,000 tensors take about 2 MB.
const MAX_PICKLE_BYTES: u64 = 1 << 26;
/// Most files in the archive.
const MAX_RECORDS: usize = 1 << 20;

/// An opened file.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    file: File,
    pickle: Pickle,
    storages: Records,
}

impl TorchFile {
    /// Opens a file and reads its pickle, which may hold what `content` says; nothing in it is ever called.
    ///
    /// # Errors
    /// When it is no such file, is damaged, or holds anything else; the message names it.
    pub fn open(path: &Path, content: Content) -> Result<Self> {
        let file = File::open(path).map_err(TrainError::io(path))?;
        let wrong = |error: PickleError| TrainError::input(path, error.to_string());
        let (pickle, storages) = records(path, &file)?;
        let mut bytes = vec![0; (pickle.end - pickle.start) as usize];
        file.read_exact_at(&mut bytes, pickle.start).map_err(TrainError::io(path))?;
        let pickle = machine::run(&bytes, content).map_err(wrong)?;
        Ok(Self { path: path.to_owned(), file, pickle, storages })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole that it holds.
    pub fn root(&self) -> Item<'_> {
        self.pickle.root()
    }

    /// A tensor of this file, not read yet.
    ///
    /// # Errors
    /// When the object is no tensor, or not one that the file can hold; `name` is said then.
    pub fn tensor(&self, name: &str, item: Item<'_>) -> Result<TorchTensor> {
        describe(item, &self.storages).map_err(|error| TrainError::input(&self.path, format!("`{name}`: it {error}")))
    }

    /// Every tensor of a dict, in its order.
    ///
    /// # Errors
    /// When it is no dict of tensors, or a name occurs twice.
    pub fn tensors(&self, dict: Item<'_>) -> Result<Vec<(String, TorchTensor)>> {
        let wrong = |message: String| TrainError::input(&self.path, message);
        let entries = dict.entries().ok_or_else(|| wrong(format!("holds {dict} where named tensors are expected")))?;
        let mut seen = std::collections::HashSet::new();
        let named = entries.into_iter().map(|(key, value)| {
            let name = key.text().ok_or_else(|| wrong(format!("names a tensor by {key}")))?;
            match seen.insert(name) {
                true => Ok((name.to_owned(), self.tensor(name, value)?)),
                false => Err(wrong(format!("holds `{name}` twice"))),
            }
        });
        named.collect()
    }

    /// Reads one tensor of this file.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn read(&self, tensor: &TorchTensor) -> Result<Raw> {
        let span = self.read_bytes(tensor.bytes.clone())?;
        let bytes = if tensor.is_contiguous() { span } else { gathered(tensor, &span) };
        Ok(Raw { layout: tensor.layout.clone(), bytes })
    }

    /// Reads some of the values of a tensor, counted through all dimensions.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn read_values(&self, tensor: &TorchTensor, values: Range<usize>) -> Result<Vec<u8>> {
        let width = tensor.layout.dtype.bitsize() / 8;
        let within = values.start * width..values.end * width;
        match tensor.is_contiguous() {
            true => {
                let start = tensor.bytes.start;
                self.read_bytes(start + within.start as u64..start + within.end as u64)
            }
            false => Ok(self.read(tensor)?.bytes[within].to_vec()),
        }
    }

    fn read_bytes(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start).map_err(TrainError::io(&self.path))?;
        Ok(bytes)
    }
}

/// The values of a tensor whose neighbours are not neighbours in the file, in the order in which they are counted.
fn gathered(tensor: &TorchTensor, span: &[u8]) -> Vec<u8> {
    let width = tensor.layout.dtype.bitsize() / 8;
    let mut bytes = Vec::with_capacity(tensor.values() * width);
    for index in 0..tensor.values() {
        let mut rest = index;
        let mut at = 0;
        for (size, stride) in tensor.layout.shape.iter().zip(&tensor.strides).rev() {
            at += rest % size * stride;
            rest /= size;
        }
        bytes.extend_from_slice(&span[at * width..(at + 1) * width]);
    }
    bytes
}

/// Where the pickle lies, and where each storage.
fn records(path: &Path, file: &File) -> Result<(Range<u64>, Records)> {
    let wrong = |error: PickleError| TrainError::input(path, error.to_string());
    let length = file.metadata().map_err(TrainError::io(path))?.len();
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
        let old = "files of PyTorch before 1.6 must be saved again by a newer one";
        TrainError::input(path, format!("is not a whole zip archive ({error}); copy or download it again; {old}"))
    })?;
    if archive.len() > MAX_RECORDS {
        return Err(TrainError::input(path, format!("holds more than {MAX_RECORDS} files")));
    }
    let mut all = Vec::new();
    for index in 0..archive.len() {
        all.push(record(&mut archive, index, length).map_err(wrong)?);
    }
    let pickle = all.iter().find(|(name, _)| name.split_once('/').is_some_and(|(_, inner)| inner == "data.pkl"));
    let Some((name, pickle)) = pickle.cloned() else {
        return Err(TrainError::input(path, "holds no data.pkl: it is no file of torch.save"));
    };
    if pickle.end - pickle.start > MAX_PICKLE_BYTES {
        return Err(TrainError::input(path, format!("has a pickle of more than {MAX_PICKLE_BYTES} bytes")));
    }
    let root = name.trim_end_matches("data.pkl").to_owned();
    check_byte_order(path, file, &all, &root)?;
    let prefix = format!("{root}data/");
    let storage = |(name, range): (String, Range<u64>)| Some((name.strip_prefix(&prefix)?.to_owned(), range));
    Ok((pickle, all.into_iter().filter_map(storage).collect()))
}

/// The name of a file in the archive, and where its bytes lie.
fn record(
    archive: &mut ZipArchive<BufReader<&File>>,
    index: usize,
    length: u64,
) -> super::Result<(String, Range<u64>)> {
    let damaged = |error| PickleError(format!("is a damaged zip archive ({error})"));
    let record = archive.by_index_raw(index).map_err(damaged)?;
    let name = record.name().map_err(damaged)?.into_owned();
    if record.compression() != CompressionMethod::Stored || record.encrypted() {
        return refuse(format!("holds `{name}` compressed or encrypted, which torch.save never does"));
    }
    let start = record.data_start().unwrap_or(length);
    match start.checked_add(record.size()).filter(|end| *end <= length) {
        Some(end) => Ok((name, start..end)),
        None => refuse(format!("says that `{name}` reaches beyond the end of the file; copy or download it again")),
    }
}

fn check_byte_order(path: &Path, file: &File, all: &[(String, Range<u64>)], root: &str) -> Result<()> {
    const LITTLE: &[u8; 6] = b"little";
    let name = format!("{root}byteorder");
    let Some((_, range)) = all.iter().find(|(found, _)| *found == name) else { return Ok(()) };
    let mut order = [0; LITTLE.len()];
    let read = file.read_exact_at(&mut order, range.start);
    match read.is_ok() && order == *LITTLE && range.end - range.start == LITTLE.len() as u64 {
        true => Ok(()),
        false => Err(TrainError::input(path, "was saved on a big-endian machine; save it again on another")),
    }
}
