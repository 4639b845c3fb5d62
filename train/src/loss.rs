//! The loss of a micro-batch: weighted cross entropies of the labelled rows, and what was predicted right.

use crate::collate::{Label, MicroBatch};
use crate::dataset::Tag;
use crate::error::Result;
use callsmith::model::{AdapterBatch, Decoder, ForwardPass};
use candle_core::Tensor;

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

    /// Mean loss per weight.
    pub fn mean(&self) -> f64 {
        self.loss / self.weight
    }
}

/// The loss of one micro-batch.
pub struct MicroLoss {
    /// Sum of weight · cross entropy, a scalar that can be differentiated; `None` without labels.
    pub sum: Option<Tensor>,
    pub tally: Tally,
    /// For each answer of the micro-batch: were all of its tokens predicted right?
    pub exact: Vec<bool>,
}

/// Runs the decoder over a micro-batch and compares with its labels.
pub fn evaluate(decoder: &Decoder, adapters: &AdapterBatch, micro: &MicroBatch) -> Result<MicroLoss> {
    let hidden = decoder.hidden_states(ForwardPass {
        tokens: &micro.tokens,
        positions: &micro.positions,
        attention: callsmith::model::Attention::Causal(&micro.lengths),
        adapters,
    })?;
    let mut loss = MicroLoss { sum: None, tally: Tally::default(), exact: vec![true; micro.answers as usize] };
    for group in by_weight(&micro.labels) {
        let sum = loss.add_group(decoder, &hidden, &group)?;
        loss.sum = Some(match loss.sum.take() {
            Some(before) => (before + sum)?,
            None => sum,
        });
    }
    Ok(loss)
}

impl MicroLoss {
    /// The weighted sum over labels of one weight.
    fn add_group(&mut self, decoder: &Decoder, hidden: &Tensor, labels: &[Label]) -> Result<Tensor> {
        let rows: Vec<u32> = labels.iter().map(|label| label.row).collect();
        let targets: Vec<u32> = labels.iter().map(|label| label.target).collect();
        let rows = Tensor::from_vec(rows, labels.len(), hidden.device())?;
        let found = decoder.token_losses(&hidden.index_select(&rows, 0)?, &targets)?;
        for ((label, &loss), &prediction) in labels.iter().zip(&found.losses).zip(&found.predictions) {
            self.tally.add(label, loss, prediction);
            if let Some(answer) = label.answer {
                self.exact[answer as usize] &= prediction == label.target;
            }
        }
        Ok((found.sum * f64::from(labels[0].weight))?)
    }
}

/// Labels of equal weight together, so that each group is one call of the vocabulary head.
fn by_weight(labels: &[Label]) -> Vec<Vec<Label>> {
    let mut groups: Vec<Vec<Label>> = Vec::new();
    for label in labels {
        match groups.iter_mut().find(|group| group[0].weight == label.weight) {
            Some(group) => group.push(*label),
            None => groups.push(vec![*label]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(weight: f32, tag: Tag, answer: Option<u32>) -> Label {
        Label { row: 0, target: 7, weight, tag, answer }
    }

    #[test]
    fn labels_of_one_weight_form_one_group() {
        let labels = [0.1, 1.0, 0.1, 3.0, 1.0].map(|weight| label(weight, Tag::Other, None));
        let sizes: Vec<_> = by_weight(&labels).iter().map(|group| (group[0].weight, group.len())).collect();
        assert_eq!(sizes, [(0.1, 2), (1.0, 2), (3.0, 1)]);
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
