//! Dialogues over functions of a catalogue: `(config, index)` → a request and its calls, or a refusal. What the functions
//! return is not known, so a dialogue ends with the calls.

use super::ask::{Asked, ask, is_grounded};
use super::read;
use crate::data::synth::Split;
use crate::data::synth::dice::Dice;
use crate::data::synth::values::capitalise;
use crate::data::world::{Class, Move, Sample, Turn, WorldConfig, phrases, write_samples};
use crate::data::{DataError, Dialogue};
use crate::error::Result;
use callsmith::chat::{Conversation, Message, Role, Tool, ToolCall, ToolChoice};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// The classes that need no results.
const CLASSES: [Class; 5] =
    [Class::Single, Class::Distractors, Class::ParallelSame, Class::ParallelDifferent, Class::Irrelevant];
/// Draws for one dialogue.
const ATTEMPTS: u64 = 64;
/// Draws of arguments after which a function is given up.
const DRAWS: usize = 8;
/// One function in so many is held out of training, by its name.
const HELD_OUT: u8 = 4;
/// Functions on offer in class `distractors` that are not needed, at least.
const MANY: usize = 5;

/// Functions to make dialogues of.
pub struct Catalogue {
    tools: Vec<Tool>,
    left_out: Vec<String>,
}

/// One call: which tool, with what.
type Planned = (usize, Asked);

impl Catalogue {
    /// Reads the functions of a file that are of the configuration's split; a quarter, chosen by name, is held out.
    ///
    /// # Errors
    /// As [`read`], too few functions, and settings that say nothing about functions of a file.
    pub fn open(path: &Path, config: &WorldConfig) -> Result<Self, DataError> {
        check(config)?;
        let wanted = |tool: &Tool| (Sha256::digest(&tool.name)[0] % HELD_OUT == 0) == (config.split == Split::HeldOut);
        let mut dice = Dice::new(0, 0);
        // What takes values that nobody can make up is of no use.
        let (tools, useless): (Vec<Tool>, Vec<Tool>) =
            read(path)?.into_iter().filter(wanted).partition(|tool| (0..DRAWS).any(|_| ask(tool, &mut dice).is_some()));
        let left_out: Vec<String> = useless.into_iter().map(|tool| tool.name).collect();
        if tools.len() < 2 {
            let problem = format!(
                "has {} functions of this split with arguments that can be made up; 2 are needed. Of others: [{}]",
                tools.len(),
                left_out.join(", ")
            );
            return Err(DataError::file(path, problem));
        }
        Ok(Self { tools, left_out })
    }

    /// Names of functions of the split for which no arguments can be made up, so that no dialogue has them.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The dialogue number `index`. A pure function of the file's functions and its arguments.
    ///
    /// # Errors
    /// When no draw makes a dialogue whose calls fit their schemas and say only what was asked.
    pub fn generate(&self, config: &WorldConfig, index: u64) -> Result<Sample, DataError> {
        let weights = CLASSES.map(|class| config.classes.get(&class).copied().unwrap_or(0.0));
        let class = CLASSES[Dice::new(config.seed, u64::MAX - index).weighted(&weights)];
        for attempt in 0..ATTEMPTS {
            let dice = Dice::new(config.seed, index.wrapping_mul(ATTEMPTS).wrapping_add(attempt));
            if let Some(sample) = self.draw(config, class, dice) {
                return Ok(sample);
            }
        }
        let problem = format!("no dialogue {index} of class {class:?} can be made of these functions");
        Err(DataError::Setting { field: "tools-from", problem })
    }

    /// Writes `count` dialogues, as [`crate::data::world::write_dialogues`] does.
    ///
    /// # Errors
    /// As [`Self::generate`], and a file that cannot be written.
    pub fn write(&self, config: &WorldConfig, count: u64, path: &Path) -> Result<()> {
        config.validate()?;
        write_samples(count, path, |index| self.generate(config, index))
    }

    fn draw(&self, config: &WorldConfig, class: Class, mut dice: Dice) -> Option<Sample> {
        let planned = self.plan(class, &mut dice)?;
        let mut offered: BTreeSet<usize> = match class {
            Class::Irrelevant => BTreeSet::new(),
            _ => planned.iter().map(|(at, _)| *at).collect(),
        };
        let count = extra(config, class, &mut dice);
        for _ in 0..count * 4 {
            let at = dice.below(self.tools.len());
            // Functions that say the same of themselves are not told apart.
            let rival = planned.iter().any(|(other, _)| self.tools[*other].description == self.tools[at].description);
            if !rival && offered.len() < count + planned.len() {
                offered.insert(at);
            }
        }
        if offered.is_empty() {
            return None;
        }
        let mut tools: Vec<Tool> = offered.into_iter().map(|at| self.tools[at].clone()).collect();
        dice.shuffle(&mut tools);
        let requests: Vec<&str> = planned.iter().map(|(_, asked)| asked.request.as_str()).collect();
        // Nothing that speaks of an order: the calls are made at once.
        let request = requests.join(dice.pick(&[" and ", ", and also ", "; also "]));
        let said = capitalise(&dice.pick(phrases("frame")).replacen("{}", &request, 1));
        let (answer, does) = match class {
            Class::Irrelevant => {
                let text = dice.pick(phrases("decline")).replacen("{}", &planned[0].1.task, 1);
                (Message::text(Role::Assistant, text), Move::Decline)
            }
            _ => (self.calls(&planned, &said, &mut dice)?, Move::Call),
        };
        let messages = vec![Message::text(Role::User, said), answer];
        let conversation = Conversation { messages, tools, tool_choice: ToolChoice::Auto, parallel_tool_calls: true };
        Some(Sample { dialogue: Dialogue::from(conversation), class, turns: vec![Turn { does, assistant_message: 1 }] })
    }

    fn plan(&self, class: Class, dice: &mut Dice) -> Option<Vec<Planned>> {
        let first = dice.below(self.tools.len());
        let second = match class {
            Class::ParallelSame => Some(first),
            Class::ParallelDifferent => Some((first + 1 + dice.below(self.tools.len() - 1)) % self.tools.len()),
            _ => None,
        };
        let planned = |at: usize, dice: &mut Dice| Some((at, ask(&self.tools[at], dice)?));
        let mut all = vec![planned(first, dice)?];
        if let Some(second) = second {
            let other = planned(second, dice)?;
            if other.1.arguments == all[0].1.arguments {
                return None;
            }
            all.push(other);
        }
        Some(all)
    }

    /// The calls, if every value of theirs is said.
    fn calls(&self, planned: &[Planned], said: &str, dice: &mut Dice) -> Option<Message> {
        let mut message = Message::text(Role::Assistant, "");
        for (at, asked) in planned {
            if !is_grounded("", &asked.arguments, said) {
                return None;
            }
            let id = format!("call_{:08x}", dice.between(0, i64::from(u32::MAX)));
            let name = self.tools[*at].name.clone();
            message.tool_calls.push(ToolCall { id, name, arguments: asked.arguments.clone() });
        }
        Some(message)
    }
}

/// Refuses settings of the world that do nothing here.
fn check(config: &WorldConfig) -> Result<(), DataError> {
    let refuse = |field, problem: &str| Err(DataError::Setting { field, problem: problem.to_owned() });
    let usual = WorldConfig::default();
    if config.noise != usual.noise {
        return refuse("noise", "functions of a file are used as they are, without noise; remove it");
    }
    if config.system != usual.system {
        return refuse("system", "dialogues over functions of a file have no system message; remove it");
    }
    let weighs = |class: &Class| config.classes.get(class).is_some_and(|weight| *weight > 0.0);
    let is_foreign = config.classes != usual.classes && Class::ALL.iter().any(|c| weighs(c) && !CLASSES.contains(c));
    if is_foreign || !CLASSES.iter().any(weighs) {
        let problem = "functions of a file, of which no results are known, make single, distractors, parallel_same, \
                       parallel_different and irrelevant; give one of them a weight, and no other";
        return refuse("classes", problem);
    }
    Ok(())
}

/// Functions on offer that are not needed.
fn extra(config: &WorldConfig, class: Class, dice: &mut Dice) -> usize {
    let (low, high) = config.distractors;
    let (low, high) = match class {
        Class::Distractors => (low.max(MANY).min(high), high),
        // Something is offered, or nothing could be declined.
        Class::Irrelevant => (low.max(1), high.max(1)),
        _ => (low, high),
    };
    low + dice.below(high - low + 1)
}
