//! Samples → micro-batches: laid end to end without padding, with the rows that are trained.

use crate::dataset::{Example, Tag};
use crate::ranks::Place;

/// One trained prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// Row whose hidden state predicts.
    pub row: u32,
    /// The token to predict.
    pub target: u32,
    pub weight: f32,
    pub tag: Tag,
    /// Number of the answer (counted through the micro-batch) that the token belongs to.
    pub answer: Option<u32>,
}

/// What one forward pass sees.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MicroBatch {
    pub tokens: Vec<u32>,
    /// Restart at 0 with every sample.
    pub positions: Vec<u32>,
    /// Tokens of each sample.
    pub lengths: Vec<usize>,
    pub labels: Vec<Label>,
    /// Number of answers in all samples.
    pub answers: u32,
}

impl MicroBatch {
    /// Appends a sample.
    pub fn push(&mut self, example: &Example) {
        let start = self.tokens.len();
        let labels = (1..example.tokens.len()).filter(|&at| example.weights[at] > 0.0).map(|at| Label {
            row: (start + at - 1) as u32,
            target: example.tokens[at],
            weight: example.weights[at],
            tag: example.tags[at],
            answer: example.answers.iter().position(|answer| answer.contains(&at)).map(|n| self.answers + n as u32),
        });
        self.labels.extend(labels);
        self.tokens.extend_from_slice(&example.tokens);
        self.positions.extend(0..example.tokens.len() as u32);
        self.lengths.push(example.tokens.len());
        self.answers += example.answers.len() as u32;
    }
}

/// Packs whole samples, in order, into micro-batches of at most `limit` tokens (a longer sample gets its own).
pub fn pack(examples: impl IntoIterator<Item = Example>, limit: usize) -> Vec<MicroBatch> {
    let mut micros: Vec<MicroBatch> = Vec::new();
    for example in examples {
        match micros.last_mut() {
            Some(last) if last.tokens.len() + example.tokens.len() <= limit => last.push(&example),
            _ => {
                let mut micro = MicroBatch::default();
                micro.push(&example);
                micros.push(micro);
            }
        }
    }
    micros
}

/// The micro-batches that one rank works on, in order, each with its number among all.
pub fn share(micros: &[MicroBatch], place: Place) -> Vec<(usize, &MicroBatch)> {
    let sizes: Vec<usize> = micros.iter().map(|micro| micro.tokens.len()).collect();
    place.share(&sizes).into_iter().map(|index| (index, &micros[index])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(tokens: &[u32], answer: std::ops::Range<usize>) -> Example {
        let mut example = Example::new(tokens.to_vec());
        example.answer(answer);
        example
    }

    #[test]
    fn samples_lie_end_to_end_and_positions_restart() {
        let micros = pack([example(&[5, 6, 7], 1..3), example(&[8, 9], 1..2)], 10);
        let [micro] = micros.as_slice() else { panic!("one micro-batch expected") };
        assert_eq!(micro.tokens, [5, 6, 7, 8, 9]);
        assert_eq!(micro.positions, [0, 1, 2, 0, 1]);
        assert_eq!(micro.lengths, [3, 2]);
        let rows: Vec<_> = micro.labels.iter().map(|label| (label.row, label.target, label.answer)).collect();
        assert_eq!(rows, [(0, 6, Some(0)), (1, 7, Some(0)), (3, 9, Some(1))]);
    }

    #[test]
    fn the_first_token_of_a_sample_is_never_a_label() {
        let mut whole = Example::new(vec![1, 2]);
        whole.weights = vec![1.0, 0.5];
        let micro = &pack([whole], 10)[0];
        assert_eq!(micro.labels, [Label { row: 0, target: 2, weight: 0.5, tag: Tag::Other, answer: None }]);
    }

    #[test]
    fn a_sample_that_does_not_fit_opens_the_next_micro_batch() {
        let samples = [3, 3, 2, 4].map(|length| example(&vec![1; length], 1..length));
        let lengths: Vec<_> = pack(samples, 6).into_iter().map(|micro| micro.lengths).collect();
        assert_eq!(lengths, [vec![3, 3], vec![2, 4]]);
    }
}
