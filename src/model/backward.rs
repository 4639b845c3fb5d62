//! Losses and gradients of the decoder, half a block at a time.
//!
//! Each half (attention, feed-forward) is followed backwards by hand, from what it kept or from its input alone, in which
//! case it is computed again first ([`Recompute`]; Chen et al. 2016). So at no time is there more than what was asked to be
//! kept and one half. Knows no optimizer and no batches of samples.

use super::attention::{Attended, LayerContext, Lookback};
use super::decoder::Block;
use super::mlp::Gated;
use super::ops::{self, HeadGradients, Rotary};
use super::prompt;
use super::{AdapterBatch, Decoder, ModelError};
use candle_core::{Tensor, TensorId};
use serde::{Deserialize, Serialize};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Which intermediate results are computed again instead of kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// None: fastest, most memory.
    #[default]
    Off,
    /// Those of the feed-forward halves: the larger part of the memory for the smaller part of the time.
    Selective,
    /// All but the inputs of the halves.
    All,
}

/// Packed sequences and the predictions in them that are learnt or measured.
pub struct Predict<'a> {
    /// Token ids of all sequences, end to end, length T.
    pub tokens: &'a [u32],
    /// Position of each token in its own sequence.
    pub positions: &'a [u32],
    /// Tokens of each sequence (sum T); each attends to itself alone.
    pub lengths: &'a [usize],
    pub adapters: &'a AdapterBatch,
    /// Rows that predict, of `0..T`.
    pub rows: &'a [u32],
    /// What each of these rows should predict.
    pub targets: &'a [u32],
}

/// What came of the predictions.
pub struct Found {
    /// Cross entropy of each prediction (natural logarithm).
    pub losses: Vec<f32>,
    /// Most likely token of each prediction.
    pub predictions: Vec<u32>,
}

/// Receives the gradient of each variable that was reached, once for every place where it is used.
pub type Sink<'a> = dyn FnMut(TensorId, &Tensor) -> Result<()> + 'a;

/// What every layer needs on the way back beside what it read and the gradient of what it gave.
pub(super) struct BackwardPass<'a, 'b> {
    pub(super) context: &'a LayerContext<'a>,
    pub(super) sink: &'a mut Sink<'b>,
}

/// The gradient of a norm's input `x` from that of its output.
pub(super) fn norm_backward(x: &Tensor, w: &Tensor, grad: &Tensor, pass: &mut BackwardPass<'_, '_>) -> Result<Tensor> {
    let (dx, dw) = ops::rms_norm_backward(x, w, pass.context.config.rms_norm_eps, grad)?;
    dw.map_or(Ok(()), |dw| (pass.sink)(w.id(), &dw))?;
    Ok(dx)
}

impl Decoder {
    /// Losses alone.
    pub fn evaluate(&self, predict: &Predict<'_>) -> Result<Found, ModelError> {
        let context = self.context(predict);
        let mut x = prompt::embed(&self.embedding, predict.tokens, predict.adapters)?;
        for block in &self.blocks {
            x = block.forward(&x, &context)?;
        }
        let (_, hidden) = self.chosen(&x, predict)?;
        let found = ops::head_loss(&hidden, &self.head, predict.targets, None)?;
        Ok(Found { losses: found.losses, predictions: found.predictions })
    }

    /// Losses, and the gradients of `Σ factor · loss` over the predictions (`factors`: one for each).
    pub fn differentiate(
        &self,
        predict: &Predict<'_>,
        factors: &[f32],
        recompute: Recompute,
        sink: &mut Sink<'_>,
    ) -> Result<Found, ModelError> {
        let context = self.context(predict);
        let mut x = prompt::embed(&self.embedding, predict.tokens, predict.adapters)?;
        let mut pieces = Vec::with_capacity(2 * self.blocks.len());
        for block in &self.blocks {
            for half in [Piece::attend, Piece::feed] {
                let piece = half(block, &x, &context, recompute)?;
                x = piece.1;
                pieces.push(piece.0);
            }
        }
        let (rows, hidden) = self.chosen(&x, predict)?;
        let found = ops::head_loss(&hidden, &self.head, predict.targets, Some(factors))?;
        if let Some(HeadGradients { hidden: gradient, head }) = found.gradients {
            let mut pass = BackwardPass { context: &context, sink };
            if let (Some(gradient), Some((_, trained))) = (head, self.head.trained()) {
                (pass.sink)(trained.id(), &gradient)?;
            }
            let gradient = norm_backward(&rows, &self.norm, &gradient, &mut pass)?;
            let mut upstream = x.zeros_like()?.index_add(&chosen_rows(&x, predict)?, &gradient, 0)?;
            while let Some(piece) = pieces.pop() {
                upstream = piece.backward(&upstream, &mut pass)?;
            }
            prompt::embed_backward(&self.embedding, predict.tokens, predict.adapters, &upstream, sink)?;
        }
        Ok(Found { losses: found.losses, predictions: found.predictions })
    }

    fn context<'a>(&'a self, predict: &Predict<'a>) -> LayerContext<'a> {
        LayerContext {
            config: &self.config,
            rotary: Rotary::new(&self.config, predict.positions),
            lookback: Lookback::Segments(predict.lengths),
            adapters: predict.adapters,
            trains: true,
        }
    }

    /// The rows that predict, before and after the final norm.
    fn chosen(&self, x: &Tensor, predict: &Predict<'_>) -> Result<(Tensor, Tensor)> {
        let rows = x.index_select(&chosen_rows(x, predict)?, 0)?;
        let normed = ops::rms_norm(&rows, &self.norm, self.config.rms_norm_eps)?;
        Ok((rows, normed))
    }
}

fn chosen_rows(x: &Tensor, predict: &Predict<'_>) -> Result<Tensor> {
    Tensor::new(predict.rows, x.device())
}

/// Half a block that was run: its input, and what it kept for its way back.
enum Piece<'a> {
    Attend(&'a Block, Tensor, Option<Attended>),
    Feed(&'a Block, Tensor, Option<Gated>),
}

impl<'a> Piece<'a> {
    /// The first half, and its output.
    fn attend(block: &'a Block, x: &Tensor, context: &LayerContext<'_>, again: Recompute) -> Result<(Self, Tensor)> {
        let (y, attended) = block.attend(x, context)?;
        let kept = (again != Recompute::All).then_some(attended);
        Ok((Self::Attend(block, x.clone(), kept), y))
    }

    /// The second half, and its output.
    fn feed(block: &'a Block, x: &Tensor, context: &LayerContext<'_>, again: Recompute) -> Result<(Self, Tensor)> {
        let (y, gated) = block.feed(x, context)?;
        let kept = (again == Recompute::Off).then_some(gated);
        Ok((Self::Feed(block, x.clone(), kept), y))
    }

    /// The gradient of its input from that of its output. What is made again is made without the last product, which
    /// nothing on the way back reads.
    fn backward(self, grad: &Tensor, pass: &mut BackwardPass<'_, '_>) -> Result<Tensor> {
        let context = pass.context;
        let (x, norm, gradient) = match self {
            Self::Attend(block, x, kept) => {
                let normed = block.attend_input(&x, context)?;
                let kept = kept.map_or_else(|| block.attention.attended(&normed, context), Ok)?;
                let gradient = block.attention.backward(&normed, &kept, grad, pass)?;
                (x, &block.input_norm, gradient)
            }
            Self::Feed(block, x, kept) => {
                let normed = block.feed_input(&x, context)?;
                let kept = kept.map_or_else(|| block.mlp.gated(&normed, context), Ok)?;
                let gradient = block.mlp.backward(&normed, &kept, grad, pass)?;
                (x, &block.post_norm, gradient)
            }
        };
        grad + norm_backward(&x, norm, &gradient, pass)?
    }
}
