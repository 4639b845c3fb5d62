//! AVX2 with fused multiply-adds and half-precision loads (x86-64-v3): two vectors of eight lanes.

use super::{LANES, Lanes, Task};
use std::arch::x86_64::{__m128i, __m256, __m256i, _mm256_cvtph_ps};

pulp::simd_type! {
    pub(in super::super) struct Avx2 {
        avx: "avx",
        avx2: "avx2",
        fma: "fma",
        f16c: "f16c",
        sse2: "sse2",
        sse4_1: "sse4.1",
    }
}

type Floats = [__m256; 2];

impl Avx2 {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the crate has no safe name for this instruction")]
    fn eight_halves(self, bits: __m128i) -> __m256 {
        let _proof = self.f16c;
        // SAFETY: a value of this type exists only where the processor has F16C.
        unsafe { _mm256_cvtph_ps(bits) }
    }

    #[inline(always)]
    fn each(a: Floats, b: Floats, apply: impl Fn(__m256, __m256) -> __m256) -> Floats {
        [apply(a[0], b[0]), apply(a[1], b[1])]
    }
}

impl Lanes for Avx2 {
    const TILE_ROWS: usize = 6;

    type Floats = Floats;
    type Ints = [__m256i; 2];
    type Pairs = [__m256i; 2];

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        self.vectorize(task)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Floats {
        [self.avx._mm256_set1_ps(value); 2]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Floats {
        bytemuck::cast(*values)
    }

    #[inline(always)]
    fn store(self, values: Floats) -> [f32; LANES] {
        bytemuck::cast(values)
    }

    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        Self::each(a, b, |a, b| self.avx._mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: Floats, b: Floats, c: Floats) -> Floats {
        [self.fma._mm256_fmadd_ps(a[0], b[0], c[0]), self.fma._mm256_fmadd_ps(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn mul_sub(self, a: Floats, b: Floats, c: Floats) -> Floats {
        [self.fma._mm256_fnmadd_ps(a[0], b[0], c[0]), self.fma._mm256_fnmadd_ps(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn halves(self, bits: &[u16; LANES]) -> Floats {
        bytemuck::cast::<_, [__m128i; 2]>(*bits).map(|bits| self.eight_halves(bits))
    }

    #[inline(always)]
    fn brains(self, bits: &[u16; LANES]) -> Floats {
        let wide = |bits| self.avx2._mm256_slli_epi32::<16>(self.avx2._mm256_cvtepu16_epi32(bits));
        bytemuck::cast::<_, [__m128i; 2]>(*bits).map(|bits| self.avx._mm256_castsi256_ps(wide(bits)))
    }

    #[inline(always)]
    fn bytes(self, values: &[u8; LANES]) -> Floats {
        let wide = |eight: [u8; 8]| {
            let bits = self.sse2._mm_set_epi64x(0, i64::from_ne_bytes(eight));
            self.avx._mm256_cvtepi32_ps(self.avx2._mm256_cvtepu8_epi32(bits))
        };
        bytemuck::cast::<_, [[u8; 8]; 2]>(*values).map(wide)
    }

    #[inline(always)]
    fn no_ints(self) -> Self::Ints {
        [self.avx._mm256_setzero_si256(); 2]
    }

    #[inline(always)]
    fn widen(self, values: &[[i8; 2]; LANES]) -> Self::Pairs {
        bytemuck::cast::<_, [__m128i; 2]>(*values).map(|half| self.avx2._mm256_cvtepi8_epi16(half))
    }

    #[inline(always)]
    fn nibbles(self, values: &[[u8; 2]; LANES]) -> [Self::Pairs; 2] {
        let wide = bytemuck::cast::<_, [__m128i; 2]>(*values).map(|half| self.avx2._mm256_cvtepu8_epi16(half));
        let low = self.avx._mm256_set1_epi16(15);
        [
            wide.map(|bytes| self.avx2._mm256_and_si256(bytes, low)),
            wide.map(|bytes| self.avx2._mm256_srli_epi16::<4>(bytes)),
        ]
    }

    #[inline(always)]
    fn dot(self, sums: Self::Ints, pairs: Self::Pairs, x: i32) -> Self::Ints {
        let x = self.avx._mm256_set1_epi32(x);
        let add = |sum, pair| self.avx2._mm256_add_epi32(sum, self.avx2._mm256_madd_epi16(pair, x));
        [add(sums[0], pairs[0]), add(sums[1], pairs[1])]
    }

    #[inline(always)]
    fn to_floats(self, values: Self::Ints) -> Floats {
        values.map(|half| self.avx._mm256_cvtepi32_ps(half))
    }
}
