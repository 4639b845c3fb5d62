//! Sixteen lanes at a time: the vector operations under the serving kernels, for every instruction set that has its own.
//!
//! A kernel is written once over [`Lanes`] and compiled for each. All of them give the same bits: sums of integers are exact,
//! and sums of floats have a fixed order with fused multiply-adds. [`Scalar`] is the reference, and what other processors
//! run. Knows no matrices.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

pub(super) use pulp::NullaryFnOnce as Task;
pub(super) use scalar::Scalar;

/// Lanes of a vector, and rows of a panel.
pub(super) const LANES: usize = 16;

/// What a kernel needs of an instruction set. Methods are `#[inline(always)]`, and so must be what is built of them.
pub(super) trait Lanes: Copy + Send + Sync {
    /// Most rows, up to 6, that products hold in registers at a time.
    const TILE_ROWS: usize;

    /// 16 `f32`.
    type Floats: Copy;
    /// 16 `i32`.
    type Ints: Copy;
    /// 16 pairs of `i16`.
    type Pairs: Copy;

    /// Runs a task compiled for this instruction set.
    fn run<T: Task>(self, task: T) -> T::Output;

    fn splat(self, value: f32) -> Self::Floats;
    fn load(self, values: &[f32; LANES]) -> Self::Floats;
    fn store(self, values: Self::Floats) -> [f32; LANES];
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once.
    fn mul_sub(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Half-precision floats by their bits.
    fn halves(self, bits: &[u16; LANES]) -> Self::Floats;
    /// `bfloat16` by their bits.
    fn brains(self, bits: &[u16; LANES]) -> Self::Floats;
    fn bytes(self, values: &[u8; LANES]) -> Self::Floats;

    fn no_ints(self) -> Self::Ints;
    fn widen(self, values: &[[i8; 2]; LANES]) -> Self::Pairs;
    /// The low and the high halves of bytes.
    fn nibbles(self, values: &[[u8; 2]; LANES]) -> [Self::Pairs; 2];
    /// Adds to each lane the product of its pair with `x` (two `i16` in one word, the first in the low half).
    fn dot(self, sums: Self::Ints, pairs: Self::Pairs, x: i32) -> Self::Ints;
    fn to_floats(self, values: Self::Ints) -> Self::Floats;
}

/// Work that is compiled once for each instruction set.
pub(super) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, like all that it calls.
    fn call<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// The instruction set that kernels use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Isa {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Isa {
    /// The best one of this processor.
    pub(super) fn detect() -> Self {
        Self::all().pop().unwrap_or(Self::Scalar(Scalar))
    }

    /// Those that this processor has, the best last.
    pub(super) fn all() -> Vec<Self> {
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = [];
        #[cfg(target_arch = "x86_64")]
        let vectors = [avx2::Avx2::try_new().map(Self::Avx2), avx512::Avx512::try_new().map(Self::Avx512)];
        std::iter::once(Self::Scalar(Scalar)).chain(vectors.into_iter().flatten()).collect()
    }

    /// Runs a kernel.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(lanes) => lanes.run(On { lanes, kernel }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.run(On { lanes, kernel }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(lanes) => lanes.run(On { lanes, kernel }),
        }
    }
}

struct On<L, K> {
    lanes: L,
    kernel: K,
}

impl<L: Lanes, K: Kernel> Task for On<L, K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.kernel.call(self.lanes)
    }
}
