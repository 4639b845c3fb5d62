//! The seam between measuring and models: turns to ask for on one side, what was written on the other.
//!
//! Knows neither what is wanted of a turn nor what an answer is worth.

pub mod local;
pub mod remote;

use super::score::Call;
use crate::error::Result;
use callsmith::chat::Conversation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A turn to ask for.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it comes from; no two of a set have the same.
    pub id: String,
    /// Everything before the turn.
    pub conversation: Conversation,
}

/// What a model wrote for a turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The turn as it was written, without thoughts. Servers show the calls of a turn apart; of those it is empty.
    pub text: String,
    pub calls: Vec<Call>,
    /// Why there is no answer: what a server says with status 400, for example that the prompt is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Reply {
    /// No answer, and why.
    pub fn refusal(why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..Self::default() }
    }

    /// The calls that were made; `None` where there is no answer, and so no silence either.
    pub fn made(&self) -> Option<&[Call]> {
        self.refused.is_none().then_some(self.calls.as_slice())
    }

    /// What a person is shown of it.
    pub fn shown(&self) -> String {
        match &self.refused {
            Some(why) => format!("(refused: {why})"),
            None if self.text.is_empty() => super::calls_json(&self.calls).to_string(),
            None => self.text.clone(),
        }
    }
}

/// Takes a reply and the place of its case among those asked.
pub type Take<'a> = &'a mut dyn FnMut(usize, Reply) -> Result<()>;

/// Whoever answers: a model in this process, or a server.
pub trait Answerer {
    /// Asks all cases, many at once, and hands over the replies while others are under way; a reply may wait for those of the
    /// few cases before it.
    ///
    /// # Errors
    /// When nobody can be asked any more. What is wrong with one case alone is its reply.
    fn answer(&self, cases: &[&Case], take: Take<'_>) -> Result<()>;

    /// Everything that its replies depend on, for whoever keeps them.
    fn identity(&self) -> Value;
}
