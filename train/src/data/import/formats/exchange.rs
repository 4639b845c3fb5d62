//! A prompt and its response as two texts: `prompt`/`response` of fine-tuning services, `input`/`output` of llama_functions.
//!
//! A prompt in Llama 2's form (`[INST] <<SYS>> … <</SYS>> … [/INST]`) comes apart into its turns, and functions between
//! `<<API>>` and `<</API>>` into tools; the system text around them, which explains them, is left out. A response that is a
//! `function_call` object becomes a call. Beside them may stand `system` and `tools`.

use super::super::dialogue::Dialogue;
use super::super::fields::{optional_text, text};
use super::super::{calls, functions, literal, tags};
use super::{Format, Read, Rules};
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Role, Tool};
use serde_json::Value as Json;

/// Reads rows with these two fields.
pub(super) struct Exchange {
    pub(super) prompt: &'static str,
    pub(super) response: &'static str,
}

impl Format for Exchange {
    fn row(&mut self, row: &Json, rules: &mut Rules) -> Read {
        let mut dialogue = Dialogue::default();
        dialogue.say(Role::System, optional_text(row, "system")?.unwrap_or_default());
        let declared = prompt(&mut dialogue, text(row, self.prompt)?, rules)?;
        answer(&mut dialogue, text(row, self.response)?)?;
        let tools = functions::list(&row["tools"])?;
        dialogue.finish(if tools.is_empty() { declared } else { tools }).map(|read| Some(read.into()))
    }
}

/// What the assistant answers: a call where it is one, perhaps with `content` beside it.
pub(super) fn answer(dialogue: &mut Dialogue, text: &str) -> Result<(), Flaw> {
    let text = text.trim().trim_end_matches("</s>").trim_end();
    if !text.starts_with('{') || !text.contains("function_call") {
        dialogue.say(Role::Assistant, text);
        return Ok(());
    }
    let value = literal::read(text).map_err(|error| Flaw::new(Reason::Call, format!("{error} in `{text}`")))?;
    dialogue.call(value["content"].as_str().unwrap_or_default(), calls::list(&value["function_call"])?);
    Ok(())
}

fn prompt(dialogue: &mut Dialogue, text: &str, rules: &mut Rules) -> Result<Vec<Tool>, Flaw> {
    if !text.contains("[INST]") {
        dialogue.say(Role::User, text.trim());
        return Ok(Vec::new());
    }
    let mut tools = Vec::new();
    for turn in text.split("[INST]").skip(1) {
        let (asked, answered) = turn.split_once("[/INST]").unwrap_or((turn, ""));
        let (system, asked) = tags::split(asked, "<<SYS>>", "<</SYS>>");
        for system in system {
            match declared(system)? {
                Some(more) => {
                    tools.extend(more);
                    *rules.entry("system prompt that declares the functions left out").or_default() += 1;
                }
                None => dialogue.say(Role::System, system),
            }
        }
        dialogue.say(Role::User, &asked);
        if !answered.trim().is_empty() {
            answer(dialogue, answered.trim().trim_end_matches("<s>"))?;
        }
    }
    Ok(tools)
}

/// The functions between the marks, perhaps in a fenced block.
fn declared(system: &str) -> Result<Option<Vec<Tool>>, Flaw> {
    let (marked, _) = tags::split(system, "<<API>>", "<</API>>");
    let Some(text) = marked.first() else { return Ok(None) };
    let json = text.find(['{', '[']).zip(text.rfind(['}', ']'])).and_then(|(start, end)| text.get(start..=end));
    let value = literal::read(json.unwrap_or_default()).map_err(|error| Flaw::new(Reason::Tools, error.to_string()))?;
    functions::list(value.get("functions").unwrap_or(&value)).map(Some)
}
