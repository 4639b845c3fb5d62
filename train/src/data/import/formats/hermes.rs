//! Hermes function calling: ShareGPT turns in which `<tools>`, `<tool_call>` and `<tool_response>` mark functions, calls and
//! results. The system prompt that declares the functions is left out: the chat template of a model writes its own.

use super::super::dialogue::{Call, Dialogue};
use super::super::fields::{list, optional_text, text};
use super::super::{calls, functions, tags};
use super::{Format, Read, Rules};
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Role, Tool};
use serde_json::Value as Json;

/// Whether a row's turns have such marks.
pub(super) fn is_marked(row: &Json) -> bool {
    let values = row["conversations"].as_array().into_iter().flatten().filter_map(|turn| turn["value"].as_str());
    values.into_iter().any(|value| ["<tools>", "<tool_call>"].iter().any(|mark| value.contains(mark)))
}

pub(super) struct Hermes;

impl Format for Hermes {
    fn row(&mut self, row: &Json, rules: &mut Rules) -> Read {
        let (mut dialogue, mut declared) = (Dialogue::default(), Vec::new());
        let mut system = |dialogue: &mut Dialogue, value: &str| -> Result<(), Flaw> {
            match declarations(value)? {
                Some(tools) => {
                    declared.extend(tools);
                    *rules.entry("hermes: system prompt that declares the functions left out").or_default() += 1;
                }
                None => dialogue.say(Role::System, value),
            }
            Ok(())
        };
        system(&mut dialogue, optional_text(row, "system")?.unwrap_or_default())?;
        for turn in list(row, "conversations")? {
            let value = text(turn, "value")?;
            match text(turn, "from")? {
                "system" => system(&mut dialogue, value)?,
                "human" | "user" => dialogue.say(Role::User, value),
                "gpt" | "assistant" => answer(&mut dialogue, value)?,
                "tool" | "observation" => results(&mut dialogue, value)?,
                other => return Err(Flaw::new(Reason::Field, format!("`from`: unknown speaker `{other}`"))),
            }
        }
        let tools = functions::list(&row["tools"])?;
        dialogue.finish(if tools.is_empty() { declared } else { tools }).map(|read| Some(read.into()))
    }
}

/// The functions that a system prompt declares; `None` where it declares none. The last mark counts: the text before it
/// may speak of the marks.
fn declarations(text: &str) -> Result<Option<Vec<Tool>>, Flaw> {
    let declared = text.rsplit_once("<tools>").and_then(|(_, rest)| rest.split_once("</tools>"));
    let Some((declared, _)) = declared else { return Ok(None) };
    // A list, or one function a line.
    let whole = functions::list(&Json::from(declared));
    let lines = || {
        let lines = declared.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| functions::list(&Json::from(line))).collect::<Result<Vec<_>, _>>().map(|tools| tools.concat())
    };
    whole.or_else(|_| lines()).map(Some)
}

fn answer(dialogue: &mut Dialogue, value: &str) -> Result<(), Flaw> {
    let (marked, words) = tags::split(value, "<tool_call>", "</tool_call>");
    if words.contains("<tool_call>") {
        return Err(Flaw::new(Reason::Call, format!("a <tool_call> that does not end in `{words}`")));
    }
    if marked.is_empty() {
        dialogue.say(Role::Assistant, value);
        return Ok(());
    }
    let calls: Vec<Vec<Call>> = marked.into_iter().map(calls::in_text).collect::<Result<_, _>>()?;
    dialogue.call(&words, calls.concat());
    Ok(())
}

fn results(dialogue: &mut Dialogue, value: &str) -> Result<(), Flaw> {
    let (marked, words) = tags::split(value, "<tool_response>", "</tool_response>");
    if words.contains("<tool_response>") {
        return Err(Flaw::new(Reason::Result, format!("a <tool_response> that does not end in `{words}`")));
    }
    match marked.is_empty() {
        true => dialogue.results(value.trim()),
        false => marked.into_iter().try_for_each(|result| dialogue.result(result)),
    }
}
