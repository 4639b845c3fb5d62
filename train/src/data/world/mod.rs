//! A seeded generator of dialogues of all scenario classes, acted out in a world of records: `(config, index)` → one
//! dialogue, always the same.
//!
//! A skeleton says which turns its class needs (`skeletons`); the scene makes them, with calls that are carried out
//! (`execute`) on what exists (`state`), through functions of families of tables (`families`) as they are offered
//! (`offer`). Nothing is returned that does not stand up to `verify`. Knows no dialect, no tokens and no model.

mod class;
mod config;
mod execute;
mod families;
mod fill;
mod ids;
mod kind;
mod offer;
mod pairs;
mod scene;
mod skeletons;
mod speech;
mod state;
mod text;
mod verify;
mod write;

#[cfg(test)]
mod tests;

pub use class::{Class, Move};
pub use config::{Noise, WorldConfig};
pub use write::{write_dialogues, write_pairs, write_samples};

pub(in crate::data) use text::phrases;

use super::synth::dice::Dice;
use super::{DataError, Dialogue};
use offer::Offer;
use scene::{Scene, Stuck};
use state::World;

/// What is known of an assistant turn that is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub does: Move,
    /// Index into the conversation's messages.
    pub assistant_message: usize,
}

/// A dialogue and what is known of it.
#[derive(Debug, Clone)]
pub struct Sample {
    pub dialogue: Dialogue,
    pub class: Class,
    /// In order; a turn that is not trained on has none.
    pub turns: Vec<Turn>,
}

/// What a dialogue is verified against.
#[derive(Debug, Clone)]
struct Script {
    /// The world before the first call, with the faults that happen.
    before: World,
    /// What is to exist after the last one.
    goal: World,
    offers: Vec<Offer>,
}

/// Draws for one dialogue; most need few.
const ATTEMPTS: u64 = 64;

/// The dialogue number `index`. A pure function of its arguments, so that any part can be made anywhere, in any order. The
/// configuration must be valid.
///
/// # Errors
/// When no draw makes a dialogue that stands up to verification, which the built-in families rule out.
pub fn generate(config: &WorldConfig, index: u64) -> Result<Sample, DataError> {
    let class = config.draw(&mut Dice::new(config.seed, u64::MAX - index));
    let (sample, ..) = attempts(config, index, class, |scene| skeletons::act_out(scene, class))?;
    Ok(sample)
}

/// Acts out until a dialogue stands up to verification; returns it with its script and what acting it out returned.
fn attempts<T>(
    config: &WorldConfig,
    index: u64,
    class: Class,
    act_out: impl Fn(&mut Scene<'_>) -> Result<T, Stuck>,
) -> Result<(Sample, Script, T), DataError> {
    let mut last = "the scene could not be set".to_owned();
    for attempt in 0..ATTEMPTS {
        let mut scene = Scene::new(config, Dice::new(config.seed, index.wrapping_mul(ATTEMPTS).wrapping_add(attempt)));
        let Ok(more) = act_out(&mut scene) else { continue };
        let (sample, script) = scene.finish(class);
        match verify::check(&sample, &script) {
            Ok(()) => return Ok((sample, script, more)),
            Err(flaw) => last = flaw.to_string(),
        }
    }
    let problem = format!("no dialogue {index} of class {class:?} with this configuration: {last}");
    Err(DataError::Setting { field: "world", problem })
}
