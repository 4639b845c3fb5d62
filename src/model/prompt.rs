//! Soft prompts: embeddings of an adapter's own that stand before all that a sequence says (Lester et al. 2021).
//!
//! Their tokens are virtual: ids from the size of the vocabulary on. Whatever places, counts or caches tokens takes them for
//! tokens like others; only the embedding knows better. Knows no files and no sequences.

use super::backward::Sink;
use super::lora::AdapterBatch;
use super::ops;
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

/// Embeddings of tokens, `[tokens, hidden]`: rows of the table, or for virtual ones of their adapters' soft prompts. Leaves no
/// tape; see [`embed_backward`].
pub(super) fn embed(table: &Weight, tokens: &[u32], adapters: &AdapterBatch) -> Result<Tensor> {
    let embedded = match virtual_rows(tokens, table.dims()[0], adapters)?.as_slice() {
        [] => table.select(tokens)?,
        rows => table.select_beside(tokens, rows)?,
    };
    Ok(embedded.detach())
}

/// Sinks the gradients of the tables among those of [`embed`] that are variables, from that of the embeddings. All tokens that
/// read a row add to it, many in a long batch.
pub(super) fn embed_backward(
    table: &Weight,
    tokens: &[u32],
    adapters: &AdapterBatch,
    grad: &Tensor,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut read = table.trained_among(tokens);
    read.extend(virtual_rows(tokens, table.dims()[0], adapters)?.into_iter().filter(|row| row.table.track_op()));
    let device = grad.device();
    for rows in read.chunk_by(|one, next| one.table.id() == next.table.id()) {
        let (places, indices): (Vec<_>, Vec<_>) = rows.iter().map(|row| (row.place as u32, row.index as u32)).unzip();
        let found = grad.index_select(&Tensor::new(places, device)?, 0)?.to_dtype(ops::wide(grad.dtype()))?;
        let sums = Tensor::zeros(rows[0].table.shape(), found.dtype(), device)?;
        sink(rows[0].table.id(), &sums.index_add(&Tensor::new(indices, device)?, &found, 0)?)?;
    }
    Ok(())
}
