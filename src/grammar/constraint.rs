//! One turn's constraint: which tokens may come next, which must, and whether it is over. Joins the parser of the grammar
//! with the guard of what no grammar can know.
//!
//! Knows token ids only. Made by [`super::GrammarCompiler`].

use super::GrammarError;
use super::keys::KeyGuard;
use llguidance::Matcher;
use std::collections::HashMap;
use toktrie::SimpleVob;

/// Choices that are looked at before the first token.
const LOOK_AHEAD: usize = 16;
/// So many tokens allowed are free text.
const FREE: usize = 10_000;

/// A compiled grammar in some state.
pub struct Constraint {
    matcher: Matcher,
    /// The mask of the present state, once computed.
    mask: Option<SimpleVob>,
    /// Where names are free.
    keys: Option<KeyGuard>,
}

impl Constraint {
    /// A constraint in its first state, whose mask exists. Looks beyond what is forced: some grammars fail only there.
    pub(super) fn start(matcher: Matcher, keys: Option<KeyGuard>) -> anyhow::Result<Self> {
        look_ahead(&matcher)?;
        let mut constraint = Self { matcher, mask: None, keys };
        constraint.compute_mask()?;
        Ok(constraint)
    }

    /// An independent copy in the same state.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), mask: self.mask.clone(), keys: self.keys.clone() }
    }

    /// Writes `-inf` into the logits of forbidden tokens (also those beyond the tokenizer's vocabulary).
    ///
    /// Where the turn may end, the end-of-turn ids are allowed; where it is over, nothing else is.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn apply_mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        forbid(self.mask()?, logits);
        Ok(())
    }

    /// Computes the mask of the present state ahead of its use; false if it was there already.
    ///
    /// # Errors
    /// As [`Self::apply_mask`].
    pub fn prepare_mask(&mut self) -> Result<bool, GrammarError> {
        let missing = self.mask.is_none();
        self.mask()?;
        Ok(missing)
    }

    /// The mask of the present state if it is there: a bit for each token that may come next.
    pub fn prepared_mask(&self) -> Option<&[u32]> {
        self.mask.as_ref().map(SimpleVob::as_slice)
    }

    fn mask(&mut self) -> Result<&SimpleVob, GrammarError> {
        if self.mask.is_none() {
            self.compute_mask().map_err(|error| broken(&error))?;
        }
        self.mask.as_ref().ok_or_else(|| GrammarError::Internal("no mask".to_owned()))
    }

    fn compute_mask(&mut self) -> anyhow::Result<()> {
        let mut mask = self.matcher.compute_mask_or_eos()?;
        if let Some(keys) = &self.keys {
            keys.restrict(&mut mask);
            let (mut known, beginnings) = (HashMap::new(), keys.beginnings(&mask));
            for token in beginnings {
                if self.is_dead_end(token, &mut known)? {
                    mask.disallow_token(token);
                }
            }
            if mask.is_zero() {
                mask = self.matcher.compute_mask_or_eos()?;
            }
        }
        self.mask = Some(mask);
        Ok(())
    }

    /// Whether the token begins a key that can only end as one that the object has had. Recurses with the key's length;
    /// `known` says it of keys that have been looked at.
    fn is_dead_end(&mut self, token: u32, known: &mut HashMap<Vec<u8>, bool>) -> anyhow::Result<bool> {
        let Some(mut keys) = self.keys.clone() else { return Ok(false) };
        keys.follow(token);
        if let Some(&dead) = known.get(keys.key()) {
            return Ok(dead);
        }
        let dead = !self.leads_on(token, &keys)? && self.fork().ends_as_said(token, known)?;
        known.insert(keys.key().to_vec(), dead);
        Ok(dead)
    }

    /// Whether one of the usual bytes after the token leads to a new key: most often, and quickly found.
    fn leads_on(&mut self, token: u32, keys: &KeyGuard) -> anyhow::Result<bool> {
        for way in keys.ways_out() {
            if self.matcher.validate_tokens(&[token, way])? == 2 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all that may come after the token are beginnings of keys that were said, and dead ends.
    fn ends_as_said(&mut self, token: u32, known: &mut HashMap<Vec<u8>, bool>) -> anyhow::Result<bool> {
        self.commit(token)?;
        let mut mask = self.matcher.compute_mask_or_eos()?;
        let Some(keys) = &self.keys else { return Ok(false) };
        keys.restrict(&mut mask);
        let beginnings = keys.beginnings(&mask);
        if beginnings.len() < mask.num_set() {
            return Ok(false);
        }
        for token in beginnings {
            if !self.is_dead_end(token, known)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Advances by a sampled token.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the token was not allowed; the constraint is unusable then.
    pub fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        self.matcher.consume_token(token).map_err(|error| broken(&error))?;
        self.follow(&[token]);
        Ok(())
    }

    /// Takes note of committed tokens.
    fn follow(&mut self, tokens: &[u32]) {
        self.mask = None;
        if let Some(keys) = &mut self.keys {
            tokens.iter().for_each(|token| keys.follow(*token));
        }
    }

    /// Advances by as many of these tokens as the grammar takes; says how many.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn advance(&mut self, tokens: &[u32]) -> Result<usize, GrammarError> {
        for (count, token) in tokens.iter().enumerate() {
            let repeats = self.keys.as_ref().is_some_and(|keys| keys.repeats(*token));
            if repeats || self.matcher.try_consume_tokens(&[*token]).map_err(|error| broken(&error))? == 0 {
                return Ok(count);
            }
            self.follow(&[*token]);
        }
        Ok(tokens.len())
    }

    /// The tokens that may come next, end-of-turn ids included.
    ///
    /// # Errors
    /// [`GrammarError::Internal`] when the parser met a limit; the constraint is unusable then.
    pub fn allowed(&mut self) -> Result<Vec<u32>, GrammarError> {
        Ok(self.mask()?.iter().collect())
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
            self.follow(&tokens);
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

/// Goes one way through the grammar, as far as its first free text, in a copy that shares the lexer: what that learns there
/// stays, so that the first masks of a turn cost no more than the later ones. Of errors only one at the first choice counts:
/// nobody need come to the others.
fn look_ahead(matcher: &Matcher) -> anyhow::Result<()> {
    let mut ahead = matcher.clone();
    let mut next = choice(&mut ahead)?;
    for _ in 1..LOOK_AHEAD {
        let Some(token) = next else { break };
        next = ahead.consume_token(token).and_then(|()| choice(&mut ahead)).unwrap_or(None);
    }
    Ok(())
}

/// Takes what is forced, and finds a token that may come next; none at the end and where text is free.
fn choice(matcher: &mut Matcher) -> anyhow::Result<Option<u32>> {
    matcher.consume_ff_tokens();
    if matcher.is_stopped() && !matcher.is_error() {
        return Ok(None);
    }
    let mask = matcher.compute_mask_or_eos()?;
    Ok(mask.iter().next().filter(|_| mask.num_set() < FREE))
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
