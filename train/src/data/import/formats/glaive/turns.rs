//! One row's texts → functions and turns (rules 1 to 4).

use super::super::super::dialogue::Dialogue;
use super::super::super::{calls, functions};
use super::rules::Rule;
use crate::data::rows::{Flaw, Reason};
use callsmith::chat::{Message, Role, Tool};
use serde_json::Value as Json;

const FUNCTIONS: &str = "with access to the following functions. Use them if required -";
const NO_FUNCTIONS: &str = "with no access to external functions";
/// What stands before either in every row of the data set.
const ASSISTANT: &str = "You are a helpful assistant";
const CALL: &str = "<functioncall>";
const END: &str = "<|endoftext|>";
const PHRASE: &str = "but as an AI, ";
/// Who speaks after each keyword.
const KEYWORDS: [(&str, Role); 3] =
    [("USER:", Role::User), ("ASSISTANT:", Role::Assistant), ("FUNCTION RESPONSE:", Role::Tool)];

/// What a row says.
pub(super) struct Read {
    pub(super) tools: Vec<Tool>,
    pub(super) messages: Vec<Message>,
    /// The rules that changed something.
    pub(super) applied: Vec<Rule>,
}

/// Reads a row under the rules that are `on`. With one of the rules `Functions`, `Results` and `Calls` what cannot be read
/// makes the row flawed; without, it stays text.
pub(super) fn read(system: &str, chat: &str, on: impl Fn(Rule) -> bool) -> Result<Read, Flaw> {
    let mut applied = Vec::new();
    let mut dialogue = Dialogue::default();
    let (tools, own) = match declared(system) {
        Ok(tools) => (tools, own_text(system)),
        Err(flaw) if on(Rule::Functions) => return Err(flaw),
        Err(_) => (Vec::new(), bare(system)),
    };
    dialogue.say(Role::System, own);
    for (role, piece) in pieces(chat) {
        let (text, changed) = if on(Rule::Phrases) { without_phrases(piece) } else { (piece.replace(END, ""), false) };
        let text = text.trim();
        // What is left between two keywords is no turn.
        let remnant = on(Rule::Phrases) && text.len() <= 1;
        if (changed || remnant && !text.is_empty()) && !applied.contains(&Rule::Phrases) {
            applied.push(Rule::Phrases);
        }
        if !remnant {
            turn(&mut dialogue, role, text, &on)?;
        }
    }
    Ok(Read { tools, messages: dialogue.into_messages(), applied })
}

/// The functions of a system text.
fn declared(system: &str) -> Result<Vec<Tool>, Flaw> {
    let Some((_, declared)) = system.split_once(FUNCTIONS) else { return Ok(Vec::new()) };
    let parts = declared.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    let tools: Vec<Vec<Tool>> = parts.map(|part| functions::list(&Json::from(part))).collect::<Result<_, _>>()?;
    Ok(tools.concat())
}

/// What the system text says beside the sentences that every row of the data set has.
fn own_text(system: &str) -> &str {
    let Some(end) = system.find(FUNCTIONS).or_else(|| system.find(NO_FUNCTIONS)) else { return bare(system) };
    let before = bare(&system[..end]).trim_end_matches([',', ' ']);
    if before == ASSISTANT { "" } else { before }
}

fn bare(system: &str) -> &str {
    let system = system.trim();
    system.strip_prefix("SYSTEM:").unwrap_or(system).trim()
}

/// The chat cut at its keywords; what stands before the first is no turn.
fn pieces(chat: &str) -> Vec<(Role, &str)> {
    let mut starts: Vec<(usize, &str, Role)> = KEYWORDS
        .iter()
        .flat_map(|(keyword, role)| chat.match_indices(keyword).map(|(at, keyword)| (at, keyword, *role)))
        .collect();
    starts.sort_unstable_by_key(|(at, ..)| *at);
    let ends = starts.iter().skip(1).map(|(at, ..)| *at).chain([chat.len()]);
    let piece = |(&(at, keyword, role), end): (&(usize, &str, Role), usize)| (role, &chat[at + keyword.len()..end]);
    starts.iter().zip(ends).map(piece).collect()
}

/// Without the end mark, which every row has, and the phrase, whose removal counts as a change.
fn without_phrases(piece: &str) -> (String, bool) {
    let text = piece.replace(END, "");
    let without = text.replace(PHRASE, "");
    let changed = without != text;
    (without, changed)
}

fn turn(dialogue: &mut Dialogue, role: Role, text: &str, on: &impl Fn(Rule) -> bool) -> Result<(), Flaw> {
    match (role, text.strip_prefix(CALL)) {
        (Role::Assistant, Some(written)) => {
            // The arguments stand in single quotes, as the text of an object.
            let json = written.replace("'{", "{").replace("}'", "}");
            match calls::in_text(json.trim()) {
                Ok(calls) => dialogue.call("", calls),
                Err(flaw) if on(Rule::Calls) => return Err(flaw),
                Err(_) => dialogue.say(role, text),
            }
            Ok(())
        }
        (Role::Tool, _) => match serde_json::from_str::<Json>(text) {
            Err(error) if on(Rule::Results) => Err(Flaw::new(Reason::Result, format!("{error} in `{text}`"))),
            _ => dialogue.result(text),
        },
        _ => {
            dialogue.say(role, text);
            Ok(())
        }
    }
}
