//! How a model of this server speaks: its chat template, its dialect, and the dialect's view of the tokenizer.
//!
//! The base has one, and so has every adapter with a chat template of its own; all others speak as the base does. Knows no
//! requests, and of adapters nothing but the template's text.

use super::TurnContext;
use crate::chat::ChatError;
use crate::chat::dialect::{Dialect, DialectChoice, Dialects};
use crate::chat::reasoning::Reasoning;
use crate::chat::template::ChatTemplate;
use crate::chat::tokenizer::ChatTokenizer;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Compiled templates of adapters that are kept; others are compiled again at their next use.
const MAX_KEPT: usize = 32;

/// One chat template, compiled, with its dialect.
pub struct Voice {
    pub dialect: Arc<dyn Dialect>,
    /// Shows the dialect's control tokens.
    pub tokenizer: Arc<ChatTokenizer>,
    template: ChatTemplate,
    /// The same, told that the model shall not think aloud.
    quiet: ChatTemplate,
}

impl Voice {
    fn new(
        source: Option<&str>,
        dialect: Arc<dyn Dialect>,
        tokenizer: &ChatTokenizer,
        thoughts: bool,
    ) -> Result<Self, ChatError> {
        let tokenizer = Arc::new(tokenizer.clone().for_dialect(dialect.as_ref()));
        let (bos, eos) = (tokenizer.bos_token(), tokenizer.eos_token());
        let template = ChatTemplate::new(source, Arc::clone(&dialect), tokenizer.control_tokens(), bos, eos)?;
        let quiet = template.clone().without_thoughts();
        Ok(Self { dialect, tokenizer, template: if thoughts { template } else { quiet.clone() }, quiet })
    }

    /// The chat template, for a model that may think aloud or shall not.
    pub(super) fn template(&self, thoughts: bool) -> &ChatTemplate {
        if thoughts { &self.template } else { &self.quiet }
    }

    /// How the model writes the turn after a prompt that leaves so much to it of thoughts.
    pub(super) fn turn(&self, reasoning: Reasoning) -> TurnContext<'_> {
        TurnContext {
            dialect: self.dialect.as_ref(),
            control: self.tokenizer.control_ids(),
            several_calls: self.template.several_calls(),
            reasoning,
        }
    }
}

/// The voices of a server.
pub struct Voices {
    base: Arc<Voice>,
    dialects: Dialects,
    thoughts: bool,
    /// Of adapters, by the text of their templates; the last used first.
    kept: Mutex<VecDeque<(Arc<str>, Arc<Voice>)>>,
}

impl Voices {
    /// The base's voice, from the tokenizer's own template and the operator's choice of a dialect; adapters' templates choose
    /// among the same dialects. Without `thoughts` no model shall think aloud.
    ///
    /// # Errors
    /// When the dialects cannot be read, or the template does not compile.
    pub fn new(tokenizer: &ChatTokenizer, choice: &DialectChoice, thoughts: bool) -> Result<Self, ChatError> {
        let dialect = choice.resolve(tokenizer.chat_template())?;
        let base = Voice::new(tokenizer.chat_template(), dialect, tokenizer, thoughts)?;
        Ok(Self { base: Arc::new(base), dialects: choice.dialects()?, thoughts, kept: Mutex::default() })
    }

    /// How the base speaks.
    pub fn base(&self) -> &Arc<Voice> {
        &self.base
    }

    /// How an adapter with this template of its own speaks; without one, as the base does.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn of(&self, template: Option<&str>) -> Result<Arc<Voice>, ChatError> {
        let Some(text) = template.filter(|text| !self.is_bases(text)) else { return Ok(Arc::clone(&self.base)) };
        if let Some(voice) = self.find(text) {
            return Ok(voice);
        }
        let dialect = self.dialects.for_template(Some(text))?;
        let voice = Arc::new(Voice::new(Some(text), dialect, &self.base.tokenizer, self.thoughts)?);
        let mut kept = self.kept.lock();
        kept.push_front((text.into(), Arc::clone(&voice)));
        kept.truncate(MAX_KEPT);
        Ok(voice)
    }

    /// Whether an adapter's template can be used.
    ///
    /// # Errors
    /// When it does not compile, names an unknown dialect, or shows calls otherwise than its dialect writes them.
    pub fn judge(&self, template: &str) -> Result<(), ChatError> {
        if self.is_bases(template) { Ok(()) } else { self.of(Some(template))?.template.check_dialect() }
    }

    /// The name of the dialect of an adapter with this template of its own.
    pub fn dialect_of(&self, template: Option<&str>) -> String {
        let own = template.filter(|text| !self.is_bases(text));
        // What no dialect could be found for was never published.
        let found = own.and_then(|text| self.dialects.for_template(Some(text)).ok());
        found.as_ref().unwrap_or(&self.base.dialect).name().to_owned()
    }

    /// Many adapters are saved with the files of their base's tokenizer. These speak as it does, also where the operator has
    /// named its dialect.
    fn is_bases(&self, template: &str) -> bool {
        self.base.tokenizer.has_template(template)
    }

    fn find(&self, text: &str) -> Option<Arc<Voice>> {
        let mut kept = self.kept.lock();
        let place = kept.iter().position(|(known, _)| **known == *text)?;
        let found = kept.remove(place)?;
        let voice = Arc::clone(&found.1);
        kept.push_front(found);
        Some(voice)
    }
}

#[cfg(test)]
mod tests;
