//! The vocabulary head with its loss: cross entropies of selected rows and their gradients, some rows and some of the
//! vocabulary at a time, so that the logits of all rows never exist together.

use super::kernels::{Matrix, Product, RowKernel, for_rows, matmul_wide, softmax};
use super::linear::joined;
use super::{View, composed, is_fused, tensor, wide};
use crate::model::weight::Weight;
use candle_core::{DType, Result, Tensor};
use std::ops::Range;
use std::sync::Mutex;

/// Logits that exist at the same time (256 MiB in f32).
const LOGITS: usize = 1 << 26;
/// Most rows whose logits exist at the same time.
const MAX_ROWS: usize = 2048;
/// Rows of the head that are read at the same time.
const PANEL: usize = 4096;

/// What the head says about some rows.
pub struct HeadLoss {
    /// Cross entropy of each row (natural logarithm).
    pub losses: Vec<f32>,
    /// Most likely token of each row.
    pub predictions: Vec<u32>,
    /// Of `Σ factor · loss`, where they were asked for.
    pub gradients: Option<HeadGradients>,
}

/// Gradients of the weighted sum of losses.
pub struct HeadGradients {
    /// `[n, d]`, like the hidden states.
    pub hidden: Tensor,
    /// Of the head's rows that are trained, `[rows, d]`.
    pub head: Option<Tensor>,
}

/// Cross entropy of `hidden: [n, d]` through `head: [vocab, d]` against `targets` (length n). With `factors` (length n,
/// each row's weight in the sum) also the gradients.
pub fn head_loss(hidden: &Tensor, head: &Weight, targets: &[u32], factors: Option<&[f32]>) -> Result<HeadLoss> {
    let (hidden, vocab) = (hidden.detach().contiguous()?, head.dims()[0]);
    let rows = (LOGITS / vocab.max(1)).clamp(1, MAX_ROWS);
    let mut sum = Sum { found: Vec::with_capacity(targets.len()), hidden: Vec::new(), head: None };
    for start in (0..targets.len()).step_by(rows) {
        let range = start..(start + rows).min(targets.len());
        let x = hidden.narrow(0, start, range.len())?;
        let part = Part { x: &x, head, targets: &targets[range.clone()], factors: factors.map(|all| &all[range]) };
        if is_fused(&hidden) { part.fused(&mut sum) } else { part.composed(&mut sum) }?;
    }
    let gradients = match factors.is_some() && !sum.hidden.is_empty() {
        true => Some(HeadGradients { hidden: Tensor::cat(&sum.hidden, 0)?, head: sum.head }),
        false => None,
    };
    let (losses, predictions) = sum.found.into_iter().unzip();
    Ok(HeadLoss { losses, predictions, gradients })
}

/// What the parts have given so far.
struct Sum {
    /// Loss and most likely token of each row.
    found: Vec<(f32, u32)>,
    hidden: Vec<Tensor>,
    head: Option<Tensor>,
}

impl Sum {
    fn add(&mut self, hidden: Tensor, head: Option<Tensor>) -> Result<()> {
        self.hidden.push(hidden);
        if let Some(part) = head {
            self.head = Some(self.head.take().map_or(Ok(part.clone()), |sum| sum + part)?);
        }
        Ok(())
    }
}

/// Rows whose logits exist together.
struct Part<'a> {
    x: &'a Tensor,
    head: &'a Weight,
    targets: &'a [u32],
    factors: Option<&'a [f32]>,
}

impl Part<'_> {
    fn fused(&self, sum: &mut Sum) -> Result<()> {
        let ((rows, width), vocab) = (self.x.dims2()?, self.head.dims()[0]);
        let view = View::new(self.x)?;
        let x = Matrix::new(&view, rows, width, width);
        let mut logits = vec![0f32; rows * vocab];
        self.panels(|range, w| {
            let product = Product { a: x, b: w.t(), scale: 1.0, accumulate: false };
            matmul_wide(&mut logits[range.start..], vocab, product);
        })?;
        sum.found.extend(self.residuals(&mut logits, vocab));
        if self.factors.is_none() {
            return Ok(());
        }
        let mut hidden = vec![0f32; rows * width];
        let trained = self.trained();
        let mut head = trained.as_ref().map(|rows| vec![0f32; rows.len() * width]);
        self.panels(|range, w| {
            let residual = Matrix::new(&logits[range.start..], rows, range.len(), vocab);
            matmul_wide(&mut hidden, width, Product { a: residual, b: w, scale: 1.0, accumulate: true });
            if let (Some(head), Some(trained)) = (&mut head, &trained) {
                let (start, end) = (range.start.max(trained.start), range.end.min(trained.end));
                if start < end {
                    let residual = Matrix::new(&logits[start..], rows, end - start, vocab);
                    let part = &mut head[(start - trained.start) * width..(end - trained.start) * width];
                    matmul_wide(part, width, Product { a: residual.t(), b: x, scale: 1.0, accumulate: false });
                }
            }
        })?;
        let head = head.zip(trained).map(|(head, rows)| tensor(head, (rows.len(), width))).transpose()?;
        sum.add(tensor(hidden, (rows, width))?, head)
    }

    /// The rows of the head whose gradients are wanted.
    fn trained(&self) -> Option<Range<usize>> {
        self.head.trained().map(|(first, rows)| first..first + rows.dims()[0])
    }

    /// Hands out the head's rows, some at a time.
    fn panels(&self, mut work: impl FnMut(Range<usize>, Matrix<'_>)) -> Result<()> {
        let (vocab, width) = (self.head.dims()[0], self.head.dims()[1]);
        for start in (0..vocab).step_by(PANEL) {
            let range = start..(start + PANEL).min(vocab);
            let panel = self.head.rows(range.clone())?.detach();
            work(range.clone(), Matrix::new(&View::new(&panel)?, range.len(), width, width));
        }
        Ok(())
    }

    /// Turns logits into `factor · (softmax - onehot(target))`; gives each row's loss and most likely token.
    fn residuals(&self, logits: &mut [f32], vocab: usize) -> Vec<(f32, u32)> {
        let found: Vec<_> = self.targets.iter().map(|_| Mutex::new((0.0, 0))).collect();
        for_rows(logits, vocab, &Residual { targets: self.targets, factors: self.factors, found: &found });
        found.into_iter().map(|found| found.into_inner().unwrap_or_default()).collect()
    }

    fn composed(&self, sum: &mut Sum) -> Result<()> {
        let parts = self.head.parts(0..self.head.dims()[0])?;
        let logits = joined(self.x, &parts)?;
        let logits = logits.to_dtype(wide(logits.dtype()))?;
        let targets = Tensor::new(self.targets, logits.device())?;
        let losses = composed::cross_entropies(&logits, &targets)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        sum.found.extend(losses.into_iter().zip(logits.argmax(1)?.to_vec1::<u32>()?));
        let Some(factors) = self.factors else { return Ok(()) };
        let residual = residual(&logits, &targets, factors)?.to_dtype(self.x.dtype())?;
        // A GPU's products read no columns out of the midst of longer rows.
        let columns = |rows: Range<usize>| residual.narrow(1, rows.start, rows.len())?.contiguous();
        let of_rows = |rows: Range<usize>| columns(rows)?.t()?.matmul(self.x)?.to_dtype(logits.dtype());
        let trained = self.trained().map(of_rows).transpose()?;
        let (mut hidden, mut start) = (self.x.zeros_like()?, 0);
        for part in parts {
            let rows = start..start + part.dim(0)?;
            start = rows.end;
            hidden = (hidden + columns(rows)?.matmul(&part.detach())?)?;
        }
        sum.add(hidden, trained)
    }
}

/// `factor · (softmax - onehot(target))` of the logits, `[n, vocab]`.
fn residual(logits: &Tensor, targets: &Tensor, factors: &[f32]) -> Result<Tensor> {
    let (device, dtype) = (logits.device(), logits.dtype());
    let shares = logits.broadcast_sub(&logits.max_keepdim(1)?)?.exp()?;
    let shares = shares.broadcast_div(&shares.sum_keepdim(1)?)?;
    let ones = Tensor::ones((factors.len(), 1), dtype, device)?;
    let residual = shares.scatter_add(&targets.unsqueeze(1)?, &ones.neg()?, 1)?;
    residual.broadcast_mul(&Tensor::new(factors, device)?.unsqueeze(1)?.to_dtype(dtype)?)
}

struct Residual<'a> {
    targets: &'a [u32],
    factors: Option<&'a [f32]>,
    found: &'a [Mutex<(f32, u32)>],
}

impl RowKernel for Residual<'_> {
    #[inline(always)]
    fn row(&self, i: usize, row: &mut [f32]) {
        let target = self.targets[i] as usize;
        let (best, chosen) = (argmax(row), row[target]);
        let normaliser = softmax(row);
        if let Some(factors) = self.factors {
            row[target] -= 1.0;
            row.iter_mut().for_each(|value| *value *= factors[i]);
        }
        if let Ok(mut slot) = self.found[i].lock() {
            *slot = (normaliser - chosen, best as u32);
        }
    }
}

#[inline(always)]
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}
