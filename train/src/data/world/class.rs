//! The scenario classes that dialogues are made of, and what an assistant turn is there for. Names only.

use serde::{Deserialize, Serialize};

/// What a dialogue is an example of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// One request, one call.
    Single,
    /// One call, with many functions to choose from.
    Distractors,
    /// Several calls of one function in one turn.
    ParallelSame,
    /// Calls of several functions in one turn.
    ParallelDifferent,
    /// Two to six calls, one after the other, where a later one takes an argument from an earlier result.
    Dependent,
    /// Calls in one turn, then calls with what they returned.
    ParallelThenDependent,
    /// A required argument is asked for.
    MissingArgument,
    /// A value that cannot be is asked for again.
    InvalidValue,
    /// The function fails: retry, other function, or an honest report.
    ToolError,
    /// Some calls of a turn fail.
    PartialFailure,
    /// A mistake of the assistant's own is put right; the mistake is not trained on.
    SelfCorrection,
    /// A request that no function serves is declined.
    Irrelevant,
    /// The function was not there when it was first needed; that refusal is not trained on.
    FunctionSuppliedLater,
    /// Small talk beside functions.
    Chat,
    /// A question that an earlier result answers.
    AnswerFromResult,
    /// The user changes a request, or refers back to it.
    ChangeOfMind,
    /// Optional and nested arguments, lists of objects, units, numbers as words, writing of all kinds.
    RichArguments,
    /// A long result.
    LongResult,
    /// Nothing is changed before the user has confirmed it.
    ConfirmWrite,
    /// A function without arguments.
    ZeroArguments,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Single,
        Self::Distractors,
        Self::ParallelSame,
        Self::ParallelDifferent,
        Self::Dependent,
        Self::ParallelThenDependent,
        Self::MissingArgument,
        Self::InvalidValue,
        Self::ToolError,
        Self::PartialFailure,
        Self::SelfCorrection,
        Self::Irrelevant,
        Self::FunctionSuppliedLater,
        Self::Chat,
        Self::AnswerFromResult,
        Self::ChangeOfMind,
        Self::RichArguments,
        Self::LongResult,
        Self::ConfirmWrite,
        Self::ZeroArguments,
    ];
}

/// What an assistant turn does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Calls functions.
    Call,
    /// Asks for what is missing or wrong.
    Ask,
    /// Says what it is about to change and waits.
    Confirm,
    /// Says that it cannot.
    Decline,
    /// Puts results into words.
    Answer,
    /// Says what went wrong.
    Report,
    /// Talks.
    Chat,
}
