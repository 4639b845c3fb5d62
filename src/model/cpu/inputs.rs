//! Rows of activations in the form that a product needs: floats, or 16-bit integers with a scale for every 32 of them.
//!
//! With 16 bits an activation keeps about as much of its value as a weight of 8 bits can use, and costs no more on AVX2
//! than 8 bits would.

use super::packed::{BLOCK, Matrix, largest};
use super::parts::Chunks;
use super::simd::LANES;
use super::team::Team;
use crate::model::ops::kernels::{Loop, vectorised};

/// 32 activations: `value = scale * int`.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) scale: f32,
    /// Of the values.
    pub(super) sum: f32,
    /// Two `i16` in each word, the first in the low half.
    pub(super) pairs: [i32; BLOCK / 2],
}

const EMPTY: Block = Block { scale: 0.0, sum: 0.0, pairs: [0; BLOCK / 2] };
/// What the largest activation of a block becomes.
const LARGEST: f32 = 32_767.0;

/// Rows of activations. Buffers are kept between passes.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) width: usize,
    /// `[rows, width]`
    pub(super) floats: Vec<f32>,
    /// `[rows, width / 32]`, rounded up; empty unless asked for.
    pub(super) blocks: Vec<Block>,
}

impl Inputs {
    /// Makes room for `rows` rows; their floats are to be written next.
    pub(super) fn reset(&mut self, rows: usize, width: usize) -> &mut [f32] {
        self.width = width;
        self.floats.resize(rows * width, 0.0);
        self.blocks.clear();
        &mut self.floats
    }

    pub(super) fn rows(&self) -> usize {
        self.floats.len() / self.width.max(1)
    }

    pub(super) fn blocks_per_row(&self) -> usize {
        self.width.div_ceil(BLOCK)
    }

    /// Makes the integers, if any of these matrices reads them.
    pub(super) fn quantise<'a>(&mut self, readers: impl IntoIterator<Item = &'a Matrix>, team: &Team) {
        if !readers.into_iter().any(|matrix| matrix.format().is_quantised()) {
            return;
        }
        let (width, per_row) = (self.width, self.blocks_per_row());
        self.blocks.resize(self.rows() * per_row, EMPTY);
        let work = self.floats.len() * 2;
        let floats = &self.floats;
        team.each(work, Chunks::new(&mut self.blocks, per_row), |row, blocks| {
            vectorised(Quantise { values: &floats[row * width..(row + 1) * width], blocks });
        });
    }
}

struct Quantise<'a> {
    values: &'a [f32],
    blocks: &'a mut [Block],
}

impl Loop for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (whole, rest) = self.values.as_chunks::<BLOCK>();
        for (block, values) in self.blocks.iter_mut().zip(whole) {
            *block = quantise(values);
        }
        if let (false, Some(block)) = (rest.is_empty(), self.blocks.last_mut()) {
            let mut padded = [0f32; BLOCK];
            padded[..rest.len()].copy_from_slice(rest);
            *block = quantise(&padded);
        }
    }
}

#[inline(always)]
fn quantise(values: &[f32; BLOCK]) -> Block {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let largest = largest(values);
    // Zero, or not a number if a value is none or infinite: that must show in the result.
    let mut poison = [0f32; LANES];
    for part in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            poison[lane] += part[lane] * 0.0;
        }
    }
    let poison: f32 = poison.into_iter().sum();
    let inverse = LARGEST / largest;
    // Of zeros, or of values that are next to nothing.
    let inverse = if inverse < f32::INFINITY { inverse } else { 0.0 };
    let mut ints = [0i32; BLOCK];
    for (int, value) in ints.iter_mut().zip(values) {
        *int = ((value * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    }
    let scale = largest / LARGEST + poison;
    // What stands for no number may overflow.
    let sum = ints.iter().fold(0i32, |sum, int| sum.wrapping_add(*int));
    let pairs = std::array::from_fn(|i| ints[2 * i] & 0xFFFF | ints[2 * i + 1] << 16);
    Block { scale, sum: scale * sum as f32, pairs }
}

#[cfg(test)]
mod tests {
    use super::super::packed::Format;
    use super::*;

    fn inputs(values: &[f32]) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.reset(1, values.len()).copy_from_slice(values);
        inputs.quantise([&Matrix::zeros(1, values.len(), Format::Q8)], &Team::new(1));
        inputs
    }

    fn value(inputs: &Inputs, i: usize) -> f32 {
        let block = &inputs.blocks[i / BLOCK];
        let pair = block.pairs[i % BLOCK / 2];
        block.scale * if i.is_multiple_of(2) { pair as i16 as f32 } else { (pair >> 16) as f32 }
    }

    #[test]
    fn integers_stand_for_their_values() {
        let values: Vec<f32> = (0..75).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.37).collect();
        let inputs = inputs(&values);
        for (i, expected) in values.iter().enumerate() {
            assert!((value(&inputs, i) - expected).abs() <= inputs.blocks[i / BLOCK].scale * 0.51, "{i}");
        }
        let sum: f32 = values[..BLOCK].iter().sum();
        assert!((inputs.blocks[0].sum - sum).abs() < 0.01);
        assert_eq!(inputs.blocks[2].pairs[6..], [0; 10], "what is beyond the row counts nothing");
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_shows() {
        assert_eq!(inputs(&[0.0; BLOCK]).blocks[0].scale, 0.0);
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; BLOCK];
            values[7] = broken;
            assert!(inputs(&values).blocks[0].scale.is_nan());
            assert!(inputs(&[broken; BLOCK]).blocks[0].scale.is_nan());
        }
        let tiny = inputs(&[1e-38; BLOCK]);
        assert!(tiny.blocks[0].scale < 1e-40 && tiny.blocks[0].pairs == [0; BLOCK / 2]);
    }
}
