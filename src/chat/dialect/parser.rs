//! Reads calls out of an assistant turn piece by piece, as a [`Description`] writes them.
//!
//! Arguments pass through as they were written, never parsed and written again. Any split of the text gives the same calls:
//! whatever is not yet certain stays in the buffer. White space between the parts of fixed text is tolerated. Knows no schema.

use super::cursor::{Cursor, ObjectEnd, Stop};
use super::description::{Description, Gap, Words};
use super::{Delta, TurnParser, lark};
use crate::chat::SPACE;
use std::sync::Arc;

/// Fixed text as tokens between which white space may stand.
type Tokens = Vec<String>;

/// The fixed text around calls.
#[derive(Debug)]
pub(super) struct Format {
    words: Words,
    lead: Tokens,
    /// From the start of the first call to the function's name.
    open: Tokens,
    /// From the end of a call to the name of the next; `None` = one call a turn.
    next: Option<Tokens>,
    /// After the last call.
    end: Tokens,
    quoted: bool,
    /// What stands before the name inside its quotes.
    name_prefix: String,
    middle: GapTokens,
    tail: GapTokens,
}

#[derive(Debug)]
struct GapTokens {
    before: Tokens,
    /// Around an id that may stand here.
    id: Option<[Tokens; 2]>,
    after: Tokens,
}

impl GapTokens {
    fn new(gap: &Gap) -> Self {
        let id = gap.id.as_ref().map(|[open, close]| [tokens(open), tokens(close)]);
        Self { before: tokens(&gap.before), id, after: tokens(&gap.after) }
    }
}

impl Format {
    pub(super) fn new(description: &Description) -> Self {
        let (head, name_prefix) = match description.head.rsplit_once('"') {
            Some((head, prefix)) if description.quoted => (head, prefix),
            _ => (description.head.as_str(), ""),
        };
        // The trigger is searched for among words, so it is one token.
        let trigger = lark::trigger(description);
        let opening = format!("{}{head}", description.begin);
        let open = match (description.words, opening.strip_prefix(trigger)) {
            (Words::Before, Some(rest)) => [vec![trigger.to_owned()], tokens(rest)].concat(),
            _ => tokens(&opening),
        };
        let head = if description.begin.is_empty() { open.clone() } else { tokens(head) };
        let next = description.between.as_ref().map(|between| [tokens(between), head].concat());
        let mut middle = GapTokens::new(&description.middle);
        if description.quoted {
            // The name's closing quote is read with the name.
            middle.before = tokens(&description.middle.before[1..]);
        }
        Self {
            words: description.words,
            lead: tokens(&description.lead),
            open,
            next,
            end: tokens(&description.end),
            quoted: description.quoted,
            name_prefix: name_prefix.to_owned(),
            middle,
            tail: GapTokens::new(&description.tail),
        }
    }
}

/// Fixed text in its parts: JSON strings, punctuation marks, and everything between them.
pub(super) fn tokens(text: &str) -> Tokens {
    let mut found = Tokens::new();
    let mut rest = text.trim_start_matches(SPACE);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '{' | '}' | '[' | ']' | '(' | ')' | ',' | ':' | ';' => 1,
            _ => rest.find(|c: char| SPACE.contains(&c) || "\"{}[](),:;".contains(c)).unwrap_or(rest.len()),
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start_matches(SPACE);
    }
    found
}

/// Where the parser is; the buffer begins with what the state expects.
#[derive(Debug)]
enum State {
    /// Nothing is known yet, or words among which a call may begin.
    Open,
    Arguments(ObjectEnd),
    /// After the arguments.
    Tail,
    /// After a call.
    Next,
    /// Only words can follow.
    Words,
}

/// The incremental parser of a [`Format`].
pub(super) struct EnvelopeParser {
    format: Arc<Format>,
    state: State,
    buffer: String,
    calls: usize,
    /// White space right after a call belongs to nobody.
    drop_space: bool,
    deltas: Vec<Delta>,
}

impl EnvelopeParser {
    pub(super) fn new(format: Arc<Format>) -> Self {
        Self { format, state: State::Open, buffer: String::new(), calls: 0, drop_space: false, deltas: Vec::new() }
    }

    /// Reads as far as the buffer goes; true when there may be more to read.
    fn step(&mut self) -> bool {
        let format = Arc::clone(&self.format);
        match &mut self.state {
            State::Open if format.words == Words::Before => self.find_call(&format),
            State::Open => self.start_or(&format, &format.open, State::Words),
            State::Arguments(_) => self.read_arguments(),
            State::Tail => self.read_tail(&format),
            State::Next => self.read_next(&format),
            State::Words => {
                self.say(self.buffer.len());
                false
            }
        }
    }

    /// Words up to the next opening tag.
    fn find_call(&mut self, format: &Format) -> bool {
        let tag = format.open[0].as_str();
        let Some(at) = self.buffer.find(tag) else {
            let held = held_back(&self.buffer, tag);
            self.say(self.buffer.len() - held);
            return false;
        };
        self.say(self.buffer[..at].trim_end_matches(SPACE).len());
        let at = self.buffer.len() - self.buffer.trim_start_matches(SPACE).len();
        match read_head(&self.buffer, &format.open, format) {
            Ok((name, length)) => self.start_call(name, length),
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => {
                self.say(at + tag.len());
                true
            }
        }
    }

    fn start_or(&mut self, format: &Format, opening: &[String], otherwise: State) -> bool {
        match read_head(&self.buffer, opening, format) {
            Ok((name, length)) => self.start_call(name, length),
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => {
                self.state = otherwise;
                true
            }
        }
    }

    /// What is held back can be nothing but the beginning of a call.
    fn is_call_begun(&self) -> bool {
        let text = self.buffer.trim_start_matches(SPACE);
        match self.format.words {
            Words::Before => text.starts_with(&self.format.open[0]),
            // Words never begin with the first character of a call, nor with the whole of what may stand before it.
            Words::Instead => {
                let Format { lead, open, .. } = self.format.as_ref();
                let led = !lead.is_empty() && text.starts_with(&lead.concat());
                matches!(self.state, State::Open)
                    && (led || open[0].chars().next().is_some_and(|first| text.starts_with(first)))
            }
        }
    }

    fn start_call(&mut self, name: String, head: usize) -> bool {
        self.buffer.drain(..head);
        self.deltas.push(Delta::CallStart { index: self.calls, name });
        self.state = State::Arguments(ObjectEnd::default());
        true
    }

    fn read_arguments(&mut self) -> bool {
        let State::Arguments(scanner) = &mut self.state else { return false };
        let end = scanner.find(&self.buffer);
        let fragment: String = self.buffer.drain(..end.unwrap_or(self.buffer.len())).collect();
        if !fragment.is_empty() {
            self.deltas.push(Delta::CallArguments { index: self.calls, fragment });
        }
        if end.is_some() {
            self.deltas.push(Delta::CallEnd { index: self.calls });
            self.calls += 1;
            self.drop_space = true;
            self.state = State::Tail;
        }
        end.is_some()
    }

    fn read_tail(&mut self, format: &Format) -> bool {
        let mut cursor = Cursor::new(&self.buffer);
        let outcome = read_gap(&mut cursor, &format.tail);
        let length = cursor.at();
        self.after_fixed(outcome, length, State::Next)
    }

    fn read_next(&mut self, format: &Format) -> bool {
        let after = if format.words == Words::Before { State::Open } else { State::Words };
        let mut cursor = Cursor::new(&self.buffer);
        let end = cursor.literals(&format.end);
        let length = cursor.at();
        let starts = match format.next.as_deref() {
            None => Err(Stop::Mismatch),
            // Where a call starts with its name, only the end tells that there is none.
            Some([]) => match end {
                Ok(()) => Err(Stop::Mismatch),
                Err(Stop::Mismatch) => Ok(()),
                Err(Stop::More) => Err(Stop::More),
            },
            Some([first, ..]) => Cursor::new(&self.buffer).literals(std::slice::from_ref(first)),
        };
        match starts {
            Ok(()) => self.start_or(format, format.next.as_deref().unwrap_or_default(), after),
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => self.after_fixed(end, length, after),
        }
    }

    /// Leaves fixed text behind, if all of it was there.
    fn after_fixed(&mut self, outcome: Result<(), Stop>, length: usize, after: State) -> bool {
        match outcome {
            Ok(()) => {
                self.buffer.drain(..length);
                self.state = after;
                true
            }
            Err(Stop::More) => false,
            Err(Stop::Mismatch) => {
                self.state = State::Words;
                true
            }
        }
    }

    /// Takes `length` bytes of words from the buffer.
    fn say(&mut self, length: usize) {
        let mut text: String = self.buffer.drain(..length).collect();
        if self.drop_space {
            text = text.trim_start_matches(SPACE).to_owned();
        }
        if !text.is_empty() {
            self.drop_space = false;
            self.deltas.push(Delta::Text(text));
        }
    }
}

impl TurnParser for EnvelopeParser {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        self.buffer.push_str(text);
        while self.step() {}
        std::mem::take(&mut self.deltas)
    }

    fn finish(&mut self) -> Vec<Delta> {
        // What is left of a call that was cut before its arguments says nothing to anybody.
        if matches!(self.state, State::Open | State::Words) && !self.is_call_begun() {
            self.say(self.buffer.len());
        }
        self.buffer.clear();
        std::mem::take(&mut self.deltas)
    }
}

/// How many bytes at the end of `text` may belong to a tag that is still being written, white space before it included.
fn held_back(text: &str, tag: &str) -> usize {
    let partial = (1..tag.len()).rev().find(|&length| tag.get(..length).is_some_and(|start| text.ends_with(start)));
    let partial = partial.unwrap_or(0);
    text.len() - text[..text.len() - partial].trim_end_matches(SPACE).len()
}

/// Reads from the start of a call to the brace of its arguments: the function's name, and where the brace stands.
fn read_head(text: &str, opening: &[String], format: &Format) -> Result<(String, usize), Stop> {
    let mut cursor = Cursor::new(text);
    cursor.optional(&format.lead)?;
    cursor.literals(opening)?;
    let name = if format.quoted { cursor.string()? } else { cursor.name()? };
    read_gap(&mut cursor, &format.middle)?;
    cursor.skip_space();
    let brace = cursor.at();
    cursor.literals(&["{"])?;
    let name = name.strip_prefix(&format.name_prefix).map_or(name.clone(), str::to_owned);
    Ok((name, brace))
}

fn read_gap(cursor: &mut Cursor<'_>, gap: &GapTokens) -> Result<(), Stop> {
    cursor.literals(&gap.before)?;
    if let Some([open, close]) = &gap.id
        && cursor.optional(open)?
    {
        cursor.id()?;
        cursor.literals(close)?;
    }
    cursor.literals(&gap.after)
}
