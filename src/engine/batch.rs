//! Scheduled sequences → the pieces of one forward pass. Knows neither the decoder nor how tokens are chosen.

use super::sequence::Sequence;
use crate::model::{AdapterBatch, AdapterWeights, LogitRow, PagedSequence};
use std::ops::Range;
use std::sync::Arc;

/// One step's rows: the new tokens of its sequences, laid end to end.
pub struct Batch<'a> {
    /// Token ids, length T.
    pub tokens: Vec<u32>,
    /// Position of each token in its own sequence, length T.
    pub positions: Vec<u32>,
    /// How the rows are divided, and where each sequence's keys and values live.
    pub sequences: Vec<PagedSequence<'a>>,
    /// Which rows use which adapter.
    pub adapters: AdapterBatch,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<LogitRow<'a>>,
}

/// A range of rows and the adapter they use.
type Span = (Range<usize>, Arc<AdapterWeights>);

impl<'a> Batch<'a> {
    /// The rows of the sequences scheduled among `running`, and for each of `logit_rows` the index of its sequence.
    pub(super) fn build(running: &'a [Sequence]) -> (Self, Vec<usize>) {
        let (tokens, positions, sequences) = (Vec::new(), Vec::new(), Vec::new());
        let mut batch = Self { tokens, positions, sequences, adapters: AdapterBatch::none(), logit_rows: Vec::new() };
        let (mut readers, mut spans) = (Vec::new(), Vec::new());
        for index in adapters_together(running) {
            let sequence = &running[index];
            let rows = batch.push(sequence);
            if sequence.wants_logits() {
                batch.logit_rows.push(LogitRow { row: rows.end as u32 - 1, wanted: sequence.allowed() });
                readers.push(index);
            }
            if let Some(lease) = sequence.lease() {
                extend_spans(&mut spans, rows, &lease.weights);
            }
        }
        spans.into_iter().for_each(|(rows, weights)| batch.adapters.push(rows, weights));
        (batch, readers)
    }

    /// Appends a sequence's scheduled tokens; returns their rows.
    fn push(&mut self, sequence: &'a Sequence) -> Range<usize> {
        let (start, cached, new) = (self.tokens.len(), sequence.computed(), sequence.scheduled);
        self.tokens.extend_from_slice(&sequence.tokens()[cached..cached + new]);
        self.positions.extend((cached..cached + new).map(|position| position as u32));
        self.sequences.push(PagedSequence { blocks: &sequence.blocks, cached, new });
        start..self.tokens.len()
    }
}

/// Indices of the scheduled sequences, those of one adapter generation side by side, the base first.
fn adapters_together(running: &[Sequence]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..running.len()).filter(|&index| running[index].scheduled > 0).collect();
    let generation = |index: usize| running[index].lease().map(|lease| (&lease.name, &lease.id));
    order.sort_by(|&a, &b| generation(a).cmp(&generation(b)));
    order
}

/// Adds rows to the last span if they continue it with the same weights.
fn extend_spans(spans: &mut Vec<Span>, rows: Range<usize>, weights: &Arc<AdapterWeights>) {
    match spans.last_mut() {
        Some((last, same)) if last.end == rows.start && Arc::ptr_eq(same, weights) => last.end = rows.end,
        _ => spans.push((rows, Arc::clone(weights))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn weights() -> Arc<AdapterWeights> {
        Arc::new(AdapterWeights::empty(1))
    }

    #[test]
    fn neighbouring_rows_of_one_generation_are_one_span() {
        let (a, b) = (weights(), weights());
        let mut spans = Vec::new();
        for (rows, weights) in [(2..3, &a), (3..7, &a), (7..8, &b), (9..10, &b)] {
            extend_spans(&mut spans, rows, weights);
        }
        let rows: Vec<_> = spans.iter().map(|(rows, _)| rows.clone()).collect();
        assert_eq!(rows, [2..7, 7..8, 9..10]);
        assert!(Arc::ptr_eq(&spans[0].1, &a) && Arc::ptr_eq(&spans[1].1, &b));
    }

    #[test]
    fn rows_of_one_adapter_lie_side_by_side_after_those_of_the_base() {
        let (a, b) = (testing::lease("a"), testing::lease("b"));
        let leases = [Some(&a), None, Some(&b), Some(&a), None];
        let running: Vec<_> = leases.map(|lease| testing::scheduled(&[1, 2, 3], 3, lease)).into();
        let order = adapters_together(&running);
        assert_eq!(order, [1, 4, 0, 3, 2]);
    }

    #[test]
    fn only_sequences_whose_last_token_is_computed_get_logits() {
        let running = [testing::scheduled(&[5, 6, 7], 2, None), testing::scheduled(&[8, 9], 2, None)];
        let (batch, readers) = Batch::build(&running);
        assert_eq!(batch.tokens, [5, 6, 8, 9]);
        assert_eq!(batch.positions, [0, 1, 0, 1]);
        assert_eq!((batch.logit_rows, readers), (vec![LogitRow { row: 3, wanted: None }], vec![1]));
        let parts: Vec<_> = batch.sequences.iter().map(|part| (part.cached, part.new)).collect();
        assert_eq!(parts, [(0, 2), (0, 2)]);
    }
}
