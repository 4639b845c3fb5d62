//! Compiles grammars off the engine thread, on large stacks, into constraints whose first mask is already computed.

use super::{Constraint, GrammarError};
use toktrie::TokEnv;

/// A pool of compile threads over one tokenizer.
pub struct GrammarCompiler {
    _private: (),
}

impl GrammarCompiler {
    /// Starts `threads` compile threads with 64 MiB stacks.
    pub fn new(tok_env: TokEnv, threads: usize) -> Result<Self, GrammarError> {
        let _ = (tok_env, threads);
        todo!()
    }

    /// Compiles Lark text. Blocking; see [`Self::compile`] for async callers.
    pub fn compile_blocking(&self, lark: &str) -> Result<Constraint, GrammarError> {
        let _ = lark;
        todo!()
    }

    /// Compiles Lark text on the pool without blocking the caller's thread.
    pub async fn compile(&self, lark: String) -> Result<Constraint, GrammarError> {
        let _ = lark;
        todo!()
    }
}
