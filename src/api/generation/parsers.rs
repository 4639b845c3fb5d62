//! What stands around a dialect's parser: the names that the caller gave, turns that must call, and answers of a demanded
//! form. Knows no dialect.

use crate::chat::Names;
use crate::chat::dialect::{Delta, TurnParser};

/// Renames what `parser` reads.
pub(super) struct CallersNames {
    parser: Box<dyn TurnParser>,
    names: Names,
}

impl CallersNames {
    pub(super) fn new(parser: Box<dyn TurnParser>, names: Names) -> Self {
        Self { parser, names }
    }

    fn rename(&self, mut deltas: Vec<Delta>) -> Vec<Delta> {
        for delta in &mut deltas {
            if let Delta::CallStart { name, .. } = delta {
                *name = self.names.given(name).to_owned();
            }
        }
        deltas
    }
}

impl TurnParser for CallersNames {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        let deltas = self.parser.push(text);
        self.rename(deltas)
    }

    fn finish(&mut self) -> Vec<Delta> {
        let deltas = self.parser.finish();
        self.rename(deltas)
    }
}

/// Reads a turn that must call: what has not become a call is no words either, but the beginning of one.
pub(super) struct CallsOnly<P>(pub(super) P);

impl<P: TurnParser> TurnParser for CallsOnly<P> {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        without_words(self.0.push(text))
    }

    fn finish(&mut self) -> Vec<Delta> {
        without_words(self.0.finish())
    }
}

fn without_words(mut deltas: Vec<Delta>) -> Vec<Delta> {
    deltas.retain(|delta| !matches!(delta, Delta::Text(_)));
    deltas
}

/// Reads a turn that is either an answer of a demanded form or calls. What begins as an answer stays one, whatever it quotes.
pub(super) struct AnswerOrCalls<P> {
    calls: P,
    state: State,
}

enum State {
    /// Nothing tells yet which it is; the text so far.
    Open(String),
    Answer,
    Calls,
}

impl<P: TurnParser> AnswerOrCalls<P> {
    pub(super) fn new(calls: P) -> Self {
        Self { calls, state: State::Open(String::new()) }
    }

    /// What the first piece that became certain tells.
    fn decide(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        match (&mut self.state, deltas.first()) {
            (State::Open(text), Some(Delta::Text(_))) => {
                let answer = Delta::Text(std::mem::take(text));
                self.state = State::Answer;
                vec![answer]
            }
            (State::Open(_), Some(_)) => {
                self.state = State::Calls;
                deltas
            }
            _ => deltas,
        }
    }
}

impl<P: TurnParser> TurnParser for AnswerOrCalls<P> {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        match &mut self.state {
            State::Answer => return vec![Delta::Text(text.to_owned())],
            State::Open(held) => held.push_str(text),
            State::Calls => {}
        }
        let deltas = self.calls.push(text);
        self.decide(deltas)
    }

    fn finish(&mut self) -> Vec<Delta> {
        if matches!(self.state, State::Answer) {
            return Vec::new();
        }
        let deltas = self.calls.finish();
        self.decide(deltas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::dialect::by_name;

    #[test]
    fn an_answer_that_quotes_a_call_stays_an_answer() {
        let text = r#"{"note":"[TOOL_CALLS]f[ARGS]{}"}"#;
        for step in [1, 3, text.len()] {
            let dialect = by_name("mistral_args").unwrap();
            let mut parser = AnswerOrCalls::new(CallersNames::new(dialect.parser(&[]), Names::default()));
            let pieces = text.as_bytes().chunks(step).map(|piece| std::str::from_utf8(piece).unwrap());
            let mut deltas: Vec<Delta> = pieces.flat_map(|piece| parser.push(piece)).collect();
            deltas.extend(parser.finish());
            let words = deltas.iter().map(|delta| match delta {
                Delta::Text(text) => text.as_str(),
                other => panic!("{other:?}"),
            });
            assert_eq!(words.collect::<String>(), text);
        }
    }
}
