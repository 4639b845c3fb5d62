//! Bytes → the header of a GGUF file. Every count, length and offset is checked against the bytes that are there.

use super::{ALIGNMENT, GgufError, MAGIC, kind};
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use std::ops::Range;
use std::str;

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;
/// Arrays in arrays, at most this deep.
const MAX_DEPTH: usize = 4;

/// The metadata of a file, still in its bytes, and where its tensors lie.
#[derive(Debug)]
pub struct Header<'a> {
    metadata: HashMap<&'a str, Value<'a>>,
    tensors: HashMap<&'a str, TensorInfo>,
}

/// Where one tensor lies. Its bytes are there, whole blocks, and aligned to 8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub encoding: GgmlDType,
    /// Outermost first: `[out, in]` of a matrix (the file has it the other way round).
    pub shape: Vec<usize>,
    /// In the file.
    pub bytes: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(&'a [u8]),
    Array(Array<'a>),
}

/// Elements of one type, still in their bytes.
#[derive(Debug, Clone, Copy)]
struct Array<'a> {
    kind: u32,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header of a whole file.
    ///
    /// # Errors
    /// When it is not a GGUF file of version 2 or 3, is damaged, or holds tensors in encodings that are not known.
    pub fn parse(file: &'a [u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor { bytes: file, at: 0 };
        if cursor.take(4).ok() != Some(MAGIC) {
            return refuse("not a GGUF file (it does not begin with `GGUF`)");
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return refuse(format!("GGUF version {version} is not supported (only 2 and 3, little-endian)"));
        }
        let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
        let metadata = read_metadata(&mut cursor, entries)?;
        let tensors = read_tensors(&mut cursor, tensors, alignment(&metadata)?)?;
        Ok(Self { metadata, tensors })
    }

    /// The tensors by the file's own names.
    pub fn tensors(&self) -> &HashMap<&'a str, TensorInfo> {
        &self.tensors
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// When the value is something else, or not UTF-8. The other accessors likewise.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.read(key, "a text", |value| match value {
            Value::Text(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// A whole number that is not negative.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.read(key, "a whole number", |value| match value {
            Value::Integer(number) => number.try_into().ok(),
            _ => None,
        })
    }

    /// A finite number. Of an f32 it is the shortest decimal: `1e-5` is what somebody once wrote as 1e-5.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.read(key, "a finite number", |value| match value {
            Value::Float(number) if number.is_finite() => Some(number),
            Value::Integer(number) => Some(number as f64),
            _ => None,
        })
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        self.read(key, "a list of UTF-8 texts", |value| match value {
            Value::Array(array) if array.kind == kind::TEXT => {
                let mut cursor = Cursor { bytes: array.bytes, at: 0 };
                (0..array.count).map(|_| str::from_utf8(cursor.text().ok()?).ok()).collect()
            }
            _ => None,
        })
    }

    /// A list of f32 values.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.read(key, "a list of f32 values", |value| match value {
            Value::Array(array) if array.kind == kind::F32 => Some(array.words().map(f32::from_le_bytes).collect()),
            _ => None,
        })
    }

    /// A list of i32 values (u32 is read as i32).
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.read(key, "a list of i32 values", |value| match value {
            Value::Array(array) if matches!(array.kind, kind::I32 | kind::U32) => {
                Some(array.words().map(i32::from_le_bytes).collect())
            }
            _ => None,
        })
    }

    fn read<T>(&self, key: &str, wanted: &str, read: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match read(*value) {
            Some(found) => Ok(Some(found)),
            None => refuse(format!("metadata `{key}` must be {wanted}")),
        }
    }
}

impl<'a> Array<'a> {
    /// The elements of a four-byte type.
    fn words(&self) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        self.bytes.as_chunks().0.iter().copied()
    }
}

/// A place in the bytes; it never passes their end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], GgufError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return refuse(format!("the file ends within its header ({count} bytes expected at byte {})", self.at));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, GgufError> {
        let size = self.u64()?;
        usize::try_from(size).map_err(|_| GgufError(format!("a size of {size} cannot be right")))
    }

    fn text(&mut self) -> Result<&'a [u8], GgufError> {
        let length = self.size()?;
        self.take(length)
    }

    fn name(&mut self) -> Result<&'a str, GgufError> {
        let at = self.at;
        str::from_utf8(self.text()?).map_err(|_| GgufError(format!("the name at byte {at} is not UTF-8")))
    }

    fn value(&mut self) -> Result<Value<'a>, GgufError> {
        Ok(match self.u32()? {
            kind::U8 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            kind::I8 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            kind::U16 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            kind::I16 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            kind::U32 => Value::Integer(self.u32()?.into()),
            kind::I32 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            kind::U64 => Value::Integer(self.u64()?.into()),
            kind::I64 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            kind::F32 => Value::Float(shortest(f32::from_le_bytes(self.array()?))),
            kind::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            kind::BOOL => Value::Bool(self.array::<1>()? != [0]),
            kind::TEXT => Value::Text(self.text()?),
            kind::ARRAY => Value::Array(self.elements(0)?),
            other => return refuse(format!("metadata of type {other} before byte {}", self.at)),
        })
    }

    /// Steps over an array, so that its bytes are known to be there.
    fn elements(&mut self, depth: usize) -> Result<Array<'a>, GgufError> {
        let (kind, count) = (self.u32()?, self.size()?);
        let start = self.at;
        match kind {
            kind::TEXT => (0..count).try_for_each(|_| self.text().map(drop))?,
            kind::ARRAY if depth < MAX_DEPTH => {
                (0..count).try_for_each(|_| self.elements(depth + 1).map(drop))?;
            }
            _ => {
                let Some(width) = width(kind) else { return refuse(format!("an array of type {kind}")) };
                self.take(count.saturating_mul(width))?;
            }
        }
        Ok(Array { kind, count, bytes: &self.bytes[start..self.at] })
    }
}

/// Bytes of a number.
fn width(kind: u32) -> Option<usize> {
    match kind {
        kind::U8 | kind::I8 | kind::BOOL => Some(1),
        kind::U16 | kind::I16 => Some(2),
        kind::U32 | kind::I32 | kind::F32 => Some(4),
        kind::U64 | kind::I64 | kind::F64 => Some(8),
        _ => None,
    }
}

/// The f64 that is written like this f32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::NAN)
}

fn read_metadata<'a>(cursor: &mut Cursor<'a>, entries: u64) -> Result<HashMap<&'a str, Value<'a>>, GgufError> {
    let mut metadata = HashMap::new();
    for _ in 0..entries {
        let key = cursor.name()?;
        if metadata.insert(key, cursor.value()?).is_some() {
            return refuse(format!("metadata `{key}` is there twice"));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &HashMap<&str, Value<'_>>) -> Result<usize, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(Value::Integer(number @ 8..=65_536)) if number.count_ones() == 1 => Ok(*number as usize),
        Some(_) => refuse("metadata `general.alignment` must be a power of two from 8 to 65536"),
    }
}

fn read_tensors<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
    alignment: usize,
) -> Result<HashMap<&'a str, TensorInfo>, GgufError> {
    // Offsets count from the end of the header, which is not known before all of them are read.
    let mut relative = Vec::new();
    for _ in 0..count {
        relative.push(read_tensor(cursor)?);
    }
    let start = cursor.at.next_multiple_of(alignment);
    let mut tensors = HashMap::new();
    for (name, mut tensor) in relative {
        let place = |offset: usize| start.checked_add(offset).filter(|end| *end <= cursor.bytes.len());
        let (Some(first), Some(end)) = (place(tensor.bytes.start), place(tensor.bytes.end)) else {
            return refuse(format!("tensor `{name}` lies beyond the end of the file: the file is cut off"));
        };
        if !tensor.bytes.start.is_multiple_of(alignment) {
            return refuse(format!("tensor `{name}` is not aligned to {alignment} bytes"));
        }
        tensor.bytes = first..end;
        if tensors.insert(name, tensor).is_some() {
            return refuse(format!("tensor `{name}` is there twice"));
        }
    }
    Ok(tensors)
}

/// Reads one entry; its bytes are relative to the start of the data.
fn read_tensor<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, TensorInfo), GgufError> {
    let name = cursor.name()?;
    let dimensions = cursor.u32()? as usize;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return refuse(format!("tensor `{name}` has {dimensions} dimensions"));
    }
    let mut shape = (0..dimensions).map(|_| cursor.size()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    let encoding = encoding(name, cursor.u32()?)?;
    let start = cursor.size()?;
    let size = size(encoding, &shape).and_then(|size| start.checked_add(size));
    let Some(end) = size else {
        return refuse(format!("tensor `{name}` cannot have the shape {shape:?} as {encoding:?}"));
    };
    Ok((name, TensorInfo { encoding, shape, bytes: start..end }))
}

/// Bytes of a tensor, if its rows are whole blocks.
pub(super) fn size(encoding: GgmlDType, shape: &[usize]) -> Option<usize> {
    let values = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
    let whole = values > 0 && shape.last()?.is_multiple_of(encoding.block_size());
    if whole { (values / encoding.block_size()).checked_mul(encoding.type_size()) } else { None }
}

fn encoding(name: &str, number: u32) -> Result<GgmlDType, GgufError> {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let known = [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K];
    known.into_iter().find(|known| super::write::number(*known) == number).ok_or_else(|| {
        let listed = UNSUPPORTED.iter().find(|(listed, _)| *listed == number);
        let found = listed.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned());
        GgufError(format!(
            "tensor `{name}` is stored as {found}; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K"
        ))
    })
}

/// Encodings that files may have and that nothing here decodes.
const UNSUPPORTED: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

fn refuse<T>(message: impl Into<String>) -> Result<T, GgufError> {
    Err(GgufError(message.into()))
}
