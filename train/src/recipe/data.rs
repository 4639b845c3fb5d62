//! What a recipe says of the data: how much of it a step sees, where it comes from, what is held out.

use super::default;
use crate::data::synth::SynthConfig;
use crate::data::world::WorldConfig;
use callsmith::model::Recompute;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How much one step sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSection {
    /// Most tokens of one optimizer step, on each of the processes that train together.
    pub tokens: usize,
    /// Longer samples are dropped and counted.
    pub max_len: usize,
    /// Most tokens of one forward pass; gradients are accumulated. `tokens` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_tokens: Option<usize>,
    /// Passes that run at once, each with activations of its own. When absent: on a CPU as many as threads for a small model,
    /// else 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Which intermediate results are computed again instead of kept: off, selective (those of the feed-forward layers), all.
    #[serde(default)]
    pub recompute: Recompute,
    /// Threads that prepare data.
    #[serde(default = "default::workers")]
    pub workers: usize,
}

impl BatchSection {
    /// What `ranks` processes see together in a step: the tokens of each, in forward passes of the same size.
    pub(super) fn of_all(self, ranks: usize) -> Self {
        if ranks == 1 {
            return self;
        }
        let micro_tokens = self.micro_tokens.or(Some(self.tokens));
        Self { tokens: self.tokens * ranks, micro_tokens, ..self }
    }
}

/// A stretch of the run with one mixture of data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Optimizer steps; or `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// How often every conversation of the phase's only source, which must be `jsonl`, is seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    #[serde(rename = "source")]
    pub sources: Vec<SourceSection>,
}

/// One source of a mixture: exactly one of `copy`, `recall`, `synth`, `world`, `jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// Share of the samples, relative to the phase's other sources.
    #[serde(default = "default::one")]
    pub weight: f64,
    /// Loss weight of what follows the system message and functions and is not the assistant's: requests and results
    /// (conversations only).
    #[serde(default)]
    pub lm_weight: f32,
    /// Loss weight of the first token of each function name.
    #[serde(default = "default::one_f32")]
    pub name_weight: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopySection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<RecallSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synth: Option<SynthConfig>,
    /// Dialogues of all scenario classes, acted out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world: Option<WorldConfig>,
    /// A file, or several, with one conversation per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonl: Option<Paths>,
}

/// One path or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl Paths {
    /// All of them.
    pub fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    /// The same, to be changed.
    pub(super) fn all_mut(&mut self) -> &mut [PathBuf] {
        match self {
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }
}

/// Random token sequences, repeated. Each pair is `[at the start, at the end]` of the growth.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySection {
    /// Different tokens in use; grows geometrically.
    pub pool: [usize; 2],
    /// Tokens of a sequence before it is repeated.
    pub length: [usize; 2],
    /// Share of the phase after which the growth is complete.
    #[serde(default = "default::grow")]
    pub grow: f64,
}

/// Functions named and described by random words, and requests for them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallSection {
    /// Different words in use; grows geometrically.
    pub pool: [usize; 2],
    /// Most functions on offer; the start is also the least.
    pub functions: [usize; 2],
    /// Most other words in a description, and in a request.
    pub noise: [usize; 2],
    /// Most words that a description and a request for it share.
    #[serde(default = "default::single")]
    pub key_words: [usize; 2],
    /// Most words of a name.
    #[serde(default = "default::single")]
    pub name_words: [usize; 2],
    #[serde(default = "default::grow")]
    pub grow: f64,
}

/// What decides which step is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestBy {
    /// The lowest mean loss of all held-out answers.
    #[default]
    Loss,
    /// The most sample generations with exactly the wanted calls; among equals the lowest loss.
    CallAccuracy,
}

/// Evaluation on held-out conversations while training. Without this section a tenth of the files' conversations is held
/// out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// Steps from one evaluation to the next; a tenth of the run when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Most conversations that are measured.
    #[serde(default = "default::eval_samples")]
    pub samples: usize,
    #[serde(default)]
    pub seed: u64,
    /// A file to measure on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Share of the conversations of the recipe's files that is held out instead; 0 for no evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<f64>,
    /// Measure on generated dialogues with functions that no training dialogue shows.
    #[serde(default)]
    pub synth: bool,
    /// Held-out conversations with functions that are answered as the server would, one turn of each; 0 for none. When absent a
    /// few, but none of a packed base, whose weights are expanded again for every token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<usize>,
    /// Most tokens of such an answer.
    #[serde(default = "default::eval_max_tokens")]
    pub max_tokens: usize,
    #[serde(default)]
    pub best: BestBy,
    /// Evaluations in a row that are not the best after which the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
}

impl Default for EvalSection {
    fn default() -> Self {
        Self {
            every: None,
            samples: default::eval_samples(),
            seed: 0,
            data: None,
            split: None,
            synth: false,
            generate: None,
            max_tokens: default::eval_max_tokens(),
            best: BestBy::default(),
            patience: None,
        }
    }
}

impl EvalSection {
    /// Share of the conversations of the recipe's files that is kept from training.
    pub fn held_out(&self) -> f64 {
        match self.data.is_some() || self.synth {
            true => 0.0,
            false => self.split.unwrap_or(default::EVAL_SPLIT),
        }
    }
}
