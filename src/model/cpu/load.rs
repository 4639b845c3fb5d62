//! Stored weights → packed ones, panel by panel on all threads, so that hardly more memory is used than stays.

use super::kv_store::{KvStore, KvType};
use super::linear::Linear;
use super::packed::{Format, Matrix, SUPERBLOCK};
use super::parts::Chunks;
use super::simd::{Isa, LANES};
use super::team::Team;
use super::{Block, Buffers, CpuDecoder};
use crate::model::decoder::{has_bias, module_shape};
use crate::model::lora::{Packing, Site, TargetModule};
use crate::model::stored::{Source, Stored};
use crate::model::weights::{Checkpoint, expect_shape};
use crate::model::{ModelConfig, ModelError};
use candle_core::DType;
use candle_core::quantized::GgmlDType;
use parking_lot::Mutex;
use std::sync::Arc;

/// Panels that a thread packs at a time: the pages of the file behind them are let go after that.
const PANELS: usize = 64;

/// What floating-point weights become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quantise {
    /// Nothing else.
    #[default]
    None,
    /// 8 bits, and a scale for every 32 (GGUF's `Q8_0`).
    Q8,
    /// 4 bits, and two scales for every 32 (`Q4_K`); the embedding and the head 8 bits.
    Q4,
}

/// How weights, keys and values are held in memory.
#[derive(Debug, Clone, Copy)]
pub struct Precision {
    /// Type of weights that are not quantised: f32, f16 or bf16.
    pub dtype: DType,
    pub quantise: Quantise,
    /// `None` = f32 beside weights that are all f32, else f16.
    pub kv: Option<KvType>,
}

impl Precision {
    /// Weights as f32.
    pub const FULL: Self = Self { dtype: DType::F32, quantise: Quantise::None, kv: None };

    fn floats(&self) -> Format {
        match self.dtype {
            DType::F16 => Format::F16,
            DType::BF16 => Format::BF16,
            _ => Format::F32,
        }
    }

    /// How a matrix is held. Blocks are kept as they are where there are kernels for them; other ones become 8 bits.
    fn format(&self, stored: &Stored<'_>, is_table: bool) -> Format {
        let whole_blocks = stored.width().is_multiple_of(SUPERBLOCK);
        match (stored.encoding, self.quantise) {
            (GgmlDType::Q4K, _) => Format::Q4,
            (encoding, _) if !is_float(encoding) => Format::Q8,
            (_, Quantise::None) => self.floats(),
            (_, Quantise::Q4) if whole_blocks && !is_table => Format::Q4,
            _ => Format::Q8,
        }
    }
}

fn is_float(encoding: GgmlDType) -> bool {
    matches!(encoding, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16)
}

/// Told how many more weights are packed.
pub(super) type Progress<'a> = &'a (dyn Fn(usize) + Sync);

struct Loader<'a> {
    config: &'a ModelConfig,
    source: &'a dyn Source,
    precision: Precision,
    team: Team,
    progress: Progress<'a>,
}

impl CpuDecoder {
    /// Packs a checkpoint for `threads` threads. There is no room for keys and values until [`Self::reset_store`].
    pub fn load(
        checkpoint: &Checkpoint<'_>,
        precision: Precision,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Self, ModelError> {
        let config = checkpoint.config().clone();
        let loader =
            Loader { config: &config, source: checkpoint.source(), precision, team: Team::new(threads), progress };
        let table = [config.vocab_size, config.hidden_size];
        let embedding = Arc::new(loader.matrix("model.embed_tokens.weight", table, true)?);
        let blocks: Vec<_> = (0..config.num_layers).map(|layer| loader.block(layer)).collect::<Result<_, _>>()?;
        let head = match config.tie_word_embeddings {
            true => Arc::clone(&embedding),
            false => Arc::new(loader.matrix("lm_head.weight", table, true)?),
        };
        let norm = loader.vector("model.norm.weight", config.hidden_size)?;
        let Loader { team, .. } = loader;
        let packing = packing_beside(&blocks);
        let kv_type = precision.kv.unwrap_or(if packing == Packing::Full { KvType::F32 } else { KvType::F16 });
        let store = KvStore::new(&config, 0, kv_type);
        let head = Linear { matrix: head, bias: None, site: None };
        let (isa, buffers) = (Isa::detect(), Buffers::default());
        Ok(Self { config, embedding, blocks, norm, head, isa, team, store, kv_type, packing, buffers })
    }
}

/// The most exact way to hold adapters that costs no more than the weights beside them.
fn packing_beside(blocks: &[Block]) -> Packing {
    let mut formats = blocks.iter().flat_map(Block::matrices).map(Matrix::format);
    match () {
        () if formats.clone().all(|format| format == Format::F32) => Packing::Full,
        () if formats.all(Format::is_quantised) => Packing::Compact,
        () => Packing::Halves,
    }
}

impl Loader<'_> {
    fn block(&self, layer: usize) -> Result<Block, ModelError> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let vector = |part: &str, len: usize| self.vector(&name(part), len);
        let linear = |module: TargetModule| {
            let (outputs, inputs) = module_shape(self.config, module);
            let matrix =
                Arc::new(self.matrix(&name(&format!("{}.weight", module.path())), [outputs, inputs], false)?);
            let biased = has_bias(self.config, module);
            let bias = biased.then(|| vector(&format!("{}.bias", module.path()), outputs)).transpose()?;
            Ok::<_, ModelError>(Linear { matrix, bias, site: Some(Site { layer, module }) })
        };
        let head_norm = |part: &str| vector(&format!("self_attn.{part}_norm.weight"), self.config.head_dim);
        let qk_norm = match self.config.family.qk_norm() {
            true => Some([head_norm("q")?, head_norm("k")?]),
            false => None,
        };
        Ok(Block {
            index: layer,
            input_norm: vector("input_layernorm.weight", self.config.hidden_size)?,
            q: linear(TargetModule::Q)?,
            k: linear(TargetModule::K)?,
            v: linear(TargetModule::V)?,
            o: linear(TargetModule::O)?,
            qk_norm,
            post_norm: vector("post_attention_layernorm.weight", self.config.hidden_size)?,
            gate: linear(TargetModule::Gate)?,
            up: linear(TargetModule::Up)?,
            down: linear(TargetModule::Down)?,
        })
    }

    fn stored(&self, name: &str, expected: &[usize]) -> Result<Stored<'_>, ModelError> {
        let stored = self.source.stored(name)?;
        expect_shape(name, &stored.shape, expected)?;
        Ok(stored)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        (self.progress)(len);
        self.stored(name, &[len])?.values()
    }

    fn matrix(&self, name: &str, [outputs, inputs]: [usize; 2], is_table: bool) -> Result<Matrix, ModelError> {
        let stored = self.stored(name, &[outputs, inputs])?;
        let mut matrix = Matrix::zeros(outputs, inputs, self.precision.format(&stored, is_table));
        let failure = Mutex::new(None);
        let mut panels = matrix.panels_mut();
        self.team.each(usize::MAX, Chunks::new(&mut panels, PANELS), |task, panels| {
            let first = task * PANELS * LANES;
            for (index, panel) in panels.iter_mut().enumerate() {
                let start = first + index * LANES;
                if let Err(error) = panel.fill(&stored, start..outputs.min(start + LANES)) {
                    failure.lock().get_or_insert(error);
                }
            }
            let rows = first..outputs.min(first + panels.len() * LANES);
            stored.release(rows.clone());
            (self.progress)(rows.len() * inputs);
        });
        drop(panels);
        match failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(matrix),
        }
    }
}
