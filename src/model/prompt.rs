//! Soft prompts: embeddings of an adapter's own that stand before all that a sequence says (Lester et al. 2021).
//!
//! Their tokens are virtual: ids from the size of the vocabulary on. Whatever places, counts or caches tokens takes them for
//! tokens like others; only the embedding knows better. Knows no files and no sequences.

use super::lora::AdapterBatch;
use super::weight::{Elsewhere, Weight};
use candle_core::{Result, Tensor, bail};
use std::ops::Range;

/// The ids of a soft prompt's `count` tokens beside a vocabulary of this size.
pub fn virtual_tokens(vocab_size: usize, count: usize) -> Range<u32> {
    vocab_size as u32..(vocab_size + count) as u32
}

/// The rows of a pass whose tokens are not of the vocabulary.
///
/// # Errors
/// When the adapter of such a row has no embedding for it.
pub(super) fn virtual_rows<'a>(
    tokens: &[u32],
    vocab_size: usize,
    adapters: &'a AdapterBatch,
) -> Result<Vec<Elsewhere<'a>>> {
    let beyond = |(place, token): (usize, &u32)| Some((place, (*token as usize).checked_sub(vocab_size)?));
    let find = |(place, index)| match adapters.prompt_of(place) {
        Some(table) if index < table.dims()[0] => Ok(Elsewhere { place, table, index }),
        _ => bail!("row {place} has token {}, which the vocabulary and its adapter do not have", vocab_size + index),
    };
    tokens.iter().enumerate().filter_map(beyond).map(find).collect()
}

/// Embeddings of tokens, `[tokens, hidden]`: rows of the table, or for virtual ones of their adapters' soft prompts. A gradient
/// reaches either where it is a variable.
pub(super) fn embed(table: &Weight, tokens: &[u32], adapters: &AdapterBatch) -> Result<Tensor> {
    match virtual_rows(tokens, table.dims()[0], adapters)?.as_slice() {
        [] => table.select(tokens),
        rows => table.select_beside(tokens, rows),
    }
}
