//! Soft prompts: embeddings of an adapter's own that stand before all that a sequence says (Lester et al. 2021).
//!
//! Their tokens are virtual: ids from the size of the vocabulary on. Whatever places, counts or caches tokens takes them for
//! tokens like others; only the embedding knows better. Knows no files and no sequences.

use super::lora::AdapterBatch;
use super::weight::Weight;
use candle_core::{Result, Tensor, bail};
use std::ops::Range;

/// The ids of a soft prompt's `count` tokens beside a vocabulary of this size.
pub fn virtual_tokens(vocab_size: usize, count: usize) -> Range<u32> {
    vocab_size as u32..(vocab_size + count) as u32
}

/// A row of a pass whose token is virtual.
pub(super) struct VirtualRow<'a> {
    /// Its number in the pass.
    pub(super) row: usize,
    /// The soft prompt of its adapter, `[n, hidden]`.
    pub(super) prompt: &'a Tensor,
    /// Its embedding's place in that.
    pub(super) index: usize,
}

/// The rows of a pass whose tokens are not of the vocabulary.
///
/// # Errors
/// When the adapter of such a row has no embedding for it.
pub(super) fn virtual_rows<'a>(
    tokens: &[u32],
    vocab_size: usize,
    adapters: &'a AdapterBatch,
) -> Result<Vec<VirtualRow<'a>>> {
    let beyond = |(row, token): (usize, &u32)| Some((row, (*token as usize).checked_sub(vocab_size)?));
    let find = |(row, index)| match adapters.prompt_of(row) {
        Some(prompt) if index < prompt.dims()[0] => Ok(VirtualRow { row, prompt, index }),
        _ => bail!("row {row} has token {}, which the vocabulary and its adapter do not have", vocab_size + index),
    };
    tokens.iter().enumerate().filter_map(beyond).map(find).collect()
}

/// Embeddings of tokens, `[tokens, hidden]`: rows of the table, or for virtual ones of their adapters' soft prompts. A gradient
/// reaches either where it is a variable.
pub(super) fn embed(table: &Weight, tokens: &[u32], adapters: &AdapterBatch) -> Result<Tensor> {
    let vocab_size = table.dims()[0];
    let rows = virtual_rows(tokens, vocab_size, adapters)?;
    if rows.is_empty() {
        return table.select(tokens);
    }
    // In the place of virtual tokens any row of the table is looked up, and then not used.
    let known: Vec<u32> = tokens.iter().map(|&token| if (token as usize) < vocab_size { token } else { 0 }).collect();
    let mut parts = vec![table.select(&known)?];
    let mut places: Vec<u32> = (0..tokens.len() as u32).collect();
    let (mut last, mut start, mut end) = (None, 0, tokens.len());
    for VirtualRow { row, prompt, index } in rows {
        if last != Some(prompt.id()) {
            (last, start, end) = (Some(prompt.id()), end, end + prompt.dims()[0]);
            parts.push(prompt.to_dtype(table.dtype())?);
        }
        places[row] = (start + index) as u32;
    }
    Tensor::cat(&parts, 0)?.index_select(&Tensor::new(places, &table.device())?, 0)
}
