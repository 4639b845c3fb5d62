//! Losses and gradients of the decoder, half a block at a time.
//!
//! Each half (attention, feed-forward) has a tape of its own, from its input to its output. After the forward pass a half
//! keeps that tape, or its input alone and is computed again when its turn comes ([`Recompute`]; Chen et al. 2016). So at no
//! time is there more than what was asked to be kept and one half. Knows no optimizer and no batches of samples.

use super::attention::{LayerContext, Lookback};
use super::decoder::Block;
use super::ops::{self, HeadGradients, Rotary};
use super::weight::Weight;
use super::{AdapterBatch, Decoder, ModelError};
use candle_core::backend::BackendStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor, TensorId, Var};
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

impl Decoder {
    /// Losses alone.
    pub fn evaluate(&self, predict: &Predict<'_>) -> Result<Found, ModelError> {
        let context = self.context(predict);
        let mut x = self.embedding.select(predict.tokens)?.detach();
        for half in self.halves() {
            // Without its tape.
            x = half.forward(&x, &context)?.detach();
        }
        let hidden = self.chosen(&x, predict)?;
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
        let embedded = self.embedding.select(predict.tokens)?;
        let mut x = embedded.detach();
        let mut pieces = Vec::with_capacity(2 * self.blocks.len());
        for half in self.halves() {
            let piece = Piece::run(half, &x, &context, half.is_kept(recompute))?;
            x = piece.1;
            pieces.push(piece.0);
        }
        let last = Var::from_tensor(&x)?;
        let hidden = self.chosen(last.as_tensor(), predict)?;
        let found = ops::head_loss(&hidden, &self.head, predict.targets, Some(factors))?;
        if let Some(HeadGradients { hidden: gradient, head }) = found.gradients {
            if let (Some(gradient), Weight::Dense(weight)) = (head, &self.head) {
                sink(weight.id(), &gradient)?;
            }
            let mut upstream = pull(&hidden, gradient, Some(&last), sink)?;
            while let (Some(piece), Some(gradient)) = (pieces.pop(), &upstream) {
                upstream = piece.backward(gradient.clone(), &context, sink)?;
            }
            if let (true, Some(gradient)) = (embedded.track_op(), upstream) {
                pull(&embedded, gradient, None, sink)?;
            }
        }
        Ok(Found { losses: found.losses, predictions: found.predictions })
    }

    fn context<'a>(&'a self, predict: &Predict<'a>) -> LayerContext<'a> {
        LayerContext {
            config: &self.config,
            rotary: Rotary::new(&self.config, predict.positions),
            lookback: Lookback::Segments(predict.lengths),
            adapters: predict.adapters,
        }
    }

    fn halves(&self) -> impl Iterator<Item = Half<'_>> {
        self.blocks.iter().flat_map(|block| [Half::Attend(block), Half::Feed(block)])
    }

    /// Hidden states of the rows that predict.
    fn chosen(&self, x: &Tensor, predict: &Predict<'_>) -> Result<Tensor> {
        let rows = x.index_select(&Tensor::new(predict.rows, x.device())?, 0)?;
        ops::rms_norm(&rows, &self.norm, self.config.rms_norm_eps)
    }
}

/// Half a block.
#[derive(Clone, Copy)]
enum Half<'a> {
    Attend(&'a Block),
    Feed(&'a Block),
}

impl Half<'_> {
    fn forward(self, x: &Tensor, context: &LayerContext<'_>) -> Result<Tensor> {
        match self {
            Self::Attend(block) => block.attend(x, context),
            Self::Feed(block) => block.feed(x, context),
        }
    }

    fn is_kept(self, recompute: Recompute) -> bool {
        match recompute {
            Recompute::Off => true,
            Recompute::Selective => matches!(self, Self::Attend(_)),
            Recompute::All => false,
        }
    }
}

/// A half that was run, as far as its backward pass needs it.
struct Piece<'a> {
    half: Half<'a>,
    input: Input,
}

enum Input {
    /// The variable at its start and the end of its tape.
    Taped(Var, Tensor),
    /// To be run again.
    Plain(Tensor),
}

impl<'a> Piece<'a> {
    /// The piece and its output.
    fn run(half: Half<'a>, x: &Tensor, context: &LayerContext<'_>, keep: bool) -> Result<(Self, Tensor)> {
        if !keep {
            let y = half.forward(x, context)?.detach();
            return Ok((Self { half, input: Input::Plain(x.clone()) }, y));
        }
        let start = Var::from_tensor(x)?;
        let end = half.forward(start.as_tensor(), context)?;
        let y = end.detach();
        Ok((Self { half, input: Input::Taped(start, end) }, y))
    }

    /// The gradient of its input from that of its output.
    fn backward(self, gradient: Tensor, context: &LayerContext<'_>, sink: &mut Sink<'_>) -> Result<Option<Tensor>> {
        let (start, end) = match self.input {
            Input::Taped(start, end) => (start, end),
            Input::Plain(x) => {
                let start = Var::from_tensor(&x)?;
                let end = self.half.forward(start.as_tensor(), context)?;
                (start, end)
            }
        };
        pull(&end, gradient, Some(&start), sink)
    }
}

/// Runs one tape backwards from `gradient` at its `end`; gives what arrives at `start` and sinks the rest.
fn pull(end: &Tensor, gradient: Tensor, start: Option<&Var>, sink: &mut Sink<'_>) -> Result<Option<Tensor>> {
    let mut found: GradStore = end.apply_op1(Pull { gradient })?.backward()?;
    let arrived = start.and_then(|start| found.remove(start.as_tensor()));
    let ids: Vec<TensorId> = found.get_ids().copied().collect();
    ids.into_iter().try_for_each(|id| found.get_id(id).map_or(Ok(()), |gradient| sink(id, gradient)))?;
    Ok(arrived)
}

/// The end of a tape: whatever comes in there goes on as this gradient.
struct Pull {
    gradient: Tensor,
}

impl CustomOp1 for Pull {
    fn name(&self) -> &'static str {
        "pull"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), ().into()))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        // Any one value: it means nothing, only the tape behind it counts.
        let first = (0..layout.dims().len()).try_fold(layout.clone(), |layout, dim| layout.narrow(dim, 0, 1))?;
        Ok((x.affine(&first, 0.0, 0.0)?, ().into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.gradient.clone()))
    }
}
