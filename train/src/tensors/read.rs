//! The weights of a Hugging Face model directory, read from their files one tensor at a time.
//!
//! Nothing is mapped into memory: what is not asked for is not read.

use super::{Layout, Raw};
use crate::error::{Result, TrainError};
use callsmith::model::weights;
use safetensors::tensor::Metadata;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest header of a file, as everywhere.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// What says how long the header is.
const LENGTH_BYTES: u64 = 8;

/// All tensors of a directory, in their files.
#[derive(Debug)]
pub struct Weights {
    files: Vec<(PathBuf, File)>,
    names: Vec<String>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    layout: Layout,
    file: usize,
    offset: u64,
}

impl Weights {
    /// Reads the headers of `model.safetensors`, or of all files that the index names.
    ///
    /// # Errors
    /// When there are none, one is damaged, or two hold a tensor of the same name.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut weights = Self { files: Vec::new(), names: Vec::new(), entries: HashMap::new() };
        for path in weights::shards(dir)? {
            weights.add(path)?;
        }
        Ok(weights)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(TrainError::io(&path))?;
        let (start, header) = read_header(&path, &file)?;
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let layout = Layout { dtype: info.dtype, shape: info.shape.clone() };
            let entry = Entry { layout, file: self.files.len(), offset: start + info.data_offsets.0 as u64 };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(TrainError::input(&path, format!("`{name}` is in another file of the model too")));
            }
            self.names.push(name);
        }
        self.files.push((path, file));
        Ok(())
    }

    /// All names, in the order in which the files hold them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Type and shape of a tensor, if there is one of this name.
    pub fn layout(&self, name: &str) -> Option<&Layout> {
        self.entries.get(name).map(|entry| &entry.layout)
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// When there is none of this name, or its file cannot be read any more.
    pub fn read(&self, name: &str) -> Result<Raw> {
        let missing = || callsmith::model::ModelError::MissingTensor(name.to_owned());
        let Entry { layout, file, offset } = self.entries.get(name).ok_or_else(missing)?;
        let mut bytes = vec![0; layout.bytes().unwrap_or_default()];
        let (path, file) = &self.files[*file];
        file.read_exact_at(&mut bytes, *offset).map_err(TrainError::io(path))?;
        Ok(Raw { layout: layout.clone(), bytes })
    }
}

/// Where a file's tensors begin, and what its header says. The tensors are exactly the rest of the file.
fn read_header(path: &Path, file: &File) -> Result<(u64, Metadata)> {
    let damaged = || TrainError::input(path, "is not a whole safetensors file; copy or download it again");
    let length = file.metadata().map_err(TrainError::io(path))?.len();
    let mut field = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut field, 0).map_err(|_| damaged())?;
    let header = u64::from_le_bytes(field);
    let start = header.checked_add(LENGTH_BYTES).filter(|start| *start <= length && header <= MAX_HEADER_BYTES);
    let start = start.ok_or_else(damaged)?;
    let mut json = vec![0; header as usize];
    file.read_exact_at(&mut json, LENGTH_BYTES).map_err(TrainError::io(path))?;
    let metadata: Metadata =
        serde_json::from_slice(&json).map_err(|error| TrainError::input(path, error.to_string()))?;
    match start.checked_add(metadata.data_len() as u64) == Some(length) {
        true => Ok((start, metadata)),
        false => Err(damaged()),
    }
}
