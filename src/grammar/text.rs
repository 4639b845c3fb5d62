//! A grammar against plain text, byte by byte: is it accepted, where does it leave the grammar, what else is. For people and
//! tests; the engine works on tokens. Knows no tokenizer but single bytes.

use super::{Constraint, GrammarCompiler, GrammarError};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use toktrie::ApproximateTokEnv;

/// Attempts to find a text that ends.
const ATTEMPTS: u64 = 50;

/// Compiles grammars over single bytes.
pub struct TextGrammars {
    compiler: GrammarCompiler,
}

/// What a grammar makes of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The whole text is one complete turn.
    pub accepted: bool,
    /// Bytes that the grammar takes.
    pub at: usize,
    /// Bytes that may come next.
    pub allowed: Vec<u8>,
    /// The turn may end here.
    pub may_end: bool,
}

impl TextGrammars {
    /// Starts a compile thread.
    ///
    /// # Errors
    /// As [`GrammarCompiler::new`].
    pub fn new() -> Result<Self, GrammarError> {
        Ok(Self { compiler: GrammarCompiler::new(ApproximateTokEnv::single_byte_env(), 1)? })
    }

    /// Compiles Lark text.
    ///
    /// # Errors
    /// As [`GrammarCompiler::compile_blocking`].
    pub fn compile(&self, lark: &str) -> Result<Constraint, GrammarError> {
        self.compiler.compile_blocking(lark)
    }
}

/// Follows a text from the constraint's first state.
///
/// # Errors
/// [`GrammarError::Internal`] when the parser meets a limit.
pub fn verdict(mut constraint: Constraint, text: &[u8]) -> Result<Verdict, GrammarError> {
    let bytes: Vec<u32> = text.iter().copied().map(u32::from).collect();
    let at = constraint.advance(&bytes)?;
    let may_end = constraint.is_finished() || constraint.is_accepting()?;
    Ok(Verdict { accepted: at == text.len() && may_end, at, allowed: allowed_bytes(&mut constraint)?, may_end })
}

/// The bytes that every accepted turn begins with.
///
/// # Errors
/// As [`verdict`].
pub fn forced_start(mut constraint: Constraint) -> Result<Vec<u8>, GrammarError> {
    Ok(constraint.take_forced()?.into_iter().filter_map(|id| u8::try_from(id).ok()).collect())
}

/// A random accepted turn of at most `limit` bytes, the same for the same seed; `None` when none was found.
///
/// # Errors
/// As [`verdict`].
pub fn sample(constraint: &Constraint, seed: u64, limit: usize) -> Result<Option<Vec<u8>>, GrammarError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..ATTEMPTS {
        let text = walk(constraint.fork(), &mut random, limit)?;
        if let Some(text) = text.filter(|text| std::str::from_utf8(text).is_ok()) {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// One random walk: short words and numbers, and from half the limit on whatever closes things.
fn walk(mut constraint: Constraint, random: &mut ChaCha8Rng, limit: usize) -> Result<Option<Vec<u8>>, GrammarError> {
    let mut text = Vec::new();
    while text.len() <= limit {
        let allowed = allowed_bytes(&mut constraint)?;
        let may_end = constraint.is_finished() || constraint.is_accepting()?;
        let tired = text.len() > limit / 2;
        if allowed.is_empty() || (may_end && (tired || chance(random, 8))) {
            return Ok(may_end.then_some(text));
        }
        let byte = pick(&allowed, tired, random);
        constraint.commit(byte.into())?;
        text.push(byte);
    }
    Ok(None)
}

fn pick(allowed: &[u8], tired: bool, random: &mut ChaCha8Rng) -> u8 {
    // Inside a string only its quote closes anything.
    let inside = allowed.len() > 60 && allowed.contains(&b'"');
    let closers: &[u8] = if inside { b"\"" } else { b"\"}])," };
    let closing: Vec<u8> = allowed.iter().copied().filter(|byte| closers.contains(byte)).collect();
    if !closing.is_empty() && (tired || chance(random, 4)) {
        let first = if tired { closing.iter().copied().find(|byte| *byte != b',') } else { None };
        return first.unwrap_or_else(|| one_of(&closing, random));
    }
    let readable = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b' ';
    let mut readable: Vec<u8> = allowed.iter().filter(readable).copied().collect();
    if readable.len() > 30 {
        // Anything may stand here: words read better than noise.
        readable.retain(|byte| byte.is_ascii_lowercase() || *byte == b' ');
    }
    one_of(if readable.is_empty() || chance(random, 10) { allowed } else { &readable }, random)
}

fn one_of(bytes: &[u8], random: &mut ChaCha8Rng) -> u8 {
    bytes[random.next_u32() as usize % bytes.len()]
}

/// Once in `times`.
fn chance(random: &mut ChaCha8Rng, times: u32) -> bool {
    random.next_u32().is_multiple_of(times)
}

fn allowed_bytes(constraint: &mut Constraint) -> Result<Vec<u8>, GrammarError> {
    if constraint.is_finished() {
        return Ok(Vec::new());
    }
    Ok(constraint.allowed()?.into_iter().filter_map(|id| u8::try_from(id).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(lark: &str) -> Constraint {
        TextGrammars::new().unwrap().compile(lark).unwrap()
    }

    #[test]
    fn a_verdict_names_the_place_and_what_may_stand_there() {
        let start = constraint("start: \"ab\" (\"c\" | \"d\")");
        let verdict = |text: &str| super::verdict(start.fork(), text.as_bytes()).unwrap();
        assert_eq!(verdict("abc"), Verdict { accepted: true, at: 3, allowed: vec![], may_end: true });
        assert_eq!(verdict("abx"), Verdict { accepted: false, at: 2, allowed: vec![b'c', b'd'], may_end: false });
        assert_eq!(verdict("ab"), Verdict { accepted: false, at: 2, allowed: vec![b'c', b'd'], may_end: false });
        assert_eq!(verdict("abcd"), Verdict { accepted: false, at: 3, allowed: vec![], may_end: true });
        assert_eq!(forced_start(start).unwrap(), b"ab");
    }

    #[test]
    fn samples_are_accepted_and_reproducible() {
        let schema = crate::grammar::schema::admit(&serde_json::json!({"type": "object", "properties": {
            "words": {"type": "array", "items": {"type": "string"}}, "n": {"type": "number"}}, "required": ["words"]}));
        let start = constraint(&format!("start: %json {}", schema.unwrap()));
        let texts: Vec<Vec<u8>> = (0..40).map(|seed| sample(&start, seed, 200).unwrap().unwrap()).collect();
        assert!(texts.iter().all(|text| super::verdict(start.fork(), text).unwrap().accepted));
        assert_eq!(sample(&start, 7, 200).unwrap().unwrap(), texts[7]);
        assert!(texts.iter().collect::<std::collections::HashSet<_>>().len() > 20);
    }
}
