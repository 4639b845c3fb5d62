//! The loss of a micro-batch: weighted cross entropies of the labelled rows, and what was predicted right.

use crate::collate::{Label, MicroBatch};
use crate::dataset::Tag;
use crate::error::Result;
use crate::ranks::Ranks;
use callsmith::model::backward::Sink;
use callsmith::model::{AdapterBatch, Decoder, Found, Predict, Recompute};

/// Right predictions of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ratio {
    pub right: u64,
    pub total: u64,
}

impl Ratio {
    /// Counts one more.
    pub fn add(&mut self, right: bool) {
        self.right += u64::from(right);
        self.total += 1;
    }

    /// Counts another's too.
    pub fn merge(&mut self, other: Self) {
        self.right += other.right;
        self.total += other.total;
    }

    /// Counts what the other ranks did too.
    pub fn sum(&mut self, ranks: &dyn Ranks) {
        let mut numbers = [self.right as f64, self.total as f64];
        ranks.sum_f64(&mut numbers);
        [self.right, self.total] = numbers.map(|number| number as u64);
    }

    /// Share of right ones, `None` of none.
    pub fn share(self) -> Option<f64> {
        (self.total > 0).then(|| self.right as f64 / self.total as f64)
    }
}

/// What is known of many predictions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Sum of weight · cross entropy.
    pub loss: f64,
    /// Sum of weights.
    pub weight: f64,
    /// Sum of cross entropies of answer tokens, unweighted.
    pub answer_loss: f64,
    /// First tokens of function names.
    pub names: Ratio,
    /// Tokens of argument values.
    pub values: Ratio,
    /// First tokens of function names in the recall warm-up.
    pub found: Ratio,
    /// All answer tokens.
    pub answers: Ratio,
}

impl Tally {
    fn add(&mut self, label: &Label, loss: f32, prediction: u32) {
        let right = prediction == label.target;
        self.loss += f64::from(label.weight * loss);
        self.weight += f64::from(label.weight);
        if label.answer.is_some() {
            self.answer_loss += f64::from(loss);
            self.answers.add(right);
        }
        match label.tag {
            Tag::Name => self.names.add(right),
            Tag::Value => self.values.add(right),
            Tag::Found => self.found.add(right),
            Tag::Other => {}
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.answer_loss += other.answer_loss;
        self.names.merge(other.names);
        self.values.merge(other.values);
        self.found.merge(other.found);
        self.answers.merge(other.answers);
    }

    /// Adds the tallies of the other ranks.
    pub fn sum(&mut self, ranks: &dyn Ranks) {
        let mut sums = [self.loss, self.weight, self.answer_loss];
        ranks.sum_f64(&mut sums);
        [self.loss, self.weight, self.answer_loss] = sums;
        for ratio in [&mut self.names, &mut self.values, &mut self.found, &mut self.answers] {
            ratio.sum(ranks);
        }
    }

    /// Mean loss per weight.
    pub fn mean(&self) -> f64 {
        self.loss / self.weight
    }
}

/// The loss of one micro-batch.
pub struct MicroLoss {
    pub tally: Tally,
    /// For each answer of the micro-batch: were all of its tokens predicted right?
    pub exact: Vec<bool>,
}

/// How gradients are computed.
pub struct Backward<'a, 'b> {
    /// What the weights of the labels are divided by.
    pub weight_sum: f64,
    pub recompute: Recompute,
    pub sink: &'a mut Sink<'b>,
}

/// Runs the decoder over a micro-batch and compares with its labels.
pub fn evaluate(decoder: &Decoder, adapters: &AdapterBatch, micro: &MicroBatch) -> Result<MicroLoss> {
    let (rows, targets) = rows_and_targets(&micro.labels);
    Ok(compare(micro, &decoder.evaluate(&predict(micro, adapters, (&rows, &targets)))?))
}

/// The same with the gradients of `Σ weight · loss / weight_sum`.
pub fn differentiate(
    decoder: &Decoder,
    adapters: &AdapterBatch,
    micro: &MicroBatch,
    backward: Backward<'_, '_>,
) -> Result<MicroLoss> {
    let (rows, targets) = rows_and_targets(&micro.labels);
    let Backward { weight_sum, recompute, sink } = backward;
    let factors: Vec<f32> = micro.labels.iter().map(|label| (f64::from(label.weight) / weight_sum) as f32).collect();
    let predict = predict(micro, adapters, (&rows, &targets));
    Ok(compare(micro, &decoder.differentiate(&predict, &factors, recompute, sink)?))
}

fn rows_and_targets(labels: &[Label]) -> (Vec<u32>, Vec<u32>) {
    labels.iter().map(|label| (label.row, label.target)).unzip()
}

fn predict<'a>(
    micro: &'a MicroBatch,
    adapters: &'a AdapterBatch,
    (rows, targets): (&'a [u32], &'a [u32]),
) -> Predict<'a> {
    let MicroBatch { tokens, positions, lengths, .. } = micro;
    Predict { tokens, positions, lengths, adapters, rows, targets }
}

fn compare(micro: &MicroBatch, found: &Found) -> MicroLoss {
    let mut loss = MicroLoss { tally: Tally::default(), exact: vec![true; micro.answers as usize] };
    for ((label, &found), &prediction) in micro.labels.iter().zip(&found.losses).zip(&found.predictions) {
        loss.tally.add(label, found, prediction);
        if let Some(answer) = label.answer {
            loss.exact[answer as usize] &= prediction == label.target;
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(weight: f32, tag: Tag, answer: Option<u32>) -> Label {
        Label { row: 0, target: 7, weight, tag, answer }
    }

    #[test]
    fn the_mean_is_over_weights_and_names_are_counted_apart() {
        let mut tally = Tally::default();
        tally.add(&label(1.0, Tag::Name, Some(0)), 2.0, 7);
        tally.add(&label(1.0, Tag::Value, Some(0)), 1.0, 6);
        tally.add(&label(0.5, Tag::Other, None), 4.0, 7);
        assert!((tally.mean() - 5.0 / 2.5).abs() < 1e-9);
        assert_eq!(tally.names.share(), Some(1.0));
        assert_eq!(tally.values.share(), Some(0.0));
        assert_eq!(tally.answers, Ratio { right: 1, total: 2 });
        assert_eq!(Ratio::default().share(), None);
    }
}
