//! AVX-512 with its integer dot product (VNNI): one vector of sixteen lanes.

use super::{LANES, Lanes, Task};
use std::arch::x86_64::{__m128i, __m256i, __m512, __m512i, _mm512_dpwssd_epi32};

pulp::simd_type! {
    pub(in super::super) struct Avx512 {
        avx: "avx",
        avx2: "avx2",
        fma: "fma",
        f16c: "f16c",
        avx512f: "avx512f",
        avx512bw: "avx512bw",
        avx512vl: "avx512vl",
        avx512vnni: "avx512vnni",
    }
}

impl Avx512 {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the crate has no safe name for this instruction")]
    fn dot_pairs(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        let _proof = self.avx512vnni;
        // SAFETY: a value of this type exists only where the processor has AVX512_VNNI.
        unsafe { _mm512_dpwssd_epi32(sums, a, b) }
    }
}

impl Lanes for Avx512 {
    const TILE_ROWS: usize = 6;

    type Floats = __m512;
    type Ints = __m512i;
    type Pairs = __m512i;

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        self.vectorize(task)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        self.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        bytemuck::cast(*values)
    }

    #[inline(always)]
    fn store(self, values: __m512) -> [f32; LANES] {
        bytemuck::cast(values)
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_mul_ps(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.avx512f._mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn mul_sub(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.avx512f._mm512_fnmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn halves(self, bits: &[u16; LANES]) -> __m512 {
        self.avx512f._mm512_cvtph_ps(bytemuck::cast(*bits))
    }

    #[inline(always)]
    fn brains(self, bits: &[u16; LANES]) -> __m512 {
        let wide = self.avx512f._mm512_cvtepu16_epi32(bytemuck::cast::<_, __m256i>(*bits));
        self.avx512f._mm512_castsi512_ps(self.avx512f._mm512_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    fn bytes(self, values: &[u8; LANES]) -> __m512 {
        let wide = self.avx512f._mm512_cvtepu8_epi32(bytemuck::cast::<_, __m128i>(*values));
        self.avx512f._mm512_cvtepi32_ps(wide)
    }

    #[inline(always)]
    fn no_ints(self) -> __m512i {
        self.avx512f._mm512_setzero_si512()
    }

    #[inline(always)]
    fn widen(self, values: &[[i8; 2]; LANES]) -> __m512i {
        self.avx512bw._mm512_cvtepi8_epi16(bytemuck::cast(*values))
    }

    #[inline(always)]
    fn nibbles(self, values: &[[u8; 2]; LANES]) -> [__m512i; 2] {
        let wide = self.avx512bw._mm512_cvtepu8_epi16(bytemuck::cast(*values));
        let low = self.avx512f._mm512_and_si512(wide, self.avx512f._mm512_set1_epi32(0x000F_000F));
        [low, self.avx512bw._mm512_srli_epi16::<4>(wide)]
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, pairs: __m512i, x: i32) -> __m512i {
        self.dot_pairs(sums, pairs, self.avx512f._mm512_set1_epi32(x))
    }

    #[inline(always)]
    fn to_floats(self, values: __m512i) -> __m512 {
        self.avx512f._mm512_cvtepi32_ps(values)
    }
}
