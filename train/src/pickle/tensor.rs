//! What a pickle says about a tensor → where its values lie in the file. Everything is checked against the file; nothing is read.

use super::node::Item;
use super::{PickleError, Result, globals, refuse};
use crate::tensors::Layout;
use safetensors::Dtype;
use std::collections::HashMap;
use std::ops::Range;

/// Where a file keeps its storages, by their keys.
pub(super) type Records = HashMap<String, Range<u64>>;

/// Larger than any dimension is; a tensor without values could say anything.
const MAX_SIZE: usize = 1 << 40;

/// A tensor in a file.
#[derive(Debug, Clone)]
pub struct TorchTensor {
    pub layout: Layout,
    /// How far apart neighbours are in each dimension, in values.
    pub(super) strides: Vec<usize>,
    /// The bytes from the first value to the last, in the file.
    pub(super) bytes: Range<u64>,
}

impl TorchTensor {
    /// Number of values.
    pub fn values(&self) -> usize {
        self.layout.values().unwrap_or(0)
    }

    /// Whether the values lie in the file as they are counted, with nothing between them.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (size, stride) in self.layout.shape.iter().zip(&self.strides).rev().filter(|_| self.values() > 0) {
            if *size != 1 && *stride != expected {
                return false;
            }
            expected *= size;
        }
        true
    }
}

/// Reads what an object says, if it is a tensor.
pub(super) fn describe(item: Item<'_>, records: &Records) -> Result<TorchTensor> {
    let (name, arguments) = rebuilt(item).unwrap_or_default();
    let (globals::REBUILD_TENSOR, [storage, offset, shape, strides, ..]) = (name, arguments.as_slice()) else {
        return refuse(format!("holds {item} where a tensor is expected"));
    };
    let storage = Storage::of(*storage, records)?;
    let (Some(offset), Some(shape), Some(strides)) = (offset.size(), shape.sizes(), strides.sizes()) else {
        return refuse("describes a tensor by what are no sizes");
    };
    let layout = Layout { dtype: storage.dtype, shape };
    let bytes = storage.place(offset, &layout, &strides).ok_or_else(|| {
        let (shape, values) = (&layout.shape, storage.values);
        PickleError(format!(
            "describes a tensor of shape {shape:?} at {offset} that a storage of {values} values cannot hold"
        ))
    })?;
    Ok(TorchTensor { layout, strides, bytes })
}

/// What makes a tensor, and of what; attributes beside it are left out.
fn rebuilt(item: Item<'_>) -> Option<(&str, Vec<Item<'_>>)> {
    let (name, arguments) = item.call()?;
    match (name, arguments.as_slice()) {
        (globals::REBUILD_WITH_ATTRIBUTES, [rebuild, _, arguments, _]) => {
            Some((rebuild.global()?, arguments.elements()?))
        }
        _ => Some((name, arguments)),
    }
}

/// A list of values in the file, that tensors are views of.
struct Storage {
    dtype: Dtype,
    values: usize,
    bytes: Range<u64>,
}

impl Storage {
    /// From `('storage', class, key, device, number of values)`.
    fn of(item: Item<'_>, records: &Records) -> Result<Self> {
        let parts = item.persistent().and_then(Item::elements).unwrap_or_default();
        let [_, class, key, _, values] = parts.as_slice() else {
            return refuse("describes a storage in a way that is not known");
        };
        let dtype = class.global().and_then(globals::dtype);
        let (Some(dtype), Some(key), Some(values)) = (dtype, key.text(), values.size()) else {
            return refuse("describes a storage in a way that is not known");
        };
        let bytes = records.get(key).cloned();
        let bytes = bytes.ok_or_else(|| PickleError(format!("names the storage `{key}`, which it does not hold")))?;
        let needed = (values as u64).checked_mul(dtype.bitsize() as u64 / 8);
        match needed {
            Some(needed) if needed <= bytes.end - bytes.start => Ok(Self { dtype, values, bytes }),
            _ => refuse(format!(
                "says that storage `{key}` has {values} values of {dtype}, but holds {} bytes of it",
                bytes.end - bytes.start
            )),
        }
    }

    /// Where the values of a tensor lie; nothing if not all of them lie in the storage, or if there are more than it has.
    fn place(&self, offset: usize, layout: &Layout, strides: &[usize]) -> Option<Range<u64>> {
        let possible = layout.shape.len() == strides.len() && layout.shape.iter().all(|size| *size <= MAX_SIZE);
        let values = layout.values().filter(|values| possible && *values <= self.values)?;
        let mut last = offset;
        for (size, stride) in layout.shape.iter().zip(strides).filter(|_| values > 0) {
            last = last.checked_add((size - 1).checked_mul(*stride)?)?;
        }
        let end = if values > 0 { last.checked_add(1)? } else { offset };
        let width = layout.dtype.bitsize() as u64 / 8;
        let byte = |index: usize| self.bytes.start + index as u64 * width;
        (end <= self.values).then(|| byte(offset)..byte(end))
    }
}
