//! GGUF files as model weights: the file's names and row orders ↔ those of Hugging Face checkpoints.
//!
//! Knows no tokenizers (see `chat::tokenizer`) and not how a file is laid out (see [`crate::gguf`]).

mod metadata;
mod write;

pub use write::{Contents, Encoding, write};

use super::stored::{Source, Stored};
use super::weights::expect_shape;
use super::{Family, ModelConfig, ModelError, decoder};
use crate::gguf::{GgufError, Header, TensorInfo, map};
use memmap2::Mmap;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Divisors of Llama 3's rotary frequencies, computed in advance.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The tensors of a memory-mapped file under their Hugging Face names.
struct Mapped {
    file: Mmap,
    tensors: HashMap<String, Placed>,
}

struct Placed {
    info: TensorInfo,
    /// Heads whose rows are interleaved, if they are.
    interleaved: Option<usize>,
}

/// Opens a file: the model's shape, and its tensors as they are stored.
///
/// # Errors
/// When the file is damaged, of an architecture or encoding that is not supported, or its tensors are not exactly those of
/// its architecture.
pub(super) fn open(path: &Path) -> Result<(ModelConfig, impl Source + use<>), ModelError> {
    let file = map(path).map_err(|error| located(path, &error))?;
    let (config, tensors) = {
        let header = Header::parse(&file).map_err(|error| located(path, &error))?;
        let config = read_config(path, &file, &header)?;
        let tensors = place(&config, header.tensors()).map_err(|error| located(path, &error))?;
        (config, tensors)
    };
    Ok((config, Mapped { file, tensors }))
}

/// Reads the model's shape alone.
///
/// # Errors
/// As [`open`], but the tensors are not looked at.
pub(super) fn config(path: &Path) -> Result<ModelConfig, ModelError> {
    let file = map(path).map_err(|error| located(path, &error))?;
    let header = Header::parse(&file).map_err(|error| located(path, &error))?;
    read_config(path, &file, &header)
}

fn read_config(path: &Path, file: &[u8], header: &Header<'_>) -> Result<ModelConfig, ModelError> {
    let factors = header.tensors().get(ROPE_FACTORS).map(|info| stored(file, info).decode(0..1)).transpose()?;
    metadata::config(header, factors.as_deref()).map_err(|error| located(path, &error))
}

fn located(path: &Path, error: &dyn std::error::Error) -> ModelError {
    ModelError::File { path: path.display().to_string(), message: error.to_string() }
}

/// The name in the file of a tensor with this Hugging Face name.
fn file_name(name: &str) -> String {
    let Some((layer, rest)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        let known = [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
        return renamed(name, &known);
    };
    let known = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    format!("blk.{layer}.{}", renamed(rest, &known))
}

/// Replaces what stands before `.weight` or `.bias`.
fn renamed(name: &str, known: &[(&str, &str)]) -> String {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let found = known.iter().find(|(from, _)| *from == stem);
    found.map_or_else(|| name.to_owned(), |(_, to)| format!("{to}.{kind}"))
}

/// Heads of a tensor whose rows the file has in another order: its rotary pairs are neighbours, not halves of a head.
fn interleaved_heads(config: &ModelConfig, name: &str) -> Option<usize> {
    let interleaves = matches!(config.family, Family::Llama | Family::Mistral);
    match () {
        () if interleaves && name.ends_with("self_attn.q_proj.weight") => Some(config.num_heads),
        () if interleaves && name.ends_with("self_attn.k_proj.weight") => Some(config.num_kv_heads),
        () => None,
    }
}

/// Finds every tensor of the architecture; what is left over would change the result, so it is refused.
fn place(config: &ModelConfig, found: &HashMap<&str, TensorInfo>) -> Result<HashMap<String, Placed>, ModelError> {
    // Before the names of that many layers are made.
    if config.num_layers > found.len() {
        return Err(ModelError::Config(format!("{} layers, but only {} tensors", config.num_layers, found.len())));
    }
    let mut left: HashMap<&str, &TensorInfo> = found.iter().map(|(name, info)| (*name, info)).collect();
    left.remove(ROPE_FACTORS);
    let mut placed = HashMap::new();
    for (name, shape) in decoder::parameter_shapes(config) {
        let in_file = file_name(&name);
        let info = left.remove(in_file.as_str()).ok_or_else(|| ModelError::MissingTensor(in_file.clone()))?;
        expect_shape(&in_file, &info.shape, &shape)?;
        let interleaved = interleaved_heads(config, &name);
        placed.insert(name, Placed { info: info.clone(), interleaved });
    }
    match left.keys().min() {
        None => Ok(placed),
        Some(name) => Err(ModelError::Config(format!(
            "tensor `{name}` is not one that a {} is made of here",
            config.family.architecture()
        ))),
    }
}

fn stored<'a>(file: &'a [u8], info: &TensorInfo) -> Stored<'a> {
    let bytes = Cow::Borrowed(&file[info.bytes.clone()]);
    Stored { encoding: info.encoding, shape: info.shape.clone(), bytes, mapped: true }
}

impl Source for Mapped {
    fn stored(&self, name: &str) -> Result<Stored<'_>, ModelError> {
        let placed = self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
        let mut stored = stored(&self.file, &placed.info);
        if let Some(heads) = placed.interleaved {
            stored.bytes = Cow::Owned(halved(&stored, heads));
        }
        Ok(stored)
    }
}

/// The rows with the rotary pairs of each head as its two halves: row `2 i + s` of a head becomes row `s half + i`.
fn halved(stored: &Stored<'_>, heads: usize) -> Vec<u8> {
    let head = stored.shape[0] / heads;
    let order = (0..stored.shape[0]).map(|row| {
        let (first, within) = (row / head * head, row % head);
        first + 2 * (within % (head / 2)) + within / (head / 2)
    });
    let mut rows = Vec::with_capacity(stored.bytes.len());
    order.for_each(|row| rows.extend_from_slice(stored.row_range(row..row + 1)));
    stored.release(0..stored.shape[0]);
    rows
}

impl From<GgufError> for ModelError {
    fn from(error: GgufError) -> Self {
        Self::Config(error.to_string())
    }
}
