//! Weight matrices as the serving kernels read them: panels of sixteen rows, interleaved so that one vector holds the same
//! inputs of sixteen outputs.
//!
//! Quantised panels hold what the blocks of GGUF hold, bit for bit, in another order. Knows no files and no threads.

use super::simd::LANES;
use crate::model::ModelError;
use crate::model::ops::kernels::{Loop, vectorised};
use crate::model::stored::Stored;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;

/// Inputs that share a scale.
pub(super) const BLOCK: usize = 32;
/// Inputs of a `Q4_K` block.
pub(super) const SUPERBLOCK: usize = 256;
/// Bytes of a `Q8_0` block in GGUF: a scale and 32 values.
const Q8_BYTES: usize = 34;
/// Bytes of a `Q4_K` block in GGUF: two scales, eight packed pairs of scales, 256 values.
const Q4_BYTES: usize = 144;

/// How the values of a matrix are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    F16,
    BF16,
    Q8,
    Q4,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8 => "Q8_0",
            Self::Q4 => "Q4_K",
        })
    }
}

/// 32 inputs of 16 rows, 8 bits each, with one scale (`f16` bits) per row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Q8Block {
    pub(super) scales: [u16; LANES],
    /// Of each pair of inputs, the 16 rows' values.
    pub(super) quants: [[[i8; 2]; LANES]; BLOCK / 2],
}

/// 256 inputs of 16 rows, 4 bits each: `value = scale * scales[..] * quant - min * mins[..]`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Q4Block {
    pub(super) scale: [u16; LANES],
    pub(super) min: [u16; LANES],
    pub(super) parts: [Q4Part; SUPERBLOCK / BLOCK],
}

/// 32 inputs of a [`Q4Block`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Q4Part {
    pub(super) scales: [u8; LANES],
    pub(super) mins: [u8; LANES],
    /// Pair `2i` of inputs in the low halves, pair `2i + 1` in the high ones.
    pub(super) quants: [[[u8; 2]; LANES]; BLOCK / 4],
}

const NO_Q8: Q8Block = Q8Block { scales: [0; LANES], quants: [[[0; 2]; LANES]; BLOCK / 2] };
const NO_PART: Q4Part = Q4Part { scales: [0; LANES], mins: [0; LANES], quants: [[[0; 2]; LANES]; BLOCK / 4] };
const NO_Q4: Q4Block = Q4Block { scale: [0; LANES], min: [0; LANES], parts: [NO_PART; SUPERBLOCK / BLOCK] };

/// The panels of a matrix, one after the other.
#[derive(Debug)]
pub(super) enum Panels {
    F32(Vec<[f32; LANES]>),
    F16(Vec<[u16; LANES]>),
    BF16(Vec<[u16; LANES]>),
    Q8(Vec<Q8Block>),
    Q4(Vec<Q4Block>),
}

/// A panel to be filled.
pub(super) enum PanelMut<'a> {
    F32(&'a mut [[f32; LANES]]),
    F16(&'a mut [[u16; LANES]]),
    BF16(&'a mut [[u16; LANES]]),
    Q8(&'a mut [Q8Block]),
    Q4(&'a mut [Q4Block]),
}

/// `[outputs, inputs]`.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) panels: Panels,
}

impl Format {
    /// Products read inputs of this format's matrices as integers.
    pub(super) fn is_quantised(self) -> bool {
        matches!(self, Self::Q8 | Self::Q4)
    }

    /// Elements of a panel's vector that hold `inputs` inputs.
    fn units(self, inputs: usize) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => inputs,
            Self::Q8 => inputs.div_ceil(BLOCK),
            Self::Q4 => inputs / SUPERBLOCK,
        }
    }
}

impl Matrix {
    /// A matrix of zeros. `Format::Q4` needs a multiple of [`SUPERBLOCK`] inputs.
    pub(super) fn zeros(outputs: usize, inputs: usize, format: Format) -> Self {
        debug_assert!(format != Format::Q4 || inputs.is_multiple_of(SUPERBLOCK));
        let count = outputs.div_ceil(LANES) * format.units(inputs);
        let panels = match format {
            Format::F32 => Panels::F32(vec![[0.0; LANES]; count]),
            Format::F16 => Panels::F16(vec![[0; LANES]; count]),
            Format::BF16 => Panels::BF16(vec![[0; LANES]; count]),
            Format::Q8 => Panels::Q8(vec![NO_Q8; count]),
            Format::Q4 => Panels::Q4(vec![NO_Q4; count]),
        };
        Self { outputs, inputs, panels }
    }

    /// Memory of a matrix, in bytes.
    pub(super) fn bytes_of(outputs: usize, inputs: usize, format: Format) -> usize {
        let unit = match format {
            Format::F32 => size_of::<[f32; LANES]>(),
            Format::F16 | Format::BF16 => size_of::<[u16; LANES]>(),
            Format::Q8 => size_of::<Q8Block>(),
            Format::Q4 => size_of::<Q4Block>(),
        };
        outputs.div_ceil(LANES) * format.units(inputs) * unit
    }

    pub(super) fn format(&self) -> Format {
        match self.panels {
            Panels::F32(_) => Format::F32,
            Panels::F16(_) => Format::F16,
            Panels::BF16(_) => Format::BF16,
            Panels::Q8(_) => Format::Q8,
            Panels::Q4(_) => Format::Q4,
        }
    }

    /// Panels of sixteen rows; the last may hold fewer rows of weights.
    pub(super) fn panel_count(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Elements of a panel's vector.
    pub(super) fn panel_units(&self) -> usize {
        self.format().units(self.inputs)
    }

    /// Memory of a panel, in bytes.
    pub(super) fn panel_bytes(&self) -> usize {
        self.bytes() / self.panel_count().max(1)
    }

    /// Memory of the panels, in bytes.
    pub(super) fn bytes(&self) -> usize {
        Self::bytes_of(self.outputs, self.inputs, self.format())
    }

    /// All panels, to be filled.
    pub(super) fn panels_mut(&mut self) -> Vec<PanelMut<'_>> {
        let units = self.panel_units().max(1);
        match &mut self.panels {
            Panels::F32(data) => data.chunks_mut(units).map(PanelMut::F32).collect(),
            Panels::F16(data) => data.chunks_mut(units).map(PanelMut::F16).collect(),
            Panels::BF16(data) => data.chunks_mut(units).map(PanelMut::BF16).collect(),
            Panels::Q8(data) => data.chunks_mut(units).map(PanelMut::Q8).collect(),
            Panels::Q4(data) => data.chunks_mut(units).map(PanelMut::Q4).collect(),
        }
    }

    /// The values of one row.
    pub(super) fn row_into(&self, row: usize, values: &mut [f32]) {
        let (panel, lane, units) = (row / LANES, row % LANES, self.panel_units());
        let range = panel * units..(panel + 1) * units;
        match &self.panels {
            Panels::F32(data) => copy(values, &data[range], |unit| unit[lane]),
            Panels::F16(data) => copy(values, &data[range], |unit| f16::from_bits(unit[lane]).to_f32()),
            Panels::BF16(data) => copy(values, &data[range], |unit| bf16::from_bits(unit[lane]).to_f32()),
            Panels::Q8(data) => {
                values.chunks_mut(BLOCK).zip(&data[range]).for_each(|(values, block)| block.decode(lane, values));
            }
            Panels::Q4(data) => {
                values.chunks_mut(SUPERBLOCK).zip(&data[range]).for_each(|(values, block)| block.decode(lane, values));
            }
        }
    }
}

fn copy<T>(values: &mut [f32], units: &[T], value: impl Fn(&T) -> f32) {
    values.iter_mut().zip(units).for_each(|(to, unit)| *to = value(unit));
}

impl Q8Block {
    fn decode(&self, lane: usize, values: &mut [f32]) {
        let scale = f16::from_bits(self.scales[lane]).to_f32();
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(self.quants[i / 2][lane][i % 2]);
        }
    }

    /// Takes a row's block of GGUF.
    fn take(&mut self, lane: usize, bytes: &[u8; Q8_BYTES]) {
        self.scales[lane] = u16::from_le_bytes([bytes[0], bytes[1]]);
        bytes[2..].iter().enumerate().for_each(|(i, &byte)| self.quants[i / 2][lane][i % 2] = byte as i8);
    }

    /// Rounds up to 32 values of a row as llama.cpp does: the largest becomes ±127.
    #[inline(always)]
    fn quantise(&mut self, lane: usize, values: &[f32]) {
        let mut padded = [0f32; BLOCK];
        padded[..values.len()].copy_from_slice(values);
        let largest = largest(&padded);
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        // A value that is no number must show in every result.
        let poison = if values.iter().any(|value| value.is_nan()) { f32::NAN } else { 0.0 };
        self.scales[lane] = f16::from_f32(largest / 127.0 + poison).to_bits();
        let mut quants = [0i32; BLOCK];
        for (quant, value) in quants.iter_mut().zip(&padded) {
            *quant = (value * inverse).round().clamp(-128.0, 127.0) as i32;
        }
        for (i, quant) in quants.into_iter().enumerate() {
            self.quants[i / 2][lane][i % 2] = quant as i8;
        }
    }
}

/// The largest magnitude, in partial maxima; values that are no numbers count as none.
#[inline(always)]
pub(super) fn largest(values: &[f32; BLOCK]) -> f32 {
    let mut best = [0f32; LANES];
    for part in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let size = part[lane].abs();
            best[lane] = if size > best[lane] { size } else { best[lane] };
        }
    }
    best.into_iter().fold(0.0, |a, b| if b > a { b } else { a })
}

/// Values of whole rows, to be rounded into the lanes of a panel.
struct Quantise<'a> {
    blocks: &'a mut [Q8Block],
    values: &'a [f32],
    width: usize,
}

impl Loop for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (lane, row) in self.values.chunks_exact(self.width).enumerate() {
            for (block, values) in self.blocks.iter_mut().zip(row.chunks(BLOCK)) {
                block.quantise(lane, values);
            }
        }
    }
}

impl Q4Block {
    fn decode(&self, lane: usize, values: &mut [f32]) {
        let (scale, min) = (f16::from_bits(self.scale[lane]).to_f32(), f16::from_bits(self.min[lane]).to_f32());
        for (part, values) in self.parts.iter().zip(values.chunks_mut(BLOCK)) {
            let (scale, min) = (scale * f32::from(part.scales[lane]), min * f32::from(part.mins[lane]));
            for (i, value) in values.iter_mut().enumerate() {
                let byte = part.quants[i / 4][lane][i % 2];
                let quant = if i % 4 < 2 { byte & 15 } else { byte >> 4 };
                *value = scale * f32::from(quant) - min;
            }
        }
    }

    /// Takes a row's block of GGUF.
    fn take(&mut self, lane: usize, bytes: &[u8; Q4_BYTES]) {
        self.scale[lane] = u16::from_le_bytes([bytes[0], bytes[1]]);
        self.min[lane] = u16::from_le_bytes([bytes[2], bytes[3]]);
        let (scales, quants) = (&bytes[4..16], &bytes[16..]);
        for (index, part) in self.parts.iter_mut().enumerate() {
            (part.scales[lane], part.mins[lane]) = scale_and_min(scales, index);
            // 64 values in 32 bytes: the even part in the low halves, the odd one in the high.
            let bytes = &quants[index / 2 * BLOCK..][..BLOCK];
            let quant = |i: usize| if index.is_multiple_of(2) { bytes[i] & 15 } else { bytes[i] >> 4 };
            for i in 0..BLOCK / 2 {
                let at = i / 2 * 4 + i % 2;
                part.quants[i / 2][lane][i % 2] = quant(at) | quant(at + 2) << 4;
            }
        }
    }
}

/// The 6-bit scale and minimum of a part, from the 12 bytes in which GGUF packs the eight of them.
fn scale_and_min(packed: &[u8], part: usize) -> (u8, u8) {
    match part < 4 {
        true => (packed[part] & 63, packed[part + 4] & 63),
        false => (packed[part + 4] & 15 | packed[part - 4] >> 6 << 4, packed[part + 4] >> 4 | packed[part] >> 6 << 4),
    }
}

impl PanelMut<'_> {
    /// Takes up to sixteen rows of a stored tensor as the rows of one panel.
    pub(super) fn fill(&mut self, stored: &Stored<'_>, rows: Range<usize>) -> Result<(), ModelError> {
        let width = stored.width();
        match (self, stored.encoding) {
            (Self::Q8(blocks), GgmlDType::Q8_0) => take(blocks, stored.row_range(rows), Q8Block::take),
            (Self::Q4(blocks), GgmlDType::Q4K) => take(blocks, stored.row_range(rows), Q4Block::take),
            (panel, _) => panel.fill_floats(&stored.decode(rows)?, width)?,
        }
        Ok(())
    }

    /// The same from values.
    pub(super) fn fill_floats(&mut self, values: &[f32], width: usize) -> candle_core::Result<()> {
        let rows = values.chunks_exact(width);
        match self {
            Self::F32(units) => each(rows, units, |unit, lane, value| unit[lane] = *value),
            Self::F16(units) => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                each(halves.chunks_exact(width), units, |unit, lane, value| unit[lane] = value.to_bits());
            }
            Self::BF16(units) => each(rows, units, |unit, lane, value| unit[lane] = bf16::from_f32(*value).to_bits()),
            Self::Q8(blocks) => vectorised(Quantise { blocks, values, width }),
            Self::Q4(blocks) => {
                let values = Tensor::from_slice(values, (values.len() / width, width), &Device::Cpu)?;
                take(blocks, &QTensor::quantize(&values, GgmlDType::Q4K)?.data()?, Q4Block::take);
            }
        }
        Ok(())
    }
}

fn each<'a, T, V: 'a>(rows: impl Iterator<Item = &'a [V]>, units: &mut [T], set: impl Fn(&mut T, usize, &V)) {
    for (lane, row) in rows.enumerate() {
        units.iter_mut().zip(row).for_each(|(unit, value)| set(unit, lane, value));
    }
}

/// Rows of GGUF blocks of `N` bytes into the lanes of a panel.
fn take<T, const N: usize>(panel: &mut [T], bytes: &[u8], take: impl Fn(&mut T, usize, &[u8; N])) {
    let blocks = bytes.as_chunks::<N>().0;
    for (lane, row) in blocks.chunks_exact(panel.len().max(1)).enumerate() {
        panel.iter_mut().zip(row).for_each(|(to, block)| take(to, lane, block));
    }
}
