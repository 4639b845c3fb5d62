//! The header of a safetensors file, read as hostile input: which tensors it declares and where their bytes lie.
//!
//! Own code because the `safetensors` crate lets a second tensor of the same name win and allows headers of 100 MB.
//! Knows no tensor names and no adapters.

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de::IgnoredAny};
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest header in bytes; an adapter for 100 blocks and 7 modules has about 0.2 MB.
pub(super) const MAX_HEADER_BYTES: u64 = 1 << 20;
const MAX_TENSORS: usize = 10_000;

/// The number types an adapter may be stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    F32,
    F16,
    BF16,
}

impl Stored {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::BF16),
            _ => None,
        }
    }

    pub(super) fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// One tensor of the file; `bytes` counts from the end of the header.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub(super) stored: Stored,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

/// Reads the header's JSON and checks that the tensors cover the `data_len` bytes behind it exactly once.
pub(super) fn parse(json: &[u8], data_len: u64) -> Result<BTreeMap<String, Declared>, String> {
    let header: Header = serde_json::from_slice(json).map_err(|error| format!("the header is not valid: {error}"))?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header.0 {
        let declared =
            entry.check().map_err(|reason| format!("tensor `{}`: {reason}", crate::adapter::shown(&name)))?;
        tensors.insert(name, declared);
    }
    check_cover(&tensors, data_len)?;
    Ok(tensors)
}

fn check_cover(tensors: &BTreeMap<String, Declared>, data_len: u64) -> Result<(), String> {
    let mut ranges: Vec<&Range<usize>> = tensors.values().map(|t| &t.bytes).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut end = 0;
    for range in ranges {
        if range.start != end {
            return Err(format!("the tensors' bytes overlap or leave a hole at offset {end}"));
        }
        end = range.end;
    }
    if end as u64 == data_len {
        return Ok(());
    }
    Err(format!("the header declares {end} bytes of tensors, the file has {data_len}: it is truncated or has a tail"))
}

/// Tensor names and entries in file order, names unique.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl Entry {
    fn check(self) -> Result<Declared, String> {
        let dtype = crate::adapter::shown(&self.dtype);
        let stored = Stored::from_name(&self.dtype)
            .ok_or_else(|| format!("dtype {dtype} is not supported; save it as F32, F16 or BF16"))?;
        let (start, end) = self.data_offsets;
        let size = self.shape.iter().try_fold(stored.size(), |product, dim| product.checked_mul(*dim));
        if size.is_none() || size == Some(0) || end.checked_sub(start) != size {
            return Err("its shape is empty or does not fit its bytes".into());
        }
        Ok(Declared { stored, shape: self.shape, bytes: start..end })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut seen = std::collections::HashSet::new();
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{}` occurs twice", crate::adapter::shown(&name))));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            entries.push((name, map.next_value()?));
            if entries.len() > MAX_TENSORS {
                return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
            }
        }
        Ok(Header(entries))
    }
}
