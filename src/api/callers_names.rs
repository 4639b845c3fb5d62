//! A dialect's parser whose calls have the names that the caller gave. Knows no dialect.

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
