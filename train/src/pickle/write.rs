//! Planned tensors → a file that `torch.load(weights_only=True)` reads: a dict of contiguous tensors.
//!
//! As `torch.save` lays it out: `data.pkl`, `byteorder`, `data/0`, … and `version` in one folder of a zip archive, nothing
//! compressed, every storage at a multiple of 64 bytes so that it can be mapped.

use super::{globals, op};
use crate::atomic::{self, Out};
use crate::error::{Result, TrainError};
use crate::tensors::{Plan, Values, planned_bytes, progress_bar};
use std::io::Write;
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What PyTorch calls this layout.
const VERSION: &[u8] = b"3\n";
/// Where storages begin.
const ALIGNMENT: u16 = 64;
/// Larger files need 64-bit sizes in the archive.
const LARGE: usize = u32::MAX as usize;

/// Writes a file, whole or not at all.
///
/// # Errors
/// When `values` fails, PyTorch has no storage for a type, or the file cannot be written.
pub fn write(path: &Path, plans: &[Plan], values: &mut Values<'_>) -> Result<()> {
    let pickle = pickle(path, plans)?;
    let bar = progress_bar(plans)?;
    let folder = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    atomic::produce(path, |out| {
        let mut archive = Archive { path, folder, zip: ZipWriter::new(out) };
        archive.put("data.pkl", &pickle)?;
        archive.put("byteorder", b"little")?;
        for (key, plan) in plans.iter().enumerate() {
            let bytes = planned_bytes(plan, values)?;
            archive.put(&format!("data/{key}"), &bytes)?;
            bar.inc(bytes.len() as u64);
        }
        archive.put("version", VERSION)?;
        archive.finish()
    })
}

struct Archive<'a, 'file> {
    path: &'a Path,
    folder: String,
    zip: ZipWriter<&'a mut Out<'file>>,
}

impl Archive<'_, '_> {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(bytes.len() >= LARGE)
            .with_alignment(ALIGNMENT);
        let started = self.zip.start_file(format!("{}/{name}", self.folder), options);
        started.map_err(|error| TrainError::output(self.path, error.to_string()))?;
        self.zip.write_all(bytes).map_err(TrainError::io(self.path))
    }

    fn finish(self) -> Result<()> {
        let finished = self.zip.finish();
        finished.map(drop).map_err(|error| TrainError::output(self.path, error.to_string()))
    }
}

/// The instructions that make a dict of the tensors, each from a storage of its own.
fn pickle(path: &Path, plans: &[Plan]) -> Result<Vec<u8>> {
    let mut bytes = vec![op::PROTO, 2, op::EMPTY_DICT, op::MARK];
    for (key, plan) in plans.iter().enumerate() {
        let storage = globals::storage(plan.layout.dtype).ok_or_else(|| {
            TrainError::output(path, format!("PyTorch has no storage for `{}` of {}", plan.name, plan.layout.dtype))
        })?;
        text(&mut bytes, &plan.name);
        tensor(&mut bytes, plan, storage, key);
    }
    bytes.extend([op::SETITEMS, op::STOP]);
    Ok(bytes)
}

/// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`
fn tensor(bytes: &mut Vec<u8>, plan: &Plan, storage: &str, key: usize) {
    let shape = &plan.layout.shape;
    global(bytes, globals::REBUILD_TENSOR);
    bytes.extend([op::MARK, op::MARK]);
    text(bytes, "storage");
    global(bytes, storage);
    text(bytes, &key.to_string());
    text(bytes, "cpu");
    integer(bytes, shape.iter().product());
    bytes.extend([op::TUPLE, op::BINPERSID]);
    integer(bytes, 0);
    sizes(bytes, shape);
    sizes(bytes, &strides(shape));
    bytes.push(op::NEWFALSE);
    global(bytes, globals::ORDERED_DICT);
    bytes.extend([op::EMPTY_TUPLE, op::REDUCE, op::TUPLE, op::REDUCE]);
}

/// Of a contiguous tensor.
fn strides(shape: &[usize]) -> Vec<usize> {
    (1..=shape.len()).map(|first| shape[first..].iter().product()).collect()
}

fn sizes(bytes: &mut Vec<u8>, sizes: &[usize]) {
    bytes.push(op::MARK);
    sizes.iter().for_each(|size| integer(bytes, *size));
    bytes.push(op::TUPLE);
}

fn integer(bytes: &mut Vec<u8>, value: usize) {
    match i32::try_from(value) {
        Ok(small) => {
            bytes.push(op::BININT);
            bytes.extend(small.to_le_bytes());
        }
        Err(_) => {
            bytes.extend([op::LONG1, size_of::<i64>() as u8]);
            bytes.extend((value as i64).to_le_bytes());
        }
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(op::BINUNICODE);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn global(bytes: &mut Vec<u8>, name: &str) {
    let (module, name) = name.rsplit_once('.').unwrap_or(("", name));
    bytes.push(op::GLOBAL);
    bytes.extend(format!("{module}\n{name}\n").as_bytes());
}
