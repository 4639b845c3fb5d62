//! The formats: how each is recognised and read.

mod exchange;
pub(super) mod glaive;
mod hermes;
mod instruction;
mod instruction_tune;
mod openai;
mod seal_tools;
mod sharegpt;
pub(super) mod viggo;
mod xlam;

#[cfg(test)]
mod tests;

use super::ImportOptions;
use crate::data::Dialogue;
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::Conversation;
use clap::ValueEnum;
use exchange::Exchange;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// How often each rule was applied, by its name.
pub(super) type Rules = BTreeMap<&'static str, u64>;

/// What a row makes: nothing where a rule drops it, which is counted, or where several rows make one.
pub(super) type Read = Result<Option<Dialogue>, Flaw>;

/// Makes conversations of one format's rows.
pub(super) trait Format {
    /// Reads a row; counts in `rules` which of them changed it.
    fn row(&mut self, row: &Json, rules: &mut Rules) -> Read;

    /// A conversation of several rows, asked for until there is none; at the `end` also from the rows left over.
    fn grouped(&mut self, _end: bool) -> Option<Conversation> {
        None
    }
}

/// A format that keeps nothing from row to row.
impl<R: Into<Dialogue>, F: Fn(&Json) -> Result<R, Flaw>> Format for F {
    fn row(&mut self, row: &Json, _rules: &mut Rules) -> Read {
        self(row).map(|read| Some(read.into()))
    }
}

/// The known formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FormatName {
    /// `system` and `chat` of glaive-function-calling-v2.
    Glaive,
    /// `input` and `output` of llama_functions: Llama 2 prompts, functions with lists of parameters.
    LlamaFunctions,
    /// `prompt` and `response`.
    PromptResponse,
    /// `instruction` (or `instruction_field`), `input` and `output`.
    Instruction,
    /// `instruction`, `input` with `user_question` and `function_call_example`, `output` with `function_call`.
    InstructionTune,
    /// `mr` and `ref` of ViGGO.
    Viggo,
    /// `conversations` of human, gpt, function_call and observation, with `tools`.
    Sharegpt,
    /// `conversations` with `<tools>`, `<tool_call>` and `<tool_response>`.
    Hermes,
    /// `query`, `tools` and `answers`.
    Xlam,
    /// OpenAI's `messages` with `tools`: the native format.
    Openai,
    /// `query` and `calling` of Seal-Tools, after its catalogue (`api_name`, …).
    SealTools,
}

impl FormatName {
    /// What people call it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Glaive => "glaive",
            Self::LlamaFunctions => "llama-functions",
            Self::PromptResponse => "prompt-response",
            Self::Instruction => "instruction",
            Self::InstructionTune => "instruction-tune",
            Self::Viggo => "viggo",
            Self::Sharegpt => "sharegpt",
            Self::Hermes => "hermes",
            Self::Xlam => "xlam",
            Self::Openai => "openai",
            Self::SealTools => "seal-tools",
        }
    }

    /// The fields that its reader looks at.
    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Glaive => &["system", "chat"],
            Self::LlamaFunctions => &["input", "output", "system", "tools"],
            Self::PromptResponse => &["prompt", "response", "system", "tools"],
            Self::Instruction => &["instruction", "instruction_field", "input", "output", "system", "history", "tools"],
            Self::InstructionTune => &["instruction", "input", "output"],
            Self::Viggo => &["mr", "ref"],
            Self::Sharegpt | Self::Hermes => &["conversations", "system", "tools"],
            Self::Xlam => &["query", "tools", "answers"],
            Self::Openai => &["messages", "tools", "tool_choice", "parallel_tool_calls", "metadata"],
            Self::SealTools => &["query", "calling", "api_name", "api_description", "parameters", "required"],
        }
    }

    /// The format of a row in a file of this one: rows with marks or examples and rows without them stand in one file.
    pub(super) fn variety(self, row: &Json) -> Self {
        match self {
            Self::Sharegpt | Self::Hermes if hermes::is_marked(row) => Self::Hermes,
            Self::Sharegpt | Self::Hermes => Self::Sharegpt,
            Self::Instruction | Self::InstructionTune if instruction_tune::has_example(row) => Self::InstructionTune,
            Self::Instruction | Self::InstructionTune => Self::Instruction,
            other => other,
        }
    }

    pub(super) fn reader(self, options: &ImportOptions) -> Box<dyn Format> {
        match self {
            Self::Glaive => Box::new(glaive::Glaive::new(&options.glaive_rules, options.seed)),
            Self::LlamaFunctions => Box::new(Exchange { prompt: "input", response: "output" }),
            Self::PromptResponse => Box::new(Exchange { prompt: "prompt", response: "response" }),
            Self::Instruction => Box::new(instruction::row),
            Self::InstructionTune => Box::new(instruction_tune::row),
            Self::Viggo => Box::new(viggo::Viggo::new(options.viggo, options.seed)),
            Self::Sharegpt => Box::new(sharegpt::row),
            Self::Hermes => Box::new(hermes::Hermes),
            Self::Xlam => Box::new(xlam::row),
            Self::Openai => Box::new(openai::row),
            Self::SealTools => Box::new(seal_tools::SealTools::new(options.distractors, options.seed)),
        }
    }
}

/// The fields that tell a format; the first that a row has count.
const FIELDS: [(&[&str], FormatName); 11] = [
    (&["mr", "ref"], FormatName::Viggo),
    (&["system", "chat"], FormatName::Glaive),
    (&["messages"], FormatName::Openai),
    (&["conversations"], FormatName::Sharegpt),
    (&["query", "tools", "answers"], FormatName::Xlam),
    (&["query", "calling"], FormatName::SealTools),
    (&["api_name", "parameters"], FormatName::SealTools),
    (&["instruction", "output"], FormatName::Instruction),
    (&["instruction_field", "output"], FormatName::Instruction),
    (&["prompt", "response"], FormatName::PromptResponse),
    (&["input", "output"], FormatName::LlamaFunctions),
];

/// The format of a row, by its fields.
pub(super) fn detect(row: &Json) -> Result<FormatName, Flaw> {
    let has = |fields: &[&str]| fields.iter().all(|field| row.get(field).is_some());
    match FIELDS.iter().find(|(fields, _)| has(fields)) {
        Some((_, name)) => Ok(name.variety(row)),
        None => {
            let fields: Vec<_> = row.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            Err(Flaw::new(Reason::Unknown, format!("no format has the fields {fields:?}; name it with --format")))
        }
    }
}
