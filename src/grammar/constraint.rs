//! One turn's constraint: which tokens may come next, which must, and whether it is over.

use super::GrammarError;

/// A compiled grammar in some state.
pub struct Constraint {
    _private: (),
}

impl Constraint {
    /// Writes `-inf` into the logits of forbidden tokens (also those beyond the tokenizer's vocabulary).
    pub fn apply_mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let _ = logits;
        todo!()
    }

    /// Advances by a sampled token.
    pub fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        let _ = token;
        todo!()
    }

    /// Tokens that the grammar forces next; they are already committed when returned. Empty when there is a choice.
    pub fn take_forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        todo!()
    }

    /// Nothing more can follow: the turn is complete.
    pub fn is_finished(&self) -> bool {
        todo!()
    }
}
