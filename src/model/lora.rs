//! LoRA arithmetic: where an adapter may attach, its matrices, and which rows of a batch use it.
//!
//! Knows no files (see `adapter::peft`) and no lifecycle (see `adapter::registry`).

use super::backward::Sink;
use super::cpu::PackedAdapter;
use super::ops::{self, Dropout, Factors};
use super::weight::Weight;
use super::{Checkpoint, ModelError};
use candle_core::{DType, Result, Tensor, bail};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The linear layers that an adapter may target, in the order used for indexing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetModule {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl TargetModule {
    /// All modules of one block.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The name in PEFT's `target_modules`, for example `q_proj`.
    pub fn peft_name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The path inside a block, for example `self_attn.q_proj`.
    pub fn path(self) -> String {
        let parent = match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("{parent}.{}", self.peft_name())
    }
}

/// One linear layer of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    pub layer: usize,
    pub module: TargetModule,
}

impl Site {
    /// Dense index of the site among `layers * 7`.
    pub fn index(self) -> usize {
        self.layer * TargetModule::ALL.len() + self.module as usize
    }
}

/// The two factors of one adapted layer: `delta = scale * (x Aᵀ) Bᵀ` (Hu et al. 2021).
#[derive(Debug, Clone)]
pub struct LoraPair {
    /// `[rank, in]`
    pub a: Tensor,
    /// `[out, rank]`
    pub b: Tensor,
    /// `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scale: f64,
    /// DoRA: how long each row of the adapted matrix is to be (Liu et al. 2024).
    pub magnitude: Option<Magnitude>,
}

/// The lengths of an adapted matrix's rows, `[out]`.
#[derive(Debug, Clone)]
pub enum Magnitude {
    /// As trained. What the rows measure is computed in each pass, since training changes it.
    Wanted(Tensor),
    /// Wanted over measured length, for serving.
    Ratio(Tensor),
}

impl Magnitude {
    /// Its values.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Self::Wanted(tensor) | Self::Ratio(tensor) => tensor,
        }
    }

    fn detached(&self) -> Self {
        match self {
            Self::Wanted(tensor) => Self::Wanted(tensor.detach()),
            Self::Ratio(tensor) => Self::Ratio(tensor.detach()),
        }
    }
}

/// How serving on the CPU holds the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// f32: exactly what was trained.
    Full,
    /// f16.
    Halves,
    /// A in 8 bits with a scale for each 32 inputs, B in f16: less than half the memory to read for each token. Beside
    /// quantised weights, whose inputs it shares.
    Compact,
}

impl Packing {
    /// The largest value that it can hold.
    pub fn largest(self) -> f32 {
        match self {
            Self::Full => f32::MAX,
            Self::Halves | Self::Compact => half::f16::MAX.to_f32(),
        }
    }

    /// Memory that factors A and B of these shapes take.
    pub fn bytes(self, a: &[usize], b: &[usize]) -> usize {
        PackedAdapter::pair_bytes(a, b, self)
    }
}

/// All tensors of one adapter: factors, indexed by [`Site::index`], or a soft prompt.
#[derive(Debug, Clone)]
pub struct AdapterWeights {
    pairs: Vec<Option<LoraPair>>,
    /// `[n, hidden]`, see [`super::prompt`].
    prompt: Option<Tensor>,
    /// The factors for serving on the CPU; made when it is loaded or first used.
    packed: OnceLock<Arc<PackedAdapter>>,
}

impl AdapterWeights {
    /// An adapter without any factors for a decoder of `layers` blocks.
    pub fn empty(layers: usize) -> Self {
        Self { pairs: vec![None; layers * TargetModule::ALL.len()], prompt: None, packed: OnceLock::new() }
    }

    /// The same with a soft prompt `[n, hidden]`.
    pub fn with_prompt(self, prompt: Tensor) -> Self {
        Self { prompt: Some(prompt), ..self }
    }

    /// The soft prompt, if it is one.
    pub fn prompt(&self) -> Option<&Tensor> {
        self.prompt.as_ref()
    }

    /// Tokens that stand before those of every sequence.
    pub fn virtual_tokens(&self) -> usize {
        self.prompt.as_ref().map_or(0, |prompt| prompt.dims()[0])
    }

    /// Sets the factors of one site.
    pub fn insert(&mut self, site: Site, pair: LoraPair) {
        self.packed.take();
        self.pairs[site.index()] = Some(pair);
    }

    /// The factors of one site, if it is adapted.
    pub fn get(&self, site: Site) -> Option<&LoraPair> {
        self.pairs.get(site.index()).and_then(Option::as_ref)
    }

    /// The same adapter with what DoRA's magnitudes come to beside this base, so that no pass has to measure rows.
    pub fn beside(self, base: &Checkpoint<'_>) -> std::result::Result<Self, ModelError> {
        self.at_ratios(|site| base.matrix(site))
    }

    /// The same over the matrices of the sites, wherever they are.
    pub(super) fn at_ratios(
        mut self,
        matrix: impl Fn(Site) -> std::result::Result<Weight, ModelError>,
    ) -> std::result::Result<Self, ModelError> {
        let sites: Vec<Site> = self.iter().map(|(site, _)| site).collect();
        for site in sites {
            let Some(pair) = &mut self.pairs[site.index()] else { continue };
            if let Some(Magnitude::Wanted(wanted)) = &pair.magnitude {
                let measured = pair.lengths(&matrix(site)?)?;
                let ratio = (wanted.to_dtype(measured.dtype())?.to_device(measured.device())? / measured)?;
                let ratio = ratio.to_dtype(pair.a.dtype())?.to_device(pair.a.device())?;
                pair.magnitude = Some(Magnitude::Ratio(ratio));
            }
        }
        Ok(self)
    }

    /// The same adapter for serving on the CPU alone: its factors' tensors are let go, and no request waits while it is packed.
    pub fn into_packed(self, packing: Packing) -> Result<Self> {
        let packed = OnceLock::from(Arc::new(PackedAdapter::new(&self, packing)?));
        Ok(Self { pairs: vec![None; self.pairs.len()], prompt: self.prompt, packed })
    }

    /// The same values in another type. What goes through them leaves no tape.
    pub(super) fn detached(&self, dtype: DType) -> Result<Self> {
        let detached = |pair: &LoraPair| {
            let [a, b] = [&pair.a, &pair.b].map(|factor| factor.detach().to_dtype(dtype));
            let magnitude = pair.magnitude.as_ref().map(Magnitude::detached);
            Ok(LoraPair { a: a?, b: b?, scale: pair.scale, magnitude })
        };
        let pairs = self.pairs.iter().map(|pair| pair.as_ref().map(detached).transpose());
        let prompt = self.prompt.as_ref().map(|prompt| prompt.detach().to_dtype(dtype)).transpose()?;
        Ok(Self { pairs: pairs.collect::<Result<_>>()?, prompt, packed: OnceLock::new() })
    }

    /// What serving on the CPU reads; made at the first call from the tensors as they are.
    pub(super) fn packed(&self) -> Result<&PackedAdapter> {
        if self.packed.get().is_none() {
            // Whoever was first wins; both are the same.
            let _ = self.packed.set(Arc::new(PackedAdapter::new(self, Packing::Full)?));
        }
        self.packed.get().map(|packed| &**packed).ok_or_else(|| candle_core::Error::Msg("not packed".to_owned()))
    }

    /// The factors of every site, in index order.
    pub(super) fn slots(&self) -> impl Iterator<Item = Option<&LoraPair>> {
        self.pairs.iter().map(Option::as_ref)
    }

    /// All adapted sites in index order.
    pub fn iter(&self) -> impl Iterator<Item = (Site, &LoraPair)> {
        self.pairs.iter().enumerate().filter_map(|(index, pair)| {
            let count = TargetModule::ALL.len();
            let site = Site { layer: index / count, module: TargetModule::ALL[index % count] };
            pair.as_ref().map(|pair| (site, pair))
        })
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let tensor = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let magnitude = |pair: &LoraPair| pair.magnitude.as_ref().map_or(0, |magnitude| tensor(magnitude.tensor()));
        let tensors: usize = self.iter().map(|(_, pair)| tensor(&pair.a) + tensor(&pair.b) + magnitude(pair)).sum();
        tensors + self.prompt.as_ref().map_or(0, tensor) + self.packed.get().map_or(0, |packed| packed.bytes())
    }
}

/// Which rows of a pass use which adapter. Rows in no range use the base model alone.
#[derive(Default, Clone)]
pub struct AdapterBatch {
    groups: Vec<(Range<usize>, Arc<AdapterWeights>)>,
    dropout: Option<Dropout>,
}

impl AdapterBatch {
    /// Base model only.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every one of `rows` rows uses the same adapter.
    pub fn uniform(rows: usize, weights: Arc<AdapterWeights>) -> Self {
        let mut batch = Self::none();
        batch.push(0..rows, weights);
        batch
    }

    /// Adds a range of rows that use an adapter. Ranges must not overlap.
    pub fn push(&mut self, rows: Range<usize>, weights: Arc<AdapterWeights>) {
        self.groups.push((rows, weights));
    }

    /// The ranges of rows and their adapters.
    pub(super) fn groups(&self) -> &[(Range<usize>, Arc<AdapterWeights>)] {
        &self.groups
    }

    /// The soft prompt that a row may look its token up in.
    pub(super) fn prompt_of(&self, row: usize) -> Option<&Tensor> {
        self.groups.iter().find(|(rows, _)| rows.contains(&row)).and_then(|(_, weights)| weights.prompt())
    }

    /// Drops a share of what goes through the factors, as training does.
    pub fn with_dropout(self, dropout: Option<Dropout>) -> Self {
        Self { dropout, ..self }
    }

    /// `x Wᵀ` plus each group's delta for this site; `x: [rows, in]`.
    pub(super) fn project(&self, site: Site, x: &Tensor, weight: &Weight) -> Result<Tensor> {
        let mut y = ops::linear(x, weight)?;
        for (rows, weights) in &self.groups {
            if let Some(pair) = weights.get(site) {
                let adapted = pair.beside(&narrow(x, rows)?, &narrow(&y, rows)?, weight)?;
                y = replace_rows(&y, rows, adapted)?;
            }
        }
        Ok(y)
    }

    /// What is trained at this site, beside all `rows` rows of the pass.
    pub(super) fn trained(&self, site: Site, rows: usize) -> Result<Option<Trained<'_>>> {
        let weights = match self.groups.as_slice() {
            [] => return Ok(None),
            [(range, weights)] if range.len() == rows => weights,
            _ => bail!("one adapter over all rows can be trained, not several or over some"),
        };
        let dropout = self.dropout.map(|dropout| dropout.at(site.index()));
        Ok(weights.get(site).map(|pair| Trained { pair, dropout }))
    }
}

/// The factors of one site while they are trained.
pub(super) struct Trained<'a> {
    pair: &'a LoraPair,
    dropout: Option<Dropout>,
}

impl Trained<'_> {
    /// The whole layer, by the fastest products.
    pub(super) fn forward(&self, x: &Tensor, weight: &Weight) -> Result<Tensor> {
        self.pair.at_magnitude(ops::adapted(x, weight, &self.factors())?, weight)
    }

    /// The gradient of `x` from that of the output; those of the factors go to `sink`.
    pub(super) fn backward(&self, x: &Tensor, weight: &Weight, grad: &Tensor, sink: &mut Sink<'_>) -> Result<Tensor> {
        let LoraPair { a, b, magnitude, .. } = self.pair;
        let grad = match magnitude {
            None => grad.clone(),
            Some(magnitude) => self.stretched(x, weight, (magnitude, grad), sink)?,
        };
        let found = ops::adapted_backward(x, weight, &self.factors(), &grad)?;
        sink(a.id(), &found.a)?;
        sink(b.id(), &found.b)?;
        Ok(found.x)
    }

    /// DoRA: with `y = z · m / |row|`, sinks `dm = Σ dy · z / |row|` and gives `dz = dy · m / |row|`.
    fn stretched(
        &self,
        x: &Tensor,
        weight: &Weight,
        (magnitude, grad): (&Magnitude, &Tensor),
        sink: &mut Sink<'_>,
    ) -> Result<Tensor> {
        let Magnitude::Wanted(wanted) = magnitude else { return self.pair.at_magnitude(grad.clone(), weight) };
        let z = ops::adapted(x, weight, &self.factors())?;
        let (sums, lengths) = ((grad * z)?.to_dtype(ops::wide(grad.dtype()))?.sum(0)?, self.pair.lengths(weight)?);
        sink(wanted.id(), &(sums / &lengths)?)?;
        grad.broadcast_mul(&(wanted.detach() / lengths)?.to_dtype(grad.dtype())?)
    }

    fn factors(&self) -> Factors<'_> {
        self.pair.factors(self.dropout)
    }
}

impl LoraPair {
    fn factors(&self, dropout: Option<Dropout>) -> Factors<'_> {
        Factors { a: &self.a, b: &self.b, scale: self.scale, dropout }
    }

    /// `y + scale * (x Aᵀ) Bᵀ` of `x: [n, in]`, where `y: [n, out]` is the base's product.
    fn beside(&self, x: &Tensor, y: &Tensor, weight: &Weight) -> Result<Tensor> {
        let delta = (ops::project(&ops::project(x, &self.a)?, &self.b)? * self.scale)?;
        self.at_magnitude((y + delta)?, weight)
    }

    /// DoRA: each output as if the adapted matrix's row had the trained length. The length that it has is a constant of
    /// the step, as the paper has it (section 4.3).
    fn at_magnitude(&self, y: Tensor, weight: &Weight) -> Result<Tensor> {
        match &self.magnitude {
            None => Ok(y),
            Some(Magnitude::Ratio(ratio)) => y.broadcast_mul(ratio),
            Some(Magnitude::Wanted(wanted)) => {
                let ratio = (wanted.detach() / self.lengths(weight)?)?;
                y.broadcast_mul(&ratio.to_dtype(y.dtype())?)
            }
        }
    }

    /// Length of each row of the adapted matrix.
    fn lengths(&self, weight: &Weight) -> Result<Tensor> {
        ops::adapted_norms(weight, &self.factors(None))
    }
}

fn narrow(x: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    if rows.len() == x.dim(0)? { Ok(x.clone()) } else { x.narrow(0, rows.start, rows.len())?.contiguous() }
}

/// `y` with other values in some rows, leaving every other row exactly as it is.
fn replace_rows(y: &Tensor, rows: &Range<usize>, values: Tensor) -> Result<Tensor> {
    let total = y.dim(0)?;
    if rows.len() == total {
        return Ok(values);
    }
    let part = |range: Range<usize>| (!range.is_empty()).then(|| y.narrow(0, range.start, range.len())).transpose();
    let parts = [part(0..rows.start)?, Some(values), part(rows.end..total)?];
    Tensor::cat(&parts.into_iter().flatten().collect::<Vec<_>>(), 0)
}
