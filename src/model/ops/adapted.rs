//! A frozen linear layer with low-rank factors beside it (LoRA, Hu et al. 2021): `y = x Wᵀ + s · drop(x) Aᵀ Bᵀ` as one
//! operation. Its backward pass reads its input and the factors alone; no gradient of `W` is ever formed, and the rank is
//! contracted first.
//!
//! The norms that DoRA (Liu et al. 2024) divides by are here too, since they read the same matrices.

use super::dropout::Dropout;
use super::kernels::{Matrix, Product, RowKernel, dot, for_rows, matmul_wide};
use super::{View, composed, is_fused, tensor, wide};
use crate::model::weight::Weight;
use candle_core::{Result, Tensor};
use std::borrow::Cow;

/// The factors of one layer.
pub struct Factors<'a> {
    /// `[rank, in]`
    pub a: &'a Tensor,
    /// `[out, rank]`
    pub b: &'a Tensor,
    /// On their product.
    pub scale: f64,
    /// Of the factors' input.
    pub dropout: Option<Dropout>,
}

/// Gradients of the input and of the factors, each of its own shape.
pub struct AdaptedGradients {
    pub x: Tensor,
    pub a: Tensor,
    pub b: Tensor,
}

/// `x: [T, in]`, `w: [out, in]` → `[T, out]`.
pub fn adapted(x: &Tensor, w: &Weight, factors: &Factors<'_>) -> Result<Tensor> {
    if !is_fused(x) {
        return Composed::new(x, factors)?.forward(x, w);
    }
    let x = x.contiguous()?;
    let (x, a, b) = (View::new(&x)?, View::new(factors.a)?, View::new(factors.b)?);
    let layer = Fused::new(w, factors, &x)?;
    tensor(layer.forward([&x, &a, &b])?, (layer.rows, layer.outputs))
}

/// Gradients from that of the output, `grad: [T, out]`.
pub fn adapted_backward(x: &Tensor, w: &Weight, factors: &Factors<'_>, grad: &Tensor) -> Result<AdaptedGradients> {
    if !is_fused(x) {
        return Composed::new(x, factors)?.backward(w, grad);
    }
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let (xs, a, b, grad) = (View::new(&x)?, View::new(factors.a)?, View::new(factors.b)?, View::new(&grad)?);
    Fused::new(w, factors, &xs)?.backward([&xs, &a, &b, &grad])
}

/// The layer from plain candle ops, for devices without fused kernels.
struct Composed {
    /// In the type of the computation.
    a: Tensor,
    b: Tensor,
    scale: f64,
    /// What multiplies the factors' input.
    mask: Option<Tensor>,
    /// The factors' input, `[T, in]`.
    input: Tensor,
}

impl Composed {
    fn new(x: &Tensor, factors: &Factors<'_>) -> Result<Self> {
        let mask = factors.dropout.map(|dropout| dropout.factors(x)).transpose()?;
        let input = masked(x.clone(), mask.as_ref())?;
        let [a, b] = [factors.a, factors.b].map(|factor| factor.detach().to_dtype(x.dtype()));
        Ok(Self { a: a?, b: b?, scale: factors.scale, mask, input })
    }

    /// `[T, rank]`
    fn low(&self) -> Result<Tensor> {
        composed::linear(&self.input, &self.a)
    }

    fn forward(&self, x: &Tensor, w: &Weight) -> Result<Tensor> {
        composed::linear(x, &w.expand()?.detach())? + (composed::linear(&self.low()?, &self.b)? * self.scale)?
    }

    fn backward(&self, w: &Weight, grad: &Tensor) -> Result<AdaptedGradients> {
        let low_grad = (grad.matmul(&self.b)? * self.scale)?;
        let wide = wide(grad.dtype());
        let a = low_grad.t()?.matmul(&self.input)?.to_dtype(wide)?;
        let b = (grad.t()?.matmul(&self.low()?)? * self.scale)?.to_dtype(wide)?;
        let x = (grad.matmul(&w.expand()?.detach())? + masked(low_grad.matmul(&self.a)?, self.mask.as_ref())?)?;
        Ok(AdaptedGradients { x, a, b })
    }
}

fn masked(x: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    mask.map_or(Ok(x.clone()), |mask| x * mask)
}

/// Length of each row of `W`, `[out]` in f32 (f64 of one in f64), without a gradient.
pub fn row_norms(w: &Weight) -> Result<Tensor> {
    norms(&w.expand()?.detach())
}

/// Length of each row of `W + s B A`, `[out]` in f32 (f64 of one in f64), without a gradient.
pub fn adapted_norms(w: &Weight, factors: &Factors<'_>) -> Result<Tensor> {
    let (a, b) = (factors.a.detach(), factors.b.detach());
    let w = w.expand()?.detach();
    if !is_fused(&w) {
        return norms(&(&w + (b.matmul(&a)? * factors.scale)?.to_dtype(w.dtype())?)?);
    }
    let ((rank, inputs), outputs) = (a.dims2()?, b.dim(0)?);
    let (a, b) = (View::new(&a)?, View::new(&b)?);
    let mut merged = View::new(&w)?.to_vec();
    let (b, a) = (Matrix::new(&b, outputs, rank, rank), Matrix::new(&a, rank, inputs, inputs));
    add(&mut merged, b, a, factors.scale as f32);
    norms(&tensor(merged, (outputs, inputs))?)
}

fn norms(w: &Tensor) -> Result<Tensor> {
    if !is_fused(w) {
        return w.to_dtype(wide(w.dtype()))?.sqr()?.sum(1)?.sqrt();
    }
    let (rows, width) = w.dims2()?;
    let mut found = vec![0f32; rows];
    for_rows(&mut found, 1, &RowNorms { rows: &View::new(w)?, width });
    tensor(found, rows)
}

struct RowNorms<'a> {
    rows: &'a [f32],
    width: usize,
}

impl RowKernel for RowNorms<'_> {
    #[inline(always)]
    fn row(&self, index: usize, norm: &mut [f32]) {
        let row = &self.rows[index * self.width..(index + 1) * self.width];
        norm[0] = dot(row, row).sqrt();
    }
}

/// The layer as CPU kernels, with the sizes of one call.
struct Fused<'a> {
    weight: &'a Weight,
    scale: f32,
    dropout: Option<Dropout>,
    rows: usize,
    inputs: usize,
    outputs: usize,
    rank: usize,
}

impl<'a> Fused<'a> {
    fn new(weight: &'a Weight, factors: &Factors<'_>, x: &[f32]) -> Result<Self> {
        let ((rank, inputs), outputs) = (factors.a.dims2()?, factors.b.dim(0)?);
        let Factors { scale, dropout, .. } = *factors;
        Ok(Self { weight, scale: scale as f32, dropout, rows: x.len() / inputs, inputs, outputs, rank })
    }

    fn dropped<'x>(&self, x: &'x [f32]) -> Cow<'x, [f32]> {
        match self.dropout {
            None => Cow::Borrowed(x),
            Some(dropout) => {
                let mut x = x.to_vec();
                dropout.apply(&mut x);
                Cow::Owned(x)
            }
        }
    }

    /// `drop(x) Aᵀ`, `[rows, rank]`.
    fn low(&self, x: &[f32], a: &[f32]) -> Vec<f32> {
        let mut low = vec![0f32; self.rows * self.rank];
        let a = Matrix::new(a, self.rank, self.inputs, self.inputs);
        fill(&mut low, Matrix::new(x, self.rows, self.inputs, self.inputs), a.t(), 1.0);
        low
    }

    fn forward(&self, [x, a, b]: [&[f32]; 3]) -> Result<Vec<f32>> {
        let Self { rows, inputs, outputs, rank, .. } = *self;
        let w = self.weight.expand()?;
        let mut y = vec![0f32; rows * outputs];
        let w = View::new(&w)?;
        fill(&mut y, Matrix::new(x, rows, inputs, inputs), Matrix::new(&w, outputs, inputs, inputs).t(), 1.0);
        let low = self.low(&self.dropped(x), a);
        let b = Matrix::new(b, outputs, rank, rank);
        add(&mut y, Matrix::new(&low, rows, rank, rank), b.t(), self.scale);
        Ok(y)
    }

    /// With `l = drop(x) Aᵀ` and `dl = s · dy B`: `dx = dy W + drop(dl A)`, `dA = dlᵀ drop(x)`, `dB = s · dyᵀ l`.
    fn backward(&self, [x, a, b, grad]: [&[f32]; 4]) -> Result<AdaptedGradients> {
        let Self { rows, inputs, outputs, rank, .. } = *self;
        let (input, grad) = (self.dropped(x), Matrix::new(grad, rows, outputs, outputs));
        let low = self.low(&input, a);
        let mut low_grad = vec![0f32; rows * rank];
        fill(&mut low_grad, grad, Matrix::new(b, outputs, rank, rank), self.scale);
        let (mut da, mut db) = (vec![0f32; rank * inputs], vec![0f32; outputs * rank]);
        let low_grad = Matrix::new(&low_grad, rows, rank, rank);
        fill(&mut da, low_grad.t(), Matrix::new(&input, rows, inputs, inputs), 1.0);
        fill(&mut db, grad.t(), Matrix::new(&low, rows, rank, rank), self.scale);
        let dx = self.input_gradient(grad, low_grad, Matrix::new(a, rank, inputs, inputs))?;
        Ok(AdaptedGradients {
            x: tensor(dx, (rows, inputs))?,
            a: tensor(da, (rank, inputs))?,
            b: tensor(db, (outputs, rank))?,
        })
    }

    fn input_gradient(&self, grad: Matrix<'_>, low: Matrix<'_>, a: Matrix<'_>) -> Result<Vec<f32>> {
        let w = self.weight.expand()?;
        let w = View::new(&w)?;
        let w = Matrix::new(&w, self.outputs, self.inputs, self.inputs);
        let mut dx = vec![0f32; self.rows * self.inputs];
        match self.dropout {
            None => {
                fill(&mut dx, grad, w, 1.0);
                add(&mut dx, low, a, 1.0);
            }
            // The mask is on what comes through the factors: that first, alone.
            Some(dropout) => {
                fill(&mut dx, low, a, 1.0);
                dropout.apply(&mut dx);
                add(&mut dx, grad, w, 1.0);
            }
        }
        Ok(dx)
    }
}

/// `dst = scale * a b`, dense.
fn fill(dst: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    matmul_wide(dst, b.columns(), Product { a, b, scale, accumulate: false });
}

/// `dst += scale * a b`, dense.
fn add(dst: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    matmul_wide(dst, b.columns(), Product { a, b, scale, accumulate: true });
}
