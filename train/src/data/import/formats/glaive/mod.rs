//! glaive-function-calling-v2: a `system` text that declares functions as JSON and a `chat` whose turns begin with `USER:`,
//! `ASSISTANT:` and `FUNCTION RESPONSE:`.
//!
//! Reading a row and the rules that clean it (`rules`) are those of the original Llama3-FunctionCalling project; each can
//! be switched off, and each counts the rows that it changes or drops.

mod rules;
mod turns;

#[cfg(test)]
mod tests;

pub use rules::Rule;

use super::super::dialogue::conversation;
use super::super::fields::text;
use super::{Format, Read, Rules};
use rules::Cleaner;
use serde_json::Value as Json;

/// Reads rows of Glaive.
pub(super) struct Glaive(Cleaner);

impl Glaive {
    pub(super) fn new(rules: &[Rule], seed: u64) -> Self {
        Self(Cleaner::new(rules, seed))
    }
}

impl Format for Glaive {
    fn row(&mut self, row: &Json, counts: &mut Rules) -> Read {
        let mut count = |rule: Rule| *counts.entry(rule.text()).or_default() += 1;
        let read = turns::read(text(row, "system")?, text(row, "chat")?, |rule| self.0.has(rule))
            .inspect_err(|flaw| Rule::against(flaw.reason).into_iter().for_each(&mut count))?;
        read.applied.into_iter().for_each(&mut count);
        let cleaned = self.0.clean(read.messages, !read.tools.is_empty());
        cleaned.applied.into_iter().for_each(&mut count);
        cleaned.messages.map(|messages| conversation(messages, read.tools).map(Into::into)).transpose()
    }
}
