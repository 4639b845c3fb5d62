//! The decoder: embed → blocks → final norm; hidden states and logits are separate.
//!
//! One forward serves training and inference: whether a tensor is trainable is a property of the tensor. The backward passes
//! are in [`super::backward`] and beside each layer.

use super::attention::{Attended, Attention, LayerContext, Lookback};
use super::linear::Linear;
use super::lora::{Site, TargetModule};
use super::mlp::{Gated, Mlp};
use super::ops::{self, PagedLayout, Rotary};
use super::prompt;
use super::weight::Weight;
use super::weights::{Tensors, expect_shape};
use super::{AdapterWeights, Attention as AttentionKind, ForwardPass, ModelConfig, ModelError};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

/// Name (as in Hugging Face checkpoints) and shape of every parameter, in a fixed order.
pub fn parameter_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, config.hidden_size])];
    for layer in 0..config.num_layers {
        shapes.extend(
            block_shapes(config).into_iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)),
        );
    }
    shapes.push(("model.norm.weight".to_owned(), vec![config.hidden_size]));
    if !config.tie_word_embeddings {
        shapes.push(("lm_head.weight".to_owned(), vec![config.vocab_size, config.hidden_size]));
    }
    shapes
}

/// Values of all parameters together.
pub fn parameter_count(config: &ModelConfig) -> usize {
    parameter_shapes(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// `[out, in]` of one of a block's linear layers.
pub fn module_shape(config: &ModelConfig, module: TargetModule) -> (usize, usize) {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    match module {
        TargetModule::Q => (config.query_width(), hidden),
        TargetModule::K | TargetModule::V => (config.kv_width(), hidden),
        TargetModule::O => (hidden, config.query_width()),
        TargetModule::Gate | TargetModule::Up => (inner, hidden),
        TargetModule::Down => (hidden, inner),
    }
}

fn block_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![("input_layernorm.weight".to_owned(), vec![config.hidden_size])];
    for module in TargetModule::ALL {
        let (out, input) = module_shape(config, module);
        shapes.push((format!("{}.weight", module.path()), vec![out, input]));
        if has_bias(config, module) {
            shapes.push((format!("{}.bias", module.path()), vec![out]));
        }
    }
    if config.family.qk_norm() {
        shapes.push(("self_attn.q_norm.weight".to_owned(), vec![config.head_dim]));
        shapes.push(("self_attn.k_norm.weight".to_owned(), vec![config.head_dim]));
    }
    shapes.push(("post_attention_layernorm.weight".to_owned(), vec![config.hidden_size]));
    shapes
}

pub(super) fn has_bias(config: &ModelConfig, module: TargetModule) -> bool {
    config.family.qkv_bias() && matches!(module, TargetModule::Q | TargetModule::K | TargetModule::V)
}

#[derive(Clone)]
pub(super) struct Block {
    pub(super) input_norm: Tensor,
    pub(super) attention: Attention,
    pub(super) post_norm: Tensor,
    pub(super) mlp: Mlp,
}

impl Block {
    fn load(config: &ModelConfig, layer: usize, tensors: &mut dyn Tensors) -> Result<Self, ModelError> {
        let mut shapes: HashMap<String, Vec<usize>> = block_shapes(config).into_iter().collect();
        let mut shape = |name: &str| shapes.remove(name).unwrap_or_default();
        let full = |name: &str| format!("model.layers.{layer}.{name}");
        let mut linear = |module: TargetModule| {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", module.path()));
            let bias = has_bias(config, module).then(|| take(tensors, &full(&bias), &shape(&bias))).transpose()?;
            let weight = take_matrix(tensors, &full(&weight), &shape(&weight))?;
            Ok::<_, ModelError>(Linear { site: Site { layer, module }, weight, bias })
        };
        let [q, k, v, o, gate, up, down] = TargetModule::ALL.map(&mut linear);
        let mut get = |name: &str| take(tensors, &full(name), &shape(name));
        let qk_norm = match config.family.qk_norm() {
            true => Some((get("self_attn.q_norm.weight")?, get("self_attn.k_norm.weight")?)),
            false => None,
        };
        Ok(Self {
            input_norm: get("input_layernorm.weight")?,
            attention: Attention { q: q?, k: k?, v: v?, o: o?, qk_norm },
            post_norm: get("post_attention_layernorm.weight")?,
            mlp: Mlp { gate: gate?, up: up?, down: down? },
        })
    }

    fn linear(&self, module: TargetModule) -> &Linear {
        match module {
            TargetModule::Q => &self.attention.q,
            TargetModule::K => &self.attention.k,
            TargetModule::V => &self.attention.v,
            TargetModule::O => &self.attention.o,
            TargetModule::Gate => &self.mlp.gate,
            TargetModule::Up => &self.mlp.up,
            TargetModule::Down => &self.mlp.down,
        }
    }

    /// Both halves: `y = x + attention(norm(x))`, then `y + mlp(norm(y))`.
    pub(super) fn forward(&self, x: &Tensor, context: &LayerContext<'_>) -> candle_core::Result<Tensor> {
        let (x, _) = self.attend(x, context)?;
        let (x, _) = self.feed(&x, context)?;
        Ok(x)
    }

    /// The first half, and what its backward pass reads.
    pub(super) fn attend(&self, x: &Tensor, context: &LayerContext<'_>) -> candle_core::Result<(Tensor, Attended)> {
        let attended = self.attention.attended(&self.attend_input(x, context)?, context)?;
        Ok(((x + self.attention.output(&attended, context)?)?, attended))
    }

    /// The second half, and what its backward pass reads.
    pub(super) fn feed(&self, x: &Tensor, context: &LayerContext<'_>) -> candle_core::Result<(Tensor, Gated)> {
        let gated = self.mlp.gated(&self.feed_input(x, context)?, context)?;
        Ok(((x + self.mlp.output(&gated, context)?)?, gated))
    }

    /// What the attention reads of the first half's input.
    pub(super) fn attend_input(&self, x: &Tensor, context: &LayerContext<'_>) -> candle_core::Result<Tensor> {
        ops::rms_norm(x, &self.input_norm, context.config.rms_norm_eps)
    }

    /// What the feed-forward part reads of the second half's input.
    pub(super) fn feed_input(&self, x: &Tensor, context: &LayerContext<'_>) -> candle_core::Result<Tensor> {
        ops::rms_norm(x, &self.post_norm, context.config.rms_norm_eps)
    }
}

/// Takes a matrix of a known shape.
fn take_matrix(tensors: &mut dyn Tensors, name: &str, shape: &[usize]) -> Result<Weight, ModelError> {
    let matrix = tensors.matrix(name)?;
    expect_shape(name, matrix.dims(), shape)?;
    Ok(matrix)
}

/// Takes a tensor of a known shape.
fn take(tensors: &mut dyn Tensors, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
    let tensor = tensors.take(name)?;
    expect_shape(name, tensor.dims(), shape)?;
    Ok(tensor)
}

/// A Llama-shaped causal decoder. A clone shares its weights, also what training makes of them later.
#[derive(Clone)]
pub struct Decoder {
    pub(super) config: ModelConfig,
    pub(super) embedding: Weight,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Tensor,
    /// `[vocab, hidden]`; the embedding itself when tied.
    pub(super) head: Weight,
}

impl Decoder {
    /// A decoder over tensors in memory, by their Hugging Face names. Tensors are used as they are (no copy), so a
    /// `Var` among them receives gradients.
    pub fn from_tensors(config: ModelConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, ModelError> {
        Self::load(config, &mut { tensors })
    }

    /// Takes every parameter from `tensors`; names what is missing or misshapen.
    pub(super) fn load(config: ModelConfig, tensors: &mut dyn Tensors) -> Result<Self, ModelError> {
        let table = [config.vocab_size, config.hidden_size];
        let embedding = take_matrix(tensors, "model.embed_tokens.weight", &table)?;
        let blocks =
            (0..config.num_layers).map(|layer| Block::load(&config, layer, tensors)).collect::<Result<_, _>>()?;
        let norm = take(tensors, "model.norm.weight", &[config.hidden_size])?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => take_matrix(tensors, "lm_head.weight", &table)?,
        };
        Ok(Self { config, embedding, blocks, norm, head })
    }

    /// The same decoder with rows `[n, hidden]` of their own for the tokens from `first` on, in the place of those that the tables
    /// have or behind them. They get gradients if they are variables. `head` is for a head apart from the embedding.
    ///
    /// # Errors
    /// When there would be a gap before them, or their width is another.
    pub fn with_token_rows(self, first: usize, embedding: Tensor, head: Option<Tensor>) -> Result<Self, ModelError> {
        let (own, tied) = (self.embedding.extended(first, embedding)?, self.config.tie_word_embeddings);
        let head = match head {
            Some(rows) if !tied => self.head.extended(first, rows)?,
            _ if tied => own.clone(),
            _ => self.head,
        };
        let config = ModelConfig { vocab_size: own.dims()[0], ..self.config };
        expect_shape("lm_head.weight", head.dims(), own.dims())?;
        Ok(Self { config, embedding: own, head, ..self })
    }

    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// The type of the weights and of the computation.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// Hidden states after the final norm, `[T, hidden]`. `pass.attention` decides caching.
    pub fn hidden_states(&self, pass: ForwardPass<'_>) -> Result<Tensor, ModelError> {
        self.hidden_states_observed(pass, &|| {})
    }

    /// As [`Self::hidden_states`]; calls `after_block` after each block, for whoever watches a long pass.
    pub fn hidden_states_observed(&self, pass: ForwardPass<'_>, after_block: &dyn Fn()) -> Result<Tensor, ModelError> {
        let mut x = prompt::embed(&self.embedding, pass.tokens, pass.adapters)?;
        let lookback = match pass.attention {
            AttentionKind::Causal(lengths) => Lookback::Segments(lengths),
            AttentionKind::Paged { cache, sequences } => {
                let mut layout = PagedLayout::new(self.config.sliding_window);
                sequences.iter().for_each(|s| layout.push(s.blocks, s.cached, s.new));
                Lookback::Cache { cache, layout }
            }
        };
        let rotary = Rotary::new(&self.config, pass.positions);
        let context = LayerContext { config: &self.config, rotary, lookback, adapters: pass.adapters, trains: false };
        for block in &self.blocks {
            x = block.forward(&x, &context)?;
            after_block();
        }
        Ok(ops::rms_norm(&x, &self.norm, self.config.rms_norm_eps)?)
    }

    /// Logits `[n, vocab]` (f32) of selected rows of the hidden states `[n, hidden]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(ops::linear(hidden, &self.head)?.to_dtype(DType::F32)?)
    }

    /// The head's rows of some tokens, `[tokens, hidden]`.
    pub fn head_rows(&self, tokens: &[u32]) -> Result<Tensor, ModelError> {
        Ok(self.head.select(tokens)?)
    }

    /// Embeddings of some tokens of the vocabulary, `[tokens, hidden]`.
    pub fn embeddings(&self, tokens: &[u32]) -> Result<Tensor, ModelError> {
        Ok(self.embedding.select(tokens)?)
    }

    /// Length of each row of a site's matrix, `[out]` in f32.
    pub fn row_norms(&self, site: Site) -> Result<Tensor, ModelError> {
        Ok(ops::row_norms(self.matrix(site)?)?)
    }

    /// An adapter that is trained beside this decoder as it would be served now: of the decoder's type, leaving no tape,
    /// with magnitudes as ratios.
    pub fn serving(&self, adapter: &AdapterWeights) -> Result<AdapterWeights, ModelError> {
        adapter.detached(self.dtype())?.at_ratios(|site| self.matrix(site).cloned())
    }

    fn matrix(&self, site: Site) -> Result<&Weight, ModelError> {
        let block = self.blocks.get(site.layer).ok_or_else(|| ModelError::MissingTensor(format!("{site:?}")))?;
        Ok(&block.linear(site.module).weight)
    }
}
