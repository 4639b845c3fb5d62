//! CPU loops on `f32` slices: the arithmetic under the ops, vectorised for whatever the processor has.
//!
//! Knows no tensors and no gradients. The only `unsafe` is the call into `gemm`, behind checked bounds.

use rayon::prelude::*;

/// Lanes of partial sums in a dot product: enough to fill AVX-512, and the same on every machine.
const LANES: usize = 16;

/// Below this many multiply-adds a loop is not worth handing to other threads.
const PARALLEL_WORK: usize = 1 << 17;

/// A loop to be compiled once for each instruction set. Its method must be `#[inline(always)]`, and so must all that
/// it calls: what stays a call of its own (a large closure, say) is compiled for the oldest processor.
pub(in crate::model) use pulp::NullaryFnOnce as Loop;

/// Runs a loop as compiled for the best instruction set of this processor.
pub(in crate::model) fn vectorised<L: Loop>(task: L) -> L::Output {
    pulp::Arch::new().dispatch(task)
}

/// What happens to each row of a matrix; `row` must be `#[inline(always)]`, see [`Loop`].
pub(super) trait RowKernel: Sync {
    /// Handles row `index`.
    fn row(&self, index: usize, row: &mut [f32]);
}

struct Rows<'a, K> {
    kernel: &'a K,
    first: usize,
    rows: &'a mut [f32],
    width: usize,
}

impl<K: RowKernel> Loop for Rows<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (i, row) in self.rows.chunks_exact_mut(self.width).enumerate() {
            self.kernel.row(self.first + i, row);
        }
    }
}

/// Applies the kernel to every row of `width` values on this thread.
pub(super) fn each_row(rows: &mut [f32], width: usize, kernel: &impl RowKernel) {
    vectorised(Rows { kernel, first: 0, rows, width });
}

/// The same in parallel when there is enough work.
pub(super) fn for_rows(rows: &mut [f32], width: usize, kernel: &impl RowKernel) {
    let per_task = (PARALLEL_WORK / 8 / width.max(1)).max(1);
    let chunks = rows.par_chunks_mut(per_task * width).enumerate();
    chunks.for_each(|(task, rows)| vectorised(Rows { kernel, first: task * per_task, rows, width }));
}

/// `eˣ` without a library call, so that loops over it vectorise. Relative error below 2e-7 for |x| < 87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The low bits of `rounded` are n: added to the exponent they multiply by 2^n.
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(in crate::model) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Dot product whose order of additions depends on the length alone.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            sums[lane] = x[lane].mul_add(y[lane], sums[lane]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + tail
}

/// `y += factor * x`.
#[inline(always)]
pub(super) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = factor.mul_add(*x, *y);
    }
}

/// Softmax in place; returns `ln Σ eˣ` of the input.
#[inline(always)]
pub(in crate::model) fn softmax(row: &mut [f32]) -> f32 {
    let max = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let sum = sum(row);
    let inverse = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    max + sum.ln()
}

/// Largest value, in [`LANES`] partial maxima.
#[inline(always)]
fn max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut best = [f32::NEG_INFINITY; LANES];
    let (body, tail) = row.as_chunks::<LANES>();
    for x in body {
        for lane in 0..LANES {
            best[lane] = larger(best[lane], x[lane]);
        }
    }
    best.into_iter().chain(tail.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// Sum in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn sum(row: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (body, tail) = row.as_chunks::<LANES>();
    for x in body {
        for lane in 0..LANES {
            sums[lane] += x[lane];
        }
    }
    sums.iter().sum::<f32>() + tail.iter().sum::<f32>()
}

/// `y[t, o] = x[t, :] · w[o, :]` where every output depends on its own row alone: the result of a row is the same
/// whatever other rows are in the batch. Used where nothing is trained; training uses [`matmul`], which is faster for many rows.
pub(super) fn linear_rows(x: &[f32], w: &[f32], width: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / width, w.len() / width);
    let mut transposed = vec![0f32; rows * outputs];
    let outputs_per_task = (PARALLEL_WORK / (width * rows).max(1)).clamp(4, outputs.max(4));
    transposed
        .par_chunks_mut(outputs_per_task * rows)
        .zip(w.par_chunks(outputs_per_task * width))
        .for_each(|(out, w)| vectorised(DotBlock { x, w, width, out }));
    if rows == 1 { transposed } else { transpose(&transposed, outputs, rows) }
}

/// `out[o, t] = w[o, :] · x[t, :]`.
struct DotBlock<'a> {
    x: &'a [f32],
    w: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl Loop for DotBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let rows = self.x.len() / self.width;
        for (w, out) in self.w.chunks_exact(self.width).zip(self.out.chunks_exact_mut(rows)) {
            for (x, out) in self.x.chunks_exact(self.width).zip(out) {
                *out = dot(w, x);
            }
        }
    }
}

fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    for (r, row) in x.chunks_exact(columns).enumerate() {
        for (c, value) in row.iter().enumerate() {
            y[c * rows + r] = *value;
        }
    }
    y
}

/// A matrix inside a slice: `rows × columns` with the given strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, `row_stride` apart.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let matrix = Self { data, rows, columns, row_stride, column_stride: 1 };
        assert!(rows == 0 || columns == 0 || matrix.last() < data.len(), "matrix does not fit its slice");
        matrix
    }

    /// The same data with rows and columns exchanged.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    fn last(&self) -> usize {
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride
    }
}

/// `scale * a b`, to be written or added to what is there.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) a: Matrix<'a>,
    pub(super) b: Matrix<'a>,
    pub(super) scale: f32,
    pub(super) accumulate: bool,
}

/// `dst = scale * a b` (or `dst += …`), `dst` row-major and dense. One thread.
pub(super) fn matmul(dst: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, scale: f32, accumulate: bool) {
    assert_eq!(dst.len(), a.rows * b.columns, "destination has another size");
    Product { a, b, scale, accumulate }.write(dst, b.columns, gemm::Parallelism::None);
}

/// The same with all threads, into the first `b.columns` values of rows that lie `stride` apart.
pub(super) fn matmul_wide(dst: &mut [f32], stride: usize, product: Product<'_>) {
    // 0: as many as the pool has.
    product.write(dst, stride, gemm::Parallelism::Rayon(0));
}

impl Product<'_> {
    #[expect(unsafe_code, reason = "gemm takes raw pointers; the bounds of all three matrices are checked here")]
    fn write(self, dst: &mut [f32], dst_stride: usize, parallelism: gemm::Parallelism) {
        let Self { a, b, scale, accumulate } = self;
        let (m, n, k) = (a.rows, b.columns, a.columns);
        assert_eq!(k, b.rows, "inner dimensions differ");
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        assert!(n <= dst_stride && (m - 1) * dst_stride + n <= dst.len(), "destination is too small");
        assert!(a.last() < a.data.len() && b.last() < b.data.len(), "matrix does not fit its slice");
        let stride = |s: usize| s as isize;
        // SAFETY: a, b lie inside their slices and every row of the product inside dst (checked above), which is borrowed
        // mutably, so it overlaps neither.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                dst.as_mut_ptr(),
                1,
                stride(dst_stride),
                accumulate,
                a.data.as_ptr(),
                stride(a.column_stride),
                stride(a.row_stride),
                b.data.as_ptr(),
                stride(b.column_stride),
                stride(b.row_stride),
                1.0,
                scale,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
    }

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -8700..8700 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            assert!(((f64::from(exp(x)) - expected) / expected).abs() < 3e-7, "{x}");
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_batch() {
        let (x, w) = (ramp(7 * 50), ramp(23 * 50));
        let batch = linear_rows(&x, &w, 50);
        for row in 0..7 {
            assert_eq!(linear_rows(&x[row * 50..(row + 1) * 50], &w, 50), batch[row * 23..(row + 1) * 23]);
        }
    }

    #[test]
    fn a_product_may_fill_a_part_of_each_row() {
        let (a, b) = (ramp(5 * 8), ramp(6 * 8));
        let (a, b) = (Matrix::new(&a, 5, 8, 8), Matrix::new(&b, 6, 8, 8).t());
        let mut dense = vec![0f32; 30];
        matmul(&mut dense, a, b, 2.0, false);
        let mut wide = vec![7f32; 5 * 9];
        matmul_wide(&mut wide, 9, Product { a, b, scale: 2.0, accumulate: false });
        for (row, expected) in wide.chunks(9).zip(dense.chunks(6)) {
            assert_eq!((&row[..6], &row[6..]), (expected, &[7.0; 3][..]));
        }
    }

    #[test]
    fn matmul_agrees_with_the_sum_of_products_also_transposed() {
        let (a, b) = (ramp(5 * 8), ramp(6 * 8));
        let mut dst = vec![0f32; 30];
        matmul(&mut dst, Matrix::new(&a, 5, 8, 8), Matrix::new(&b, 6, 8, 8).t(), 2.0, false);
        for i in 0..5 {
            for j in 0..6 {
                let expected = 2.0 * dot(&a[i * 8..(i + 1) * 8], &b[j * 8..(j + 1) * 8]);
                assert!((dst[i * 6 + j] - expected).abs() < 1e-5);
            }
        }
    }
}
