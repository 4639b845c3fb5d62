//! The reference: plain loops over arrays, which compilers vectorise where they can.

use super::{LANES, Lanes, Task};
use half::{bf16, f16};

#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Scalar;

type Floats = [f32; LANES];

#[inline(always)]
fn each<T: Copy, U>(values: &[T; LANES], apply: impl Fn(T) -> U) -> [U; LANES] {
    std::array::from_fn(|lane| apply(values[lane]))
}

#[inline(always)]
fn three(a: Floats, b: Floats, c: Floats, apply: impl Fn(f32, f32, f32) -> f32) -> Floats {
    std::array::from_fn(|lane| apply(a[lane], b[lane], c[lane]))
}

impl Lanes for Scalar {
    const TILE_ROWS: usize = 1;

    type Floats = Floats;
    type Ints = [i32; LANES];
    type Pairs = [[i16; 2]; LANES];

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        task.call()
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Floats {
        *values
    }

    #[inline(always)]
    fn store(self, values: Floats) -> [f32; LANES] {
        values
    }

    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        three(a, b, a, |a, b, _| a * b)
    }

    #[inline(always)]
    fn mul_add(self, a: Floats, b: Floats, c: Floats) -> Floats {
        three(a, b, c, f32::mul_add)
    }

    #[inline(always)]
    fn mul_sub(self, a: Floats, b: Floats, c: Floats) -> Floats {
        three(a, b, c, |a, b, c| (-a).mul_add(b, c))
    }

    #[inline(always)]
    fn halves(self, bits: &[u16; LANES]) -> Floats {
        each(bits, |bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn brains(self, bits: &[u16; LANES]) -> Floats {
        each(bits, |bits| bf16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn bytes(self, values: &[u8; LANES]) -> Floats {
        each(values, f32::from)
    }

    #[inline(always)]
    fn no_ints(self) -> Self::Ints {
        [0; LANES]
    }

    #[inline(always)]
    fn widen(self, values: &[[i8; 2]; LANES]) -> Self::Pairs {
        each(values, |pair| pair.map(i16::from))
    }

    #[inline(always)]
    fn nibbles(self, values: &[[u8; 2]; LANES]) -> [Self::Pairs; 2] {
        [each(values, |pair| pair.map(|v| i16::from(v & 15))), each(values, |pair| pair.map(|v| i16::from(v >> 4)))]
    }

    #[inline(always)]
    fn dot(self, sums: Self::Ints, pairs: Self::Pairs, x: i32) -> Self::Ints {
        let (first, second) = (i32::from(x as i16), x >> 16);
        std::array::from_fn(|lane| {
            let [a, b] = pairs[lane].map(i32::from);
            sums[lane] + a * first + b * second
        })
    }

    #[inline(always)]
    fn to_floats(self, values: Self::Ints) -> Floats {
        each(&values, |value| value as f32)
    }
}
