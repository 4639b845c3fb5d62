//! Training samples: token ids with the loss weight of each, from any source, by index.
//!
//! A sample depends on its index and on the progress of its phase alone, so a resumed run needs only a counter. Knows
//! no batches ([`crate::collate`]) and no tensors.

pub mod cache;
pub mod conversations;
pub mod copy;
pub mod encode;
pub mod feeder;
pub mod recall;
pub mod source;
mod stored;

use std::ops::Range;

/// What a token stands for, for measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// First token of a function's name: where the choice is made.
    Name,
    /// Part of an argument's value, or a copy.
    Value,
    /// As [`Tag::Name`], in the warm-up task over random words.
    Found,
    /// Anything else.
    Other,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub tokens: Vec<u32>,
    /// Weight of the loss of predicting each token from those before it; 0 = not trained.
    pub weights: Vec<f32>,
    pub tags: Vec<Tag>,
    /// Token ranges that the assistant writes, end token included, in order.
    pub answers: Vec<Range<usize>>,
}

impl Example {
    /// `tokens` without any loss yet.
    pub fn new(tokens: Vec<u32>) -> Self {
        let count = tokens.len();
        Self { tokens, weights: vec![0.0; count], tags: vec![Tag::Other; count], answers: Vec::new() }
    }

    /// The same after tokens that are not trained.
    pub fn after(self, tokens: Range<u32>) -> Self {
        let count = tokens.len();
        Self {
            tokens: tokens.chain(self.tokens).collect(),
            weights: [vec![0.0; count], self.weights].concat(),
            tags: [vec![Tag::Other; count], self.tags].concat(),
            answers: self.answers.into_iter().map(|answer| answer.start + count..answer.end + count).collect(),
        }
    }

    /// Trains `range` with weight 1 and counts it as an answer.
    pub fn answer(&mut self, range: Range<usize>) {
        self.weights[range.clone()].fill(1.0);
        self.answers.push(range);
    }
}
