//! The seeded generator of function-calling dialogues: `(config, index)` → one dialogue, always the same.
//!
//! Function families are nouns with attributes and verbs from hand-written tables (`text/`); a quarter of the families is
//! held out of training, with most of their parameter names. Knows no dialect, no tokens and no model.

mod dialogue;
pub(in crate::data) mod dice;
mod function;
pub(in crate::data) mod names;
mod offer;
mod open;
mod request;
mod results;
pub(in crate::data) mod tables;
pub(in crate::data) mod values;
mod write;

#[cfg(test)]
mod tests;

pub use names::content_words;
pub use write::{bpe_corpus, write_jsonl, write_synth_tokenizer};

use super::DataError;
use callsmith::chat::Conversation;
use serde::{Deserialize, Serialize};

/// Which function families are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    /// Families whose nouns never occur in training.
    HeldOut,
}

/// What the name of the right function shares with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// A content word.
    Overlap,
    /// A meaning, but no word.
    Synonym,
    /// Nothing: only the description tells.
    Unrelated,
}

/// What a user turn needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    SingleCall,
    /// One function, several calls.
    ParallelSame,
    /// Two functions, one call each.
    ParallelDifferent,
    /// A request that no offered function serves.
    NoCall,
    /// Greetings and thanks.
    Chat,
}

/// What is known of one user turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnInfo {
    pub kind: Kind,
    /// Of the first call; `Overlap` for turns without a call.
    pub naming: Naming,
    /// Number of functions on offer.
    pub offered: usize,
    /// Whether the request ends with the noun that names the function's object.
    pub noun_last: bool,
    /// Index into `conversation.messages` of the answer (calls or words) to this turn.
    pub assistant_message: usize,
}

/// A dialogue and what is known of its turns.
#[derive(Debug, Clone)]
pub struct Sample {
    pub conversation: Conversation,
    pub turns: Vec<TurnInfo>,
}

/// Weights of the kinds of turn; they need not sum to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KindMix {
    pub single: f64,
    pub parallel_same: f64,
    pub parallel_different: f64,
    pub no_call: f64,
    pub chat: f64,
}

impl Default for KindMix {
    fn default() -> Self {
        Self { single: 0.70, parallel_same: 0.07, parallel_different: 0.06, no_call: 0.13, chat: 0.04 }
    }
}

/// Weights of the naming of functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamingMix {
    pub overlap: f64,
    pub synonym: f64,
    pub unrelated: f64,
}

impl Default for NamingMix {
    fn default() -> Self {
        Self { overlap: 0.60, synonym: 0.25, unrelated: 0.15 }
    }
}

/// Weights of where functions come from. Held-out samples use only the first two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceMix {
    /// Wholly hand-written functions (weather, timer, currency …).
    pub everyday: f64,
    /// Families of the table.
    pub listed: f64,
    /// Further nouns, with attributes drawn at random.
    pub open: f64,
    /// Made-up nouns, with attributes drawn at random.
    pub made_up: f64,
}

impl Default for SourceMix {
    fn default() -> Self {
        Self { everyday: 0.28, listed: 0.40, open: 0.20, made_up: 0.12 }
    }
}

/// What to generate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SynthConfig {
    pub seed: u64,
    pub split: Split,
    /// Least and most functions on offer.
    pub tools: (usize, usize),
    /// Least and most user turns that share one declaration block. The turns do not refer to each other.
    pub turns: (usize, usize),
    pub kinds: KindMix,
    pub naming: NamingMix,
    pub sources: SourceMix,
    /// Most optional parameters of a function, beside those of the everyday ones.
    pub max_optional: usize,
    /// Probability that a call is followed by its result and an answer in words; else the turn ends with the call.
    pub results: f64,
    /// Probability of a system message.
    pub system: f64,
    /// Probability that a function has a description (always, when its name does not tell).
    pub descriptions: f64,
    /// Probability that two parameters are put into a nested object.
    pub nested: f64,
    /// Probability that a function of the tables takes no arguments, and that a request for one call is the task alone.
    pub bare: f64,
}

impl Default for SynthConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            split: Split::Train,
            tools: (1, 4),
            turns: (1, 4),
            kinds: KindMix::default(),
            naming: NamingMix::default(),
            sources: SourceMix::default(),
            max_optional: 3,
            results: 0.4,
            system: 0.2,
            descriptions: 0.95,
            nested: 0.05,
            bare: 0.0,
        }
    }
}

impl SynthConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// A setting that is out of range, by name.
    pub fn validate(&self) -> Result<(), DataError> {
        range("tools", self.tools, 32)?;
        range("turns", self.turns, 32)?;
        let k = &self.kinds;
        weights("kinds", &[k.single, k.parallel_same, k.parallel_different, k.no_call, k.chat])?;
        weights("naming", &[self.naming.overlap, self.naming.synonym, self.naming.unrelated])?;
        let s = &self.sources;
        weights("sources", &[s.everyday, s.listed, s.open, s.made_up])?;
        if self.split == Split::HeldOut && s.everyday + s.listed <= 0.0 {
            let problem = "held-out samples come from `everyday` and `listed`; give one of them a weight".to_owned();
            return Err(DataError::Setting { field: "sources", problem });
        }
        probability("results", self.results)?;
        probability("system", self.system)?;
        probability("descriptions", self.descriptions)?;
        probability("nested", self.nested)?;
        probability("bare", self.bare)
    }

    /// Whether the next function or request is bare. Draws nothing where none can be, so that data without them stays as
    /// it was.
    fn draw_bare(&self, dice: &mut dice::Dice) -> bool {
        self.bare > 0.0 && dice.chance(self.bare)
    }
}

fn range(field: &'static str, (low, high): (usize, usize), most: usize) -> Result<(), DataError> {
    if (1..=high).contains(&low) && high <= most {
        return Ok(());
    }
    let problem = format!("must be [least, most] with 1 <= least <= most <= {most}, not [{low}, {high}]");
    Err(DataError::Setting { field, problem })
}

fn weights(field: &'static str, weights: &[f64]) -> Result<(), DataError> {
    let fine = weights.iter().all(|w| w.is_finite() && *w >= 0.0) && weights.iter().sum::<f64>() > 0.0;
    let problem = || "weights must be at least 0 and not all 0".to_owned();
    if fine { Ok(()) } else { Err(DataError::Setting { field, problem: problem() }) }
}

fn probability(field: &'static str, p: f64) -> Result<(), DataError> {
    let problem = || format!("must be from 0 to 1, not {p}");
    if (0.0..=1.0).contains(&p) { Ok(()) } else { Err(DataError::Setting { field, problem: problem() }) }
}

/// The sample number `index`. A pure function of its arguments, so that any part can be made anywhere, in any order.
/// The configuration must be valid.
pub fn generate(config: &SynthConfig, index: u64) -> Sample {
    dialogue::build(config, index)
}

/// Evaluation samples: one turn each, 1-4 functions on offer, 85 % single calls and 15 % requests that none serves.
/// With `naming`, single calls are of that case only.
pub fn eval_set(split: Split, n: usize, seed: u64, naming: Option<Naming>) -> Vec<Sample> {
    let kinds = KindMix { single: 0.85, no_call: 0.15, parallel_same: 0.0, parallel_different: 0.0, chat: 0.0 };
    let mix = naming.map_or_else(NamingMix::default, only);
    let config = SynthConfig { naming: mix, ..eval_config(split, seed, kinds) };
    collect(&config, n, |turn| match turn.kind {
        Kind::SingleCall => naming.is_none_or(|wanted| turn.naming == wanted),
        kind => kind == Kind::NoCall,
    })
}

/// Evaluation samples that each need several calls, of one function or of two.
pub fn eval_parallel(split: Split, n: usize, seed: u64) -> Vec<Sample> {
    let kinds = KindMix { single: 0.0, no_call: 0.0, parallel_same: 0.5, parallel_different: 0.5, chat: 0.0 };
    let wanted = |turn: &TurnInfo| matches!(turn.kind, Kind::ParallelSame | Kind::ParallelDifferent);
    collect(&eval_config(split, seed, kinds), n, wanted)
}

fn only(naming: Naming) -> NamingMix {
    let weight = |case| if case == naming { 1.0 } else { 0.0 };
    NamingMix {
        overlap: weight(Naming::Overlap),
        synonym: weight(Naming::Synonym),
        unrelated: weight(Naming::Unrelated),
    }
}

fn eval_config(split: Split, seed: u64, kinds: KindMix) -> SynthConfig {
    let sources = SourceMix { everyday: 0.1, ..SourceMix::default() };
    SynthConfig { seed, split, kinds, sources, turns: (1, 1), results: 0.0, system: 0.0, ..SynthConfig::default() }
}

fn collect(config: &SynthConfig, n: usize, wanted: impl Fn(&TurnInfo) -> bool) -> Vec<Sample> {
    (0..).map(|index| generate(config, index)).filter(|sample| sample.turns.iter().any(&wanted)).take(n).collect()
}
