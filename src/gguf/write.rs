//! Metadata and tensors → a GGUF file, tensor by tensor, published with one rename. Never holds more than one tensor.

use super::read::size;
use super::{ALIGNMENT, GgufError, MAGIC, kind};
use crate::staging;
use candle_core::quantized::GgmlDType;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The version that is written.
const VERSION: u32 = 3;

/// Typed entries in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: u64,
    bytes: Vec<u8>,
}

/// A tensor that a file is to hold.
#[derive(Debug, Clone)]
pub struct TensorPlan {
    pub name: String,
    pub encoding: GgmlDType,
    /// Outermost first; rows must be whole blocks.
    pub shape: Vec<usize>,
}

impl Metadata {
    /// Adds a text.
    pub fn text(&mut self, key: &str, text: &str) {
        self.entry(key, kind::TEXT);
        put_text(&mut self.bytes, text);
    }

    /// Adds a u32.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.entry(key, kind::U32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds an f32.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.entry(key, kind::F32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds true or false.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, kind::BOOL);
        self.bytes.push(value.into());
    }

    /// Adds a list of texts.
    pub fn texts<'a>(&mut self, key: &str, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.list(key, kind::TEXT, texts.len());
        texts.for_each(|text| put_text(&mut self.bytes, text));
    }

    /// Adds a list of f32 values.
    pub fn floats(&mut self, key: &str, values: &[f32]) {
        self.list(key, kind::F32, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Adds a list of i32 values.
    pub fn integers(&mut self, key: &str, values: &[i32]) {
        self.list(key, kind::I32, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Adds what another one holds.
    pub fn append(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes.extend(&other.bytes);
    }

    /// A file of these metadata without tensors, as a vocabulary alone is published.
    pub fn to_file(&self) -> Vec<u8> {
        header(self, &[], &[])
    }

    fn entry(&mut self, key: &str, kind: u32) {
        self.entries += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn list(&mut self, key: &str, kind: u32, count: usize) {
        self.entry(key, kind::ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Writes a file. `values` gives the bytes of each planned tensor, in order, when its turn comes.
///
/// A reader, or a crash at any moment, sees the old file or the new one, never a part.
///
/// # Errors
/// When a plan or its bytes are wrong, `values` fails, or the file cannot be written.
pub fn write<E: From<GgufError>>(
    path: &Path,
    metadata: &Metadata,
    plans: &[TensorPlan],
    values: &mut dyn FnMut(&TensorPlan) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let sizes = plans.iter().map(planned_size).collect::<Result<Vec<_>, _>>()?;
    let staged = Staged::beside(path)?;
    let mut file = BufWriter::new(File::create(&staged.0).map_err(GgufError::from)?);
    file.write_all(&header(metadata, plans, &sizes)).map_err(GgufError::from)?;
    for (plan, size) in plans.iter().zip(sizes) {
        let bytes = values(plan)?;
        if bytes.len() != size {
            return Err(GgufError(format!("tensor `{}` has {} bytes, not {size}", plan.name, bytes.len())).into());
        }
        file.write_all(&bytes).and_then(|()| file.write_all(padding(size))).map_err(GgufError::from)?;
    }
    Ok(staged.publish(file, path).map_err(GgufError::from)?)
}

fn planned_size(plan: &TensorPlan) -> Result<usize, GgufError> {
    let wrong = || GgufError(format!("tensor `{}` cannot be {:?} as {:?}", plan.name, plan.shape, plan.encoding));
    size(plan.encoding, &plan.shape).ok_or_else(wrong)
}

/// Everything before the tensors' bytes.
fn header(metadata: &Metadata, plans: &[TensorPlan], sizes: &[usize]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((plans.len() as u64).to_le_bytes());
    bytes.extend(metadata.entries.to_le_bytes());
    bytes.extend(&metadata.bytes);
    let mut offset = 0;
    for (plan, size) in plans.iter().zip(sizes) {
        put_text(&mut bytes, &plan.name);
        bytes.extend((plan.shape.len() as u32).to_le_bytes());
        bytes.extend(plan.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        bytes.extend(number(plan.encoding).to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset += size.next_multiple_of(ALIGNMENT);
    }
    bytes.extend(padding(bytes.len()));
    bytes
}

/// What fills the place up to the next multiple of the alignment.
fn padding(length: usize) -> &'static [u8] {
    &[0; ALIGNMENT][..length.next_multiple_of(ALIGNMENT) - length]
}

/// How files number encodings.
pub(super) fn number(encoding: GgmlDType) -> u32 {
    match encoding {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

/// A file beside the target; if it is still there at the end, it is removed.
struct Staged(PathBuf);

impl Staged {
    fn beside(path: &Path) -> Result<Self, GgufError> {
        let staged = staging::beside(path);
        staged.map(Self).map_err(|_| GgufError(format!("{} names no file", path.display())))
    }

    fn publish(&self, file: BufWriter<File>, path: &Path) -> io::Result<()> {
        file.into_inner()?.sync_all()?;
        fs::rename(&self.0, path)?;
        File::open(staging::parent(path))?.sync_all()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing at this path.
        let _ = fs::remove_file(&self.0);
    }
}
