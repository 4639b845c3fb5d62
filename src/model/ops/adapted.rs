//! A frozen linear layer with low-rank factors beside it (LoRA, Hu et al. 2021): `y = x Wᵀ + s · drop(x) Aᵀ Bᵀ` as one
//! operation. It keeps its input and the factors alone; no gradient of `W` is ever formed, and the rank is contracted first.
//!
//! The norms that DoRA (Liu et al. 2024) divides by are here too, since they read the same matrices.

use super::dropout::{Dropout, dropout};
use super::kernels::{Matrix, Product, RowKernel, dot, for_rows, matmul_wide};
use super::{View, is_fused, linear, output, project, slice, tensor};
use crate::model::weight::Weight;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
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

/// `x: [T, in]`, `w: [out, in]` → `[T, out]`. Gradients reach `x` and the factors, never `w`.
pub fn adapted(x: &Tensor, w: &Weight, factors: &Factors<'_>) -> Result<Tensor> {
    let Factors { a, b, scale, dropout } = *factors;
    if is_fused(x) {
        let op = Adapted { weight: w.clone(), scale: scale as f32, dropout };
        return x.contiguous()?.apply_op3(a, b, op);
    }
    composed(x, w, factors)
}

fn composed(x: &Tensor, w: &Weight, factors: &Factors<'_>) -> Result<Tensor> {
    let input = match factors.dropout {
        Some(share) => dropout(x, share)?,
        None => x.clone(),
    };
    let [a, b] = [factors.a, factors.b].map(|factor| factor.to_dtype(x.dtype()));
    linear(x, w)? + (project(&project(&input, &a?)?, &b?)? * factors.scale)?
}

/// Length of each row of `W`, `[out]` in f32, without a gradient.
pub fn row_norms(w: &Weight) -> Result<Tensor> {
    norms(&w.expand()?.detach())
}

/// Length of each row of `W + s B A`, `[out]` in f32, without a gradient.
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
        return w.to_dtype(DType::F32)?.sqr()?.sum(1)?.sqrt();
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

struct Adapted {
    weight: Weight,
    scale: f32,
    dropout: Option<Dropout>,
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
    rank: usize,
}

impl Sizes {
    fn new(x: &Shape, a: &Shape, b: &Shape) -> Result<Self> {
        let ((rows, inputs), (rank, _), (outputs, _)) = (x.dims2()?, a.dims2()?, b.dims2()?);
        Ok(Self { rows, inputs, outputs, rank })
    }

    /// `drop(x) Aᵀ`, `[rows, rank]`.
    fn low(self, x: &[f32], a: &[f32]) -> Vec<f32> {
        let mut low = vec![0f32; self.rows * self.rank];
        let a = Matrix::new(a, self.rank, self.inputs, self.inputs);
        fill(&mut low, Matrix::new(x, self.rows, self.inputs, self.inputs), a.t(), 1.0);
        low
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

impl Adapted {
    fn dropped<'a>(&self, x: &'a [f32]) -> Cow<'a, [f32]> {
        match self.dropout {
            None => Cow::Borrowed(x),
            Some(dropout) => {
                let mut x = x.to_vec();
                dropout.apply(&mut x);
                Cow::Owned(x)
            }
        }
    }

    fn forward(&self, sizes: Sizes, [x, a, b]: [&[f32]; 3]) -> Result<Vec<f32>> {
        let Sizes { rows, inputs, outputs, rank } = sizes;
        let w = self.weight.expand()?;
        let mut y = vec![0f32; rows * outputs];
        let w = View::new(&w)?;
        fill(&mut y, Matrix::new(x, rows, inputs, inputs), Matrix::new(&w, outputs, inputs, inputs).t(), 1.0);
        let low = sizes.low(&self.dropped(x), a);
        let b = Matrix::new(b, outputs, rank, rank);
        add(&mut y, Matrix::new(&low, rows, rank, rank), b.t(), self.scale);
        Ok(y)
    }

    /// With `l = drop(x) Aᵀ` and `dl = s · dy B`: `dx = dy W + drop(dl A)`, `dA = dlᵀ drop(x)`, `dB = s · dyᵀ l`.
    fn backward(&self, sizes: Sizes, [x, a, b, grad]: [&[f32]; 4], want_input: bool) -> Result<Gradients> {
        let Sizes { rows, inputs, outputs, rank } = sizes;
        let (input, grad) = (self.dropped(x), Matrix::new(grad, rows, outputs, outputs));
        let low = sizes.low(&input, a);
        let mut low_grad = vec![0f32; rows * rank];
        fill(&mut low_grad, grad, Matrix::new(b, outputs, rank, rank), self.scale);
        let (mut da, mut db) = (vec![0f32; rank * inputs], vec![0f32; outputs * rank]);
        let low_grad = Matrix::new(&low_grad, rows, rank, rank);
        fill(&mut da, low_grad.t(), Matrix::new(&input, rows, inputs, inputs), 1.0);
        fill(&mut db, grad.t(), Matrix::new(&low, rows, rank, rank), self.scale);
        let branch = Matrix::new(a, rank, inputs, inputs);
        let dx = want_input.then(|| self.input_gradient(sizes, grad, (low_grad, branch))).transpose()?;
        Ok(Gradients { dx, da, db })
    }

    fn input_gradient(&self, sizes: Sizes, grad: Matrix<'_>, (low, a): (Matrix<'_>, Matrix<'_>)) -> Result<Vec<f32>> {
        let Sizes { rows, inputs, outputs, .. } = sizes;
        let w = self.weight.expand()?;
        let w = View::new(&w)?;
        let w = Matrix::new(&w, outputs, inputs, inputs);
        let mut dx = vec![0f32; rows * inputs];
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

struct Gradients {
    dx: Option<Vec<f32>>,
    da: Vec<f32>,
    db: Vec<f32>,
}

impl CustomOp3 for Adapted {
    fn name(&self) -> &'static str {
        "linear-adapted"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(lx.shape(), la.shape(), lb.shape())?;
        let y = self.forward(sizes, [slice(x, lx)?, slice(a, la)?, slice(b, lb)?])?;
        Ok(output(y, (sizes.rows, sizes.outputs)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let views = [View::new(x)?, View::new(a)?, View::new(b)?, View::new(&grad)?];
        let sizes = Sizes::new(x.shape(), a.shape(), b.shape())?;
        let found = self.backward(sizes, views.each_ref().map(|view| &**view), x.track_op())?;
        let back = |values, like: &Tensor| tensor(values, like.shape().clone());
        let dx = found.dx.map(|dx| back(dx, x)).transpose()?;
        Ok((dx, Some(back(found.da, a)?), Some(back(found.db, b)?)))
    }
}
