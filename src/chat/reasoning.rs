//! Thoughts (`<think>…</think>`) before an answer: whether a turn may have them, their grammar, and their splitting off.
//! Knows no dialect and no wire format.

use super::SPACE;
use super::dialect::escape;
use super::template::Segment;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Whether the turn that follows a prompt has thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reasoning {
    /// The model does not think aloud.
    #[default]
    Absent,
    /// The turn may begin with thoughts.
    Optional,
    /// The prompt has opened the thoughts: the turn begins inside them.
    Open,
}

impl Reasoning {
    /// What a prompt leaves to the model, for a chat template that knows thoughts.
    pub fn after(prompt: &[Segment]) -> Self {
        let text = |segment: &Segment| match segment {
            Segment::Control(text) | Segment::Text(text) => text.trim_end_matches(SPACE).to_owned(),
        };
        let last = prompt.iter().rev().map(text).find(|text| !text.is_empty()).unwrap_or_default();
        if last.ends_with(OPEN) {
            Self::Open
        } else if last.ends_with(CLOSE) {
            Self::Absent
        } else {
            Self::Optional
        }
    }
}

/// Lark rules from `start` to the rule `turn`, with the thoughts that may stand before it.
pub fn start(reasoning: Reasoning, turn: &str) -> String {
    let open = match reasoning {
        Reasoning::Absent => return format!("start: {turn}\n"),
        Reasoning::Optional => format!("{turn} | {OPEN:?} "),
        Reasoning::Open => String::new(),
    };
    let close = escape(CLOSE);
    // Words may take the line breaks after the thoughts for themselves; calls cannot.
    format!(
        "start: {open}THOUGHTS BREAKS? {turn}\nTHOUGHTS: /(.|\\n)*{close}/ & ~/(.|\\n)*{close}(.|\\n)+/\nBREAKS: /\\n{{1,2}}/\n"
    )
}

/// What words must not begin with where thoughts may stand instead, as the rest of a Lark terminal.
pub fn excluded_start(reasoning: Reasoning) -> String {
    match reasoning {
        Reasoning::Optional => format!(" & ~/[ \\t\\r\\n]*{}(.|\\n)*/", escape(OPEN)),
        _ => String::new(),
    }
}

/// A turn's text taken apart into thoughts and the rest, however it is split.
#[derive(Debug)]
pub struct ThoughtSplitter {
    state: State,
    buffer: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Nothing but white space so far.
    Start,
    Thinking,
    /// White space after the thoughts belongs to nobody.
    Closed,
    Answer,
}

/// What became certain.
#[derive(Debug, Default, PartialEq)]
pub struct Split {
    pub thoughts: String,
    pub rest: String,
}

/// Takes a whole turn apart.
pub fn split(reasoning: Reasoning, text: &str) -> Split {
    let mut splitter = ThoughtSplitter::new(reasoning);
    let (certain, held) = (splitter.push(text), splitter.finish());
    Split { thoughts: certain.thoughts + &held.thoughts, rest: certain.rest + &held.rest }
}

impl ThoughtSplitter {
    /// Reads a turn from its start.
    pub fn new(reasoning: Reasoning) -> Self {
        let state = match reasoning {
            Reasoning::Absent => State::Answer,
            Reasoning::Optional => State::Start,
            Reasoning::Open => State::Thinking,
        };
        Self { state, buffer: String::new() }
    }

    /// Whether nothing has been said yet that tells thoughts from an answer.
    pub fn is_undecided(&self) -> bool {
        self.state == State::Start
    }

    /// Whether the text is inside thoughts.
    pub fn is_thinking(&self) -> bool {
        self.state == State::Thinking
    }

    pub fn push(&mut self, text: &str) -> Split {
        if self.state == State::Answer {
            return Split { rest: text.to_owned(), ..Split::default() };
        }
        self.buffer.push_str(text);
        let mut split = Split::default();
        while self.step(&mut split) {}
        split
    }

    /// The turn is over: what was held back.
    pub fn finish(&mut self) -> Split {
        let rest = std::mem::take(&mut self.buffer);
        match self.state {
            State::Thinking => Split { thoughts: rest, ..Split::default() },
            State::Closed => Split::default(),
            _ => Split { rest, ..Split::default() },
        }
    }

    /// True when there may be more to read.
    fn step(&mut self, split: &mut Split) -> bool {
        match self.state {
            State::Start => self.open(),
            State::Thinking => self.think(split),
            State::Closed => {
                let kept = self.buffer.trim_start_matches(SPACE).len();
                self.buffer.drain(..self.buffer.len() - kept);
                self.state = if kept > 0 { State::Answer } else { State::Closed };
                kept > 0
            }
            State::Answer => {
                split.rest.push_str(&std::mem::take(&mut self.buffer));
                false
            }
        }
    }

    fn open(&mut self) -> bool {
        let words = self.buffer.trim_start_matches(SPACE);
        if words.starts_with(OPEN) {
            let length = self.buffer.len() - words.len() + OPEN.len();
            self.buffer.drain(..length);
            self.state = State::Thinking;
        } else if OPEN.starts_with(words) {
            return false;
        } else {
            self.state = State::Answer;
        }
        true
    }

    fn think(&mut self, split: &mut Split) -> bool {
        if let Some(at) = self.buffer.find(CLOSE) {
            split.thoughts.push_str(&self.buffer[..at]);
            self.buffer.drain(..at + CLOSE.len());
            self.state = State::Closed;
            return true;
        }
        let held = (1..CLOSE.len()).rev().find(|&length| self.buffer.ends_with(&CLOSE[..length])).unwrap_or(0);
        let certain = self.buffer.len() - held;
        split.thoughts.extend(self.buffer.drain(..certain));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split_pieces(reasoning: Reasoning, pieces: &[&str]) -> (String, String) {
        let mut splitter = ThoughtSplitter::new(reasoning);
        let mut splits: Vec<Split> = pieces.iter().map(|piece| splitter.push(piece)).collect();
        splits.push(splitter.finish());
        let join = |part: fn(&Split) -> &str| splits.iter().map(part).collect::<String>();
        (join(|split| &split.thoughts), join(|split| &split.rest))
    }

    #[test]
    fn thoughts_are_split_off_and_the_rest_is_untouched() {
        let pair = |thoughts: &str, rest: &str| (thoughts.to_owned(), rest.to_owned());
        assert_eq!(split_pieces(Reasoning::Optional, &["<think>\nhm\n</think>\n\nYes."]), pair("\nhm\n", "Yes."));
        assert_eq!(split_pieces(Reasoning::Optional, &["\n<think></think>Yes"]), pair("", "Yes"));
        assert_eq!(split_pieces(Reasoning::Open, &["hm </thi", "nk> Yes </think>"]), pair("hm ", "Yes </think>"));
        assert_eq!(split_pieces(Reasoning::Optional, &["Yes <think>"]), pair("", "Yes <think>"));
        assert_eq!(split_pieces(Reasoning::Absent, &["<think>a</think>b"]), pair("", "<think>a</think>b"));
        assert_eq!(split_pieces(Reasoning::Optional, &["<think>cut </thi"]), pair("cut </thi", ""));
        assert_eq!(split_pieces(Reasoning::Optional, &[" <thi"]), pair("", " <thi"));
    }

    #[test]
    fn the_prompts_end_says_what_is_left_to_the_model() {
        let after =
            |text: &str| Reasoning::after(&[Segment::Control("<|im_start|>".into()), Segment::Text(text.into())]);
        assert_eq!(after("assistant\n"), Reasoning::Optional);
        assert_eq!(after("assistant\n<think>\n"), Reasoning::Open);
        assert_eq!(after("assistant\n<think>\n\n</think>\n\n"), Reasoning::Absent);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_parts(pieces in prop::collection::vec(
            prop::sample::select(vec!["<think>", "</think>", "<th", "ink>", "</", "a", "\n", " ", "{", "é", "\u{a0}", "\u{c}"]), 0..10)) {
            let whole = pieces.concat();
            for reasoning in [Reasoning::Absent, Reasoning::Optional, Reasoning::Open] {
                prop_assert_eq!(split_pieces(reasoning, &pieces), split_pieces(reasoning, &[whole.as_str()]));
            }
        }
    }
}
