//! One turn's constraint: which tokens may come next, which must, and whether it is over.
//!
//! Knows token ids only. Made by [`super::GrammarCompiler`].

use super::GrammarError;
use llguidance::Matcher;
use toktrie::SimpleVob;

/// A compiled grammar in some state.
pub struct Constraint {
    matcher: Matcher,
    /// The mask of the present state, once computed.
    mask: Option<SimpleVob>,
}

impl Constraint {
    /// A constraint in its first state, whose mask exists. Looks beyond what is forced: some grammars fail only there.
    pub(super) fn start(mut matcher: Matcher) -> anyhow::Result<Self> {
        let mut ahead = matcher.deep_clone();
        if !ahead.consume_ff_tokens().is_empty() || ahead.is_error() {
            ahead.compute_mask_or_eos()?;
        }
        let mask = matcher.compute_mask_or_eos()?;
        Ok(Self { matcher, mask: Some(mask) })
    }

    /// An independent copy in the same state.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), mask: self.mask.clone() }
    }

    /// Writes `-inf` into the logits of forbidden tokens (also those beyond the tokenizer's vocabulary).
    ///
    /// Where the turn may end, the end-of-turn ids are allowed; where it is over, nothing else is.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn apply_mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.matcher.compute_mask_or_eos().map_err(|error| broken(&error))?,
        };
        forbid(&mask, logits);
        self.mask = Some(mask);
        Ok(())
    }

    /// Advances by a sampled token.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the token was not allowed; the constraint is unusable then.
    pub fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        self.mask = None;
        self.matcher.consume_token(token).map_err(|error| broken(&error))
    }

    /// Advances by as many of these tokens as the grammar takes; says how many.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn advance(&mut self, tokens: &[u32]) -> Result<usize, GrammarError> {
        self.mask = None;
        self.matcher.try_consume_tokens(tokens).map_err(|error| broken(&error))
    }

    /// The tokens that may come next, end-of-turn ids included.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn allowed(&mut self) -> Result<Vec<u32>, GrammarError> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.matcher.compute_mask_or_eos().map_err(|error| broken(&error))?,
        };
        let tokens = mask.iter().collect();
        self.mask = Some(mask);
        Ok(tokens)
    }

    /// Tokens that the grammar forces next; they are already committed when returned. Empty when there is a choice.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn take_forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        if self.is_finished() {
            return Ok(Vec::new());
        }
        let tokens = self.matcher.consume_ff_tokens();
        // A broken parser forces nothing and counts as stopped: it must not pass for a finished one.
        if let Some(error) = self.matcher.get_error() {
            return Err(broken(&error));
        }
        if !tokens.is_empty() {
            self.mask = None;
        }
        Ok(tokens)
    }

    /// The turn may end here.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the constraint is unusable.
    pub fn is_accepting(&mut self) -> Result<bool, GrammarError> {
        self.matcher.is_accepting().map_err(|error| broken(&error))
    }

    /// Nothing more can follow: the turn is complete.
    pub fn is_finished(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }
}

/// `-inf` for every id without a bit in the mask.
fn forbid(mask: &SimpleVob, logits: &mut [f32]) {
    let known = mask.len().min(logits.len());
    let (known, padding) = logits.split_at_mut(known);
    padding.fill(f32::NEG_INFINITY);
    for (word, chunk) in mask.as_slice().iter().zip(known.chunks_mut(32)) {
        match *word {
            u32::MAX => {}
            0 => chunk.fill(f32::NEG_INFINITY),
            word => {
                let forbidden = chunk.iter_mut().enumerate().filter(|(bit, _)| word & (1 << bit) == 0);
                forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
    }
}

fn broken(error: &impl std::fmt::Display) -> GrammarError {
    let text = error.to_string();
    GrammarError::Internal(text.lines().next().unwrap_or_default().chars().take(300).collect())
}
